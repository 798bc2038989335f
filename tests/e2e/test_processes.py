# SPDX-License-Identifier: Apache-2.0
"""Several processes, over Gloo: they train, score and predict as one does, and end together."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tests.e2e.bundle import (
    ENVIRONMENT,
    EVALUATE,
    INFERENCE,
    ROOT,
    SMALL,
    TRAIN,
    arguments,
    places,
    run_processes,
    run_warm,
)
from tests.e2e.datasets import make_folder
from tests.e2e.logs import epochs_of
from tests.files import write_picture

pytestmark = pytest.mark.slow

TRAIN_TOGETHER = [TRAIN, "configs/multi_gpu.yaml"]
ALSO_TOGETHER = [TRAIN, "configs/also_validate.yaml", "configs/multi_gpu.yaml"]
EVALUATE_TOGETHER = [*EVALUATE, "configs/multi_gpu.yaml"]
PREDICT_TOGETHER = [INFERENCE, "configs/multi_gpu_inference.yaml"]
PRETRAIN_TOGETHER = [TRAIN, "configs/pretrain.yaml", "configs/multi_gpu.yaml"]
SAME_EACH_TIME = {  # nothing drawn, but for the order, which is left as it is
    "train_prompts": {"box": 1.0},
    "rounds": 1,
    "gradient_rounds": 1,
    "whole_prob": 0.0,
    "crop_prob": 0.0,
    "geometry_transforms": [
        {"_target_": "Resized", "keys": ["image", "label"], "spatial_size": [64, 64], "mode": ["bilinear", "nearest"]}
    ],
    "intensity_transforms": [],
    "train#sampler": "$torch.utils.data.SequentialSampler(@train#dataset)",
}


def assert_ended_well(results):
    assert [result.code for result in results] == [0] * len(results), "\n".join(result.err for result in results)


def load(path):
    return torch.load(path, weights_only=True)


def scores_of(folder):
    """All that was measured but the memory that it took."""
    measured = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in measured.items() if not name.startswith("memory")}


@pytest.fixture(scope="module")
def scored(shared, dataset, trained):
    """How to evaluate the trained network on a list of images, and the scores of one process by the list's length."""
    images = json.dumps([{"image": f"images/case_{i}.png", "label": f"labels/case_{i}_mask.png"} for i in range(7)])

    def settings(count, folder):
        path = dataset / f"first_{count}.json"
        path.write_text(json.dumps({"training": [], "validation": json.loads(images)[:count]}))
        return {**SMALL, "dataset_dir": path, **places(folder), "ckpt_dir": trained[1] / "models"}

    alone = {}
    for count in (1, 7):
        result = run_warm("evaluating", EVALUATE, **settings(count, shared / f"alone_{count}"))
        assert result.code == 0, result.err
        alone[count] = shared / f"alone_{count}" / "eval"
    return settings, alone


