# SPDX-License-Identifier: Apache-2.0
"""SAM ViT-B by the same commands as EfficientSAM: trained, scored, asked, exported."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.e2e.bundle import EVALUATE, INFERENCE, SMALL, TRAIN, run_warm
from tests.networks.sam_recipe import recipe_state, upstream_name

pytestmark = pytest.mark.slow

FEW = {**SMALL, "model": "sam_vitb", "train#dataset#data": "$@datalist['training'][:4]"}
SCORED = {"validate#dataset#data": "$@datalist['validation'][:2]"}


@pytest.fixture(scope="module")
def trained(shared):
    """The folder of a training from weights as segment-anything ships them."""
    folder = shared / "sam"
    folder.mkdir()
    state = {upstream_name(name): value for name, value in recipe_state().items()}
    torch.save(state, folder / "sam_vit_b_01ec64.pth")
    places = {"ckpt_dir": folder / "models", "output_dir": folder / "eval", "cache_dir": folder / "cache"}
    result = run_warm("training", TRAIN, pretrained=folder / "sam_vit_b_01ec64.pth", **FEW, **SCORED, **places)
    assert result.code == 0, result.err
    assert "geometry is stretched from now on" in result.out + result.err
    return folder


def test_a_training_is_scored_and_asked(trained, tmp_path):
    weights = {"model": "sam_vitb", "ckpt_path": trained / "models" / "model.pt", "cache_dir": trained / "cache"}
    result = run_warm("evaluating", EVALUATE, output_dir=tmp_path / "scores", num_workers=0, **SCORED, **weights)
    assert result.code == 0, result.err
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert all(0 <= scores[name] <= 1 for name in ("dice/click_1", "dice/click_5", "dice/box"))
    result = run_warm("inferring", INFERENCE, output_dir=tmp_path / "masks", **weights)
    assert result.code == 0, result.err


@pytest.mark.parametrize("model", ["sam_vitb", "medsam_vitb"])
def test_published_weights_answer_on_images_that_are_not_square(trained, tmp_path, model):
    picture = np.zeros((40, 90, 3), np.uint8)
    picture[10:30, 50:80] = 200
    Image.fromarray(picture).save(tmp_path / "picture.png")
    asked = {"dataset_dir": tmp_path / "picture.png", "points": "[[65,20,1]]", "output_dir": tmp_path / "out"}
    weights = {"model": model, "image_size": 64, "ckpt_path": trained / "sam_vit_b_01ec64.pth"}
    result = run_warm("inferring", INFERENCE, **asked, **weights)
    assert result.code == 0, result.err
    assert np.asarray(Image.open(tmp_path / "out" / "picture_mask.png")).shape == (40, 90)


@pytest.mark.parametrize("form", ["torchscript"])
def test_it_is_exported(trained, tmp_path, form):
    from scripts.export.__main__ import main

    main([form, "--ckpt_path", str(trained / "models" / "model.pt"), "--output_dir", str(tmp_path / form)])
    names = {"torchscript": ["model.ts"]}[form]
    assert all((tmp_path / form / name).is_file() for name in names)


def test_weights_of_the_other_network_are_refused(trained):
    result = run_warm("inferring", INFERENCE, model="efficientsam_vitt", ckpt_path=trained / "models" / "model.pt")
    assert result.code != 0
    (error,) = result.errors
    assert "is of a network with model sam_vitb, but model efficientsam_vitt is asked for" in error
