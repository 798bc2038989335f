# SPDX-License-Identifier: Apache-2.0
"""Training as a user starts it: what it writes, what it says, and the settings that change how it goes."""

import json
import re

import pytest
import torch

from scripts.networks import find_weights, load_weights
from scripts.networks.adapters import adapter_parameters
from scripts.networks.adapters.files import read_adapter
from tests.e2e.bundle import EVALUATE, ROOT, SMALL, TRAIN, network_of, places, run_warm
from tests.e2e.datasets import make_cells, make_decathlon
from tests.e2e.logs import epochs_of, read_log

pytestmark = pytest.mark.slow

MEASURES = {
    *(f"{measure}/{kind}" for measure in ("dice", "iou") for kind in ("click_1", "box")),
    *("dice/click_3", "dice/click_5", "iou/click_5", "dice/box_jittered"),
    *("dice_5_thresholds/click_1", "iou_5_thresholds/click_1"),
}


def load(path):
    return torch.load(path, weights_only=True)


def test_a_run_writes_the_best_the_final_and_the_resumable_checkpoint(trained):
    models = trained[1] / "models"
    assert sorted(path.name for path in models.glob("[!.]*")) == [
        "adapter.safetensors",
        "last.pth",
        "model.pt",
        "model_final.pt",
    ]
    for name in ("model.pt", "model_final.pt"):
        load_weights(network_of(TRAIN), models / name)
    assert set(load(models / "last.pth")) == {
        *(
            "ranks",
            "settings",
            "model",
            "optimizer",
            "lr_scheduler",
            "trainer",
            "scaler",
            "best",
            "early_stop",
            "outcome",
            "curves",
        )
    }


def test_the_adapters_learn_and_what_is_frozen_stays(trained):
    network = load_weights(network_of(TRAIN), find_weights(ROOT / "models", "vitt"))
    final = load(trained[1] / "models" / "model_final.pt")["model"]
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(final[name], parameter), name
        elif ".bottleneck.up.weight" in name:  # starts at zero
            assert final[name].any(), name


def test_scalars_and_pictures_go_to_tensorboard_and_figures_and_panels_to_files(trained):
    log = read_log(trained[1] / "eval" / "tensorboard")
    tags = log.Tags()
    assert MEASURES | {"train_loss", "gradient_norm", "memory_resident_gib"} <= set(tags["scalars"])
    assert [event.step for event in log.Scalars("dice/click_1")] == [0, 1, 2]  # 0: before training
    assert {event.step for event in log.Scalars("train_loss")} == set(range(1, 7))  # three batches in each epoch
    assert tags["images"] == ["validation/0", "validation/1"]
    report = json.loads((trained[1] / "eval" / "metrics.json").read_text())
    assert report["dice/click_1"] == pytest.approx(log.Scalars("dice/click_1")[-1].value)
    panels = trained[1] / "eval" / "before_after"
    assert sorted(path.name for path in panels.iterdir()) == ["validation_0.jpg", "validation_1.jpg"]


def test_the_log_says_which_weights_were_loaded_and_how_many_parameters_are_trained(trained):
    network = network_of(TRAIN)
    parameters = dict(network.named_parameters())
    count = {
        trains: sum(p.numel() for p in parameters.values() if p.requires_grad == trains) for trains in (True, False)
    }
    added = sum(parameters[name].numel() for name in adapter_parameters(network))
    log = trained[0].out
    assert re.search(
        rf"parameters: {count[True]:,} trained \(\d+\.\d %\), {count[False]:,} frozen, {added:,} added by adapters", log
    )
    weights = re.escape(find_weights("models", "vitt"))
    assert re.search(
        rf"loaded \d+ tensors from {weights}; 96 tensors of bottleneck adapters of image_encoder are not in it", log
    )
    assert "6 objects on 6 items of 6 images" in log
    assert "Traceback" not in log + trained[0].err