@pytest.mark.parametrize(("images", "processes"), [(7, 2), (7, 3), (1, 2)], ids=str)
def test_scores_of_several_processes_are_those_of_one(folder, scored, images, processes):
    """Of one image, one process has what is asked for object by object, and the other what is asked for as a whole."""
    settings, alone = scored
    assert_ended_well(run_processes(processes, "evaluating", EVALUATE_TOGETHER, **settings(images, folder)))
    assert scores_of(folder / "eval") == scores_of(alone[images])
    assert (folder / "eval" / "metrics.csv").read_text() == (alone[images] / "metrics.csv").read_text()
    rows = (folder / "eval" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * images  # each object, and the whole of each image


def test_torchrun_starts_them(folder, scored):
    settings, alone = scored
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
    command = [sys.executable, *torchrun, *arguments("evaluating", EVALUATE_TOGETHER, **settings(7, folder))]
    environment = {**os.environ, **ENVIRONMENT}  # as many threads as alone, or sums differ in the last digit
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert scores_of(folder / "eval") == scores_of(alone[7])
    assert done.stdout.count("metrics.json and metrics.csv") == 1  # one process speaks


def test_more_processes_than_images_are_refused(folder, scored):
    settings, _ = scored
    results = run_processes(3, "evaluating", EVALUATE_TOGETHER, **settings(1, folder))
    assert [result.errors for result in results] == [
        ["error: 2 items cannot be shared by 3 processes: start 2 at most"]
    ] * 3


def test_without_their_config_they_are_refused(folder, dataset):
    results = run_processes(2, "training", TRAIN, **SMALL, dataset_dir=dataset, **places(folder))
    for result in results:
        assert result.errors == [
            "error: 2 processes would each do all the work: end config_file with one of configs/multi_gpu*.yaml"
        ]


@pytest.mark.parametrize(
    "more", [{}, {"activation_checkpointing": True, "accumulation_steps": 2}], ids=["plain", "frugal"]
)
def test_the_same_global_batch_gives_the_same_loss_curve(folder, dataset, more):
    settings = {**SMALL, **SAME_EACH_TIME, **more, "max_epochs": 5, "val_interval": 5, "dataset_dir": dataset}
    one = run_warm("training", TRAIN, **{**settings, "batch_size": 4}, **places(folder / "one"))
    assert one.code == 0, one.err
    two = run_processes(2, "training", TRAIN_TOGETHER, **{**settings, "batch_size": 2}, **places(folder / "two"))
    assert_ended_well(two)
    # six images are two steps an epoch, of four images and of two, in one process as in both: ten steps
    ends = [load(folder / name / "models" / "last.pth") for name in ("one", "two")]
    assert [end["trainer"]["iteration"] for end in ends] == [10, 10]
    losses = [end["curves"]["losses"] for end in ends]
    assert losses[0][5] < losses[0][1] - 0.1
    assert list(losses[1].values()) == pytest.approx(list(losses[0].values()), abs=1e-4)
    scores = [json.loads((folder / name / "eval" / "metrics.json").read_text())["dice/box"] for name in ("one", "two")]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_processes_stop_early_together_and_tell_what_was_forgotten(folder, dataset):
    other = make_folder(folder / "other", 3)
    settings = {**SMALL, "max_epochs": 9, "early_stop_patience": 1, "learning_rate": 1e-12, "dataset_dir": dataset}
    results = run_processes(2, "training", ALSO_TOGETHER, **settings, **places(folder), also_validate=[str(other)],
                            val_fraction=0.7)  # fmt: skip
    assert_ended_well(results)
    assert load(folder / "models" / "last.pth")["trainer"]["iteration"] < 9 * 2
    assert "dice/click_1: " in results[0].out
    assert "dice/click_1: " not in results[1].out  # one process speaks
    assert set(json.loads((folder / "eval" / "also_validated.json").read_text())) == {"other"}
    assert len(list((folder / "eval" / "tensorboard").iterdir())) <= 3  # of trainer, evaluator and pictures
    keys = load(folder / "models" / "model.pt")["model"]
    assert not [key for key in keys if key.startswith("module.")]


def test_where_one_is_killed_the_other_ends_and_one_alone_goes_on(folder, dataset):
    settings = {**SMALL, "max_epochs": 40, "val_interval": 40, "dataset_dir": dataset, **places(folder)}
    ended = []

    def kill_one(processes, outs):
        end = time.monotonic() + 200
        while 2 not in epochs_of(outs[0].read_text() if outs[0].exists() else ""):
            assert time.monotonic() < end
            time.sleep(0.05)
        processes[1].kill()
        start = time.monotonic()
        processes[0].join(60)
        ended.append(time.monotonic() - start)

    first, second = run_processes(2, "training", TRAIN_TOGETHER, kill_one, **settings)
    assert second.code < 0
    assert first.code == 1
    assert ended[0] < 60
    assert len(first.errors) == 1, first.err
    assert "another process is gone" in first.errors[0]
    done = load(folder / "models" / "last.pth")["trainer"]["iteration"]
    assert done >= 2 * 2

    refused = run_warm("training", TRAIN, **settings, resume_path=folder / "models" / "last.pth")
    assert "batch_size times the number of processes stays the same" in refused.errors[0]
    more = {**settings, "max_epochs": done // 2 + 1, "val_interval": 1, "batch_size": 2 * SMALL["batch_size"]}
    resumed = run_warm("training", TRAIN, **more, resume_path=folder / "models" / "last.pth")
    assert resumed.code == 0, resumed.err
    assert epochs_of(resumed.out) == [done // 2 + 1]


def test_pretraining_shares_a_weighted_mixture_and_its_end(folder, dataset):
    settings = {**SMALL, "mixture": [{"dataset_dir": str(dataset)}], "steps_per_epoch": 2, "val_interval": 1000}
    given = {**settings, "max_epochs": 1000, "minutes": 0.05, "seed": 1, **places(folder)}
    results = run_processes(2, "training", PRETRAIN_TOGETHER, **given)
    assert_ended_well(results)
    assert 0 < load(folder / "models" / "last.pth")["trainer"]["iteration"] < 2000


def test_four_processes_predict_ten_images_once_and_name_what_failed(folder):
    images = folder / "images"
    for i in range(10):
        write_picture(images / f"{i}.png", np.full((20 + i, 30, 3), 20 * i, np.uint8))
    given = {"output_dir": folder / "out", "image_size": 64, "ckpt_path": "models/efficient_sam_vitt_base.pth"}
    results = run_processes(4, "inferring", PREDICT_TOGETHER, dataset_dir=images, **given)
    assert_ended_well(results)
    written = {path.name for path in (folder / "out").glob("*_mask.png")}
    assert written == {f"{i}_mask.png" for i in range(10)}
    saved = [result.out.count("_mask.png") for result in results]
    assert max(saved) <= 3

    (images / "6.png").write_bytes(b"broken")
    given["output_dir"] = folder / "b"
    results = run_processes(4, "inferring", PREDICT_TOGETHER, dataset_dir=images, **given)
    assert [result.code for result in results] == [1] * 4
    said = [line for result in results for line in result.errors]
    assert len(said) == 1
    assert said[0].startswith("error: 1 of 10 images failed, the others are done: ")
    assert "6.png cannot be read" in said[0]
    assert len(list((folder / "b").glob("*_mask.png"))) == 9
