# SPDX-License-Identifier: Apache-2.0
"""The mean of two checkpoints is between them, tensor by tensor, and loads as they do."""

import sys

import pytest
import torch

from scripts.networks import load
from tests.networks.recipe import recipe_network
from tools.average_weights import main


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["average_weights", *map(str, words)])
    main()


@pytest.fixture
def files(tmp_path):
    """Two checkpoints of one network."""
    one, other = recipe_network("vitt", 64), recipe_network("vitt", 64)
    for parameter in other.parameters():
        parameter.data += 1
    paths = tmp_path / "one.pth", tmp_path / "other.pth"
    for network, path in zip((one, other), paths):
        torch.save({"model": network.state_dict(), "settings": {"model": "efficientsam_vitt", "image_size": 64}}, path)
    return paths


@pytest.mark.parametrize(("words", "share"), [([], 0.5), (["--share", "0.25"], 0.25), (["--share", "0"], 0.0)])
def test_each_tensor_lies_between(files, tmp_path, monkeypatch, words, share):
    run(monkeypatch, *files, tmp_path / "new.pth", *words)
    saved = torch.load(tmp_path / "new.pth", weights_only=True)["model"]
    start = load(files[0]).state_dict()
    weight = "image_encoder.blocks.3.attn.qkv.weight"
    assert saved[weight].dtype == torch.float16
    assert torch.allclose(saved[weight].float(), start[weight] + share, atol=2e-3)
    assert saved.keys() == start.keys()


def test_weights_of_different_networks_are_refused(files, tmp_path, monkeypatch, capsys):
    other = recipe_network("vits", 64)
    torch.save({"model": other.state_dict(), "settings": {"model": "efficientsam_vits", "image_size": 64}}, files[1])
    with pytest.raises(SystemExit):
        run(monkeypatch, *files, tmp_path / "new.pth")
    assert "are weights of different networks" in capsys.readouterr().err and not (tmp_path / "new.pth").exists()