def test_both_ids_train_once_and_alike(trained, dataset, folder):
    """``run`` without an id does what ``training`` does, to the last bit."""
    result = run_warm(None, TRAIN, **{**SMALL, "max_epochs": 2}, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    for log in (trained[0].out, result.out):
        assert epochs_of(log) == [1, 2]
        assert log.count("time left") == 1
    ours, theirs = (load(path / "models" / "model_final.pt")["model"] for path in (folder, trained[1]))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_gradients_of_several_batches_make_one_step(dataset, folder):
    result = run_warm("training", TRAIN, **SMALL, accumulation_steps=2, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    last = load(folder / "models" / "last.pth")
    assert {int(state["step"]) for state in last["optimizer"]["state"].values()} == {2}  # of three batches
    assert last["trainer"]["iteration"] == 3


def test_training_stops_early_when_nothing_improves(dataset, folder):
    settings = {**SMALL, "max_epochs": 4, "learning_rate": 0.0, "early_stop_patience": 1}
    result = run_warm("training", TRAIN, **settings, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    assert load(folder / "models" / "last.pth")["trainer"]["iteration"] == 3  # what was before counts
    assert (folder / "models" / "model_final.pt").is_file()


def test_a_run_without_validation_keeps_the_latest_model(dataset, folder):
    result = run_warm("training", TRAIN, **SMALL, val_fraction=0, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    assert "8 objects on 8 items of 8 images" in result.out
    best, final = (load(folder / "models" / name)["model"] for name in ("model.pt", "model_final.pt"))
    assert all(torch.equal(best[name], value) for name, value in final.items())


def test_validation_can_be_rarer_than_epochs(dataset, folder):
    settings = {**SMALL, "max_epochs": 3, "val_interval": 2}
    result = run_warm("training", TRAIN, **settings, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    assert [event.step for event in read_log(folder / "eval" / "tensorboard").Scalars("dice/box")] == [0, 2]


def test_ids_of_a_label_can_be_named_on_the_command_line(folder):
    data = make_cells(folder / "data")
    classes = "{'cell': [1, 2], 'nucleus': [2]}"
    where = {"dataset_dir": data, "classes": classes, **places(folder)}
    result = run_warm("training", TRAIN, **SMALL, **where)
    assert result.code == 0, result.err
    assert "6 objects on 3 items of 3 images" in result.out
    result = run_warm("evaluating", EVALUATE, **SMALL, **where)
    assert result.code == 0, result.err
    rows = (folder / "eval" / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[2] for row in rows] == ["cell", "nucleus", "everything"]


def test_volumes_are_trained_and_scored_slice_by_slice(folder):
    where = {"dataset_dir": make_decathlon(folder / "data"), **places(folder)}
    result = run_warm("training", TRAIN, **SMALL, cache_rate=1.0, **where)
    assert result.code == 0, result.err
    assert "4 objects on 4 items of 2 images" in result.out
    result = run_warm("evaluating", EVALUATE, **SMALL, **where)
    assert result.code == 0, result.err
    rows = [row.split(",") for row in (folder / "eval" / "metrics.csv").read_text().splitlines()[1:]]
    assert len({row[0] for row in rows}) == 1
    assert [(row[1], row[2]) for row in rows] == [("1", "1"), ("1", "everything"), ("2", "1"), ("2", "everything")]


def test_the_schedule_follows_the_trainers_own_epochs(dataset, folder):
    """MONAI Label sets only these: the learning rate falls to zero once, at their end."""
    settings = {**SMALL, "max_epochs": 9, "train#trainer#max_epochs": 2}
    result = run_warm("training", TRAIN, **settings, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    last = load(folder / "models" / "last.pth")
    assert last["trainer"]["iteration"] == 2 * 3
    assert last["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-6)


def test_what_was_trained_is_kept_apart_and_predicts_as_the_whole(trained):
    models = trained[1] / "models"
    whole = load_weights(network_of(TRAIN), models / "model.pt").state_dict()
    adapted = load_weights(network_of(TRAIN), models / "adapter.safetensors").state_dict()
    trained_ones = read_adapter(models / "adapter.safetensors")["adapter"]
    assert all(torch.equal(adapted[n], v.half().float() if n in trained_ones else v) for n, v in whole.items())
