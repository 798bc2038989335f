# SPDX-License-Identifier: Apache-2.0
"""Files of older versions answer as they did then; they are filled by formula under the names of their time."""

import json
from pathlib import Path

import pytest
import torch

from scripts.handlers.resuming import upgrade
from scripts.networks import EfficientSAM, load
from tests.networks.recipe import old_name, recipe_images, recipe_state, recipe_tensor, sample

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "older_files.json").read_text())
POINTS, LABELS = torch.tensor([[[[31.0, 40.0], [60.0, 50.0]]]]), torch.tensor([[[1, 1]]])


def adapters(version):
    return {name: recipe_tensor(name, tuple(shape)) for name, shape in FIXTURE[version]["tensors"].items()}


def model(version):
    """The whole state of a version: the adapters' names are its own, the others did not change."""
    base = recipe_state(EfficientSAM("vitt", 64), corrections=version != "0.1")
    added = ("background_embeddings", "mask_downscaling", "no_mask_embed")
    return {
        **{k: v for k, v in base.items() if version != "0.1" or not any(a in k for a in added)},
        **adapters(version),
    }


def answers_as(version, network):
    with torch.no_grad():
        found = sample(network.eval()(recipe_images(1), POINTS, LABELS))
    torch.testing.assert_close(found, torch.tensor(FIXTURE[version]["logits"]), atol=2e-5, rtol=0)


def test_model_of_0_1_is_known_by_its_tensors(tmp_path):
    torch.save({"model": model("0.1")}, tmp_path / "model.pt")
    network = load(tmp_path / "model.pt", image_size=64)
    assert network.settings.adapters == [
        {"kind": "bottleneck", "targets": ["image_encoder.*"], "ratio": 9 / 192, "scale": 0.5, "last_blocks": None}
    ]
    answers_as("0.1", network)


@pytest.mark.parametrize("file", ["model.pt", "adapter.pth"])
def test_files_of_0_2_keep_their_settings(tmp_path, file):
    if file == "model.pt":
        checkpoint = {"model": model("0.2"), "settings": FIXTURE["0.2"]["settings"]}
    else:
        torch.save({"model": recipe_state(EfficientSAM("vitt", 64), corrections=True)}, tmp_path / "base.pth")
        checkpoint = {"adapter": adapters("0.2"), **{key: FIXTURE["0.2"][key] for key in ("settings", "base")}}
    torch.save(checkpoint, tmp_path / file)
    network = load(tmp_path / file)
    assert network.settings.adapters == [
        {"kind": "bottleneck", "targets": ["*"], "ratio": 0.05, "scale": 0.7, "last_blocks": None}
    ]
    answers_as("0.2", network)


def test_last_of_0_2_goes_on_under_the_names_of_now(tmp_path):
    torch.save({"model": model("0.2"), "settings": FIXTURE["0.2"]["settings"]}, tmp_path / "model.pt")
    network = load(tmp_path / "model.pt")
    upgraded = upgrade({"model": model("0.2")}, {})["model"]
    assert upgraded.keys() == network.state_dict().keys()
    assert {old_name(name) for name in upgraded} == model("0.2").keys()
    assert all(torch.equal(value, upgraded[name]) for name, value in network.state_dict().items())
