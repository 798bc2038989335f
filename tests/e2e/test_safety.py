# SPDX-License-Identifier: Apache-2.0
"""Runs that would go wrong in silence: they stop with a sentence, or say what they did."""

import json
import re

import nibabel
import numpy as np
import pytest
import torch

from tests.e2e.bundle import EVALUATE, INFERENCE, SMALL, TRAIN, places, run_warm
from tests.e2e.datasets import make_cells
from tests.files import write_picture, write_series

pytestmark = pytest.mark.slow

ALSO = [TRAIN, "configs/also_validate.yaml"]


def test_a_training_says_what_it_was_good_for(trained):
    result, folder = trained
    before, after = map(
        float, re.search(r"dice/click_1: (\S+) before training -> (\S+) with the best", result.out).groups()
    )
    assert 0 <= before <= 1 and 0 <= after <= 1
    best = torch.load(folder / "models" / "last.pth", weights_only=True)
    assert best["outcome"]["values"][0] == pytest.approx(before, abs=1e-4)
    assert len(best["outcome"]["values"]) == 3
    assert best["settings"]["trained_on"] == "data"


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_epoch_before(folder, dataset, trained):
    settings = {**SMALL, "max_epochs": 3, "dataset_dir": dataset, **places(folder)}
    assert run_warm("training", TRAIN, **{**settings, "max_epochs": 1}).code == 0
    last = (folder / "models" / "last.pth").read_bytes()
    broken = {"train#loss_transform": "$lambda output: torch.tensor(float('nan'))"}
    result = run_warm("training", TRAIN, **settings, resume_path=folder / "models" / "last.pth", **broken)
    assert result.code == 1 and "the loss became nan in epoch 2" in result.errors[0]
    assert (folder / "models" / "last.pth").read_bytes() == last
    assert torch.load(folder / "models" / "model.pt", weights_only=True)["model"]


def test_the_end_of_a_run_says_what_it_did_to_other_data_sets(folder, dataset):
    cells = make_cells(folder / "cells", count=6)
    settings = {**SMALL, "dataset_dir": dataset, **places(folder), "also_validate": [str(cells)]}
    first = run_warm("training", ALSO, **settings)
    assert first.code == 0, first.err
    pairs = re.search(
        r"  cells: dice/click_1 (\S+) -> (\S+), dice/click_5 (\S+) -> (\S+), dice/box", first.out
    ).groups()
    written = json.loads((folder / "eval" / "also_validated.json").read_text())
    assert [value for pair in written["cells"].values() for value in pair][:4] == pytest.approx(
        list(map(float, pairs)), abs=1e-4
    )
    # the weights that are kept are those of training, and a resumed run compares with the same ones
    final = torch.load(folder / "models" / "model_final.pt", weights_only=True)["model"]
    last = torch.load(folder / "models" / "last.pth", weights_only=True)["model"]
    assert all(torch.equal(final[name], last[name]) for name in final)
    again = {**settings, "max_epochs": 2, "resume_path": folder / "models" / "last.pth"}
    assert f"cells: dice/click_1 {pairs[0]} -> " in run_warm("training", ALSO, **again).out


def test_two_runs_do_not_share_a_folder_and_the_model_before_is_kept(folder, dataset):
    settings = {**SMALL, "dataset_dir": dataset, **places(folder)}
    assert run_warm("training", TRAIN, **settings).code == 0
    model = (folder / "models" / "model.pt").read_bytes()
    result = run_warm("training", TRAIN, **settings, seed=1)
    assert "of an earlier run is kept as" in result.out
    assert (folder / "models" / "previous.pth").read_bytes() == model


@pytest.mark.parametrize(
    ("run_id", "config", "says"),
    [
        ("inferring", INFERENCE, "without weights the network would answer by random numbers"),
        ("evaluating", EVALUATE, "there are no weights of efficientsam_vits"),
        ("training", TRAIN, "there are no weights of efficientsam_vits"),
    ],
)
def test_random_numbers_answer_nothing_and_training_begins_from_them_only_if_told(
    folder, dataset, run_id, config, says
):
    given = {} if run_id == "training" else {"ckpt_path": "none"}
    given |= {"output_dir": folder, "cache_dir": folder / "cache", "backbone": "vits", "dataset_dir": dataset}
    given |= {"dataset_dir": dataset / "images"} if run_id == "inferring" else {}
    result = run_warm(run_id, config, **given)
    assert result.code == 1 and says in result.errors[0]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"batch_size": 0}, "batch_size is a whole number from 1 on, got 0"),
        ({"max_epochs": "abc"}, "max_epochs is a whole number from 1 on, got 'abc'"),
        ({"box_jitter": -3}, "box_jitter is a number from 0 to 1, got -3"),
        ({"val_interval": 5}, "val_interval 5 is beyond max_epochs 1"),
    ],
)
def test_a_number_that_cannot_be_meant_is_one_line(folder, dataset, setting, says):
    result = run_warm("training", TRAIN, **{**SMALL, **setting}, dataset_dir=dataset, **places(folder))
    assert result.code == 1 and says in result.errors[0]
    assert not (folder / "models" / "model.pt").exists()


def test_predictions_do_not_lie_among_images(folder):
    path = write_picture(folder / "images" / "a.png", np.full((20, 20), 90, np.uint8))
    write_picture(folder / "images" / "a_mask.png", np.full((20, 20), 7, np.uint8))
    settings = {"output_dir": folder / "images", "cache_dir": folder / "cache"}
    result = run_warm("inferring", INFERENCE, dataset_dir=path, **settings)
    assert result.code == 1 and "is the folder of a.png: give another" in result.errors[0]
    assert sorted(p.name for p in (folder / "images").iterdir()) == ["a.png", "a_mask.png"]


def test_a_series_trains_with_its_label_wherever_its_axes_run_and_not_with_one_that_lies_elsewhere(folder):
    mask = np.zeros((48, 40, 4), np.uint8)
    mask[10:30, 8:24, 1:3] = 1
    series = write_series(folder / "series", [900 * mask[..., k].T.astype(np.uint16) + 50 for k in range(4)], step=7.0)
    affine = np.diag([-1.0, -1, 7, 1])  # of the series, in RAS
    image = nibabel.Nifti1Image(mask, affine)
    nibabel.save(image.as_reoriented([[1, 1], [0, -1], [2, -1]]), folder / "turned.nii.gz")
    affine[0, 3] = 11
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "shifted.nii.gz")
    for name, code in (("turned", 0), ("shifted", 1)):
        pair = {"image": str(series), "label": f"{name}.nii.gz"}
        (folder / "datalist.json").write_text(json.dumps({"training": [pair], "validation": [pair]}))
        result = run_warm("training", TRAIN, **SMALL, dataset_dir=folder, **places(folder / name))
        assert result.code == code, result.err
    assert "series and its label" in result.errors[0] and "lie differently in space" in result.errors[0]
