# SPDX-License-Identifier: Apache-2.0
"""A fine-tune as a small file: inferring puts it on its base, and the servers change it without loading the base."""

import numpy as np
import pytest
import torch
from PIL import Image

from apps.common import weights
from scripts.networks import load
from tests.e2e.bundle import INFERENCE, ROOT, SMALL, TRAIN, network_of, places, run_warm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(dataset, tmp_path_factory):
    """Two adapters of one base, each trained by the CLI."""
    folder = tmp_path_factory.mktemp("tuned")
    torch.save({"model": network_of(TRAIN, "configs/finetune/decoder.yaml").state_dict()}, folder / "base.pth")
    for name, config in (("cells", [TRAIN]), ("lora", [TRAIN, "configs/finetune/lora.yaml"])):
        settings = {**SMALL, "dataset_dir": dataset, "pretrained": folder / "base.pth", "learning_rate": 0.02}
        settings["validate#dataset#data"] = []  # the last weights are kept, however good they are
        result = run_warm("training", config, **settings, **places(folder / name))
        assert result.code == 0, result.err
        (folder / name / "models" / "adapter.safetensors").rename(folder / f"{name}.safetensors")
    return folder


def predict(image, out, **settings):
    result = run_warm("inferring", INFERENCE, dataset_dir=image, points="[[20,20,1]]", output_dir=out, **settings)
    assert result.code == 0, result.err
    return np.asarray(Image.open(out / f"{image.stem}_mask.png"))


def test_inferring_answers_by_the_adapter_that_is_given(tuned, dataset, folder):
    image = sorted((dataset / "images").iterdir())[0]
    found = {
        name: predict(image, folder / name, adapter=tuned / f"{name}.safetensors", cache_dir=folder / "cache")
        for name in ("cells", "lora")
    }
    whole = predict(
        image, folder / "whole", ckpt_path=tuned / "cells" / "models" / "model.pt", cache_dir=folder / "cache"
    )
    assert (found["cells"] == whole).mean() > 0.995  # but for half precision
    assert not np.array_equal(found["cells"], found["lora"])


def test_an_adapter_of_another_base_is_refused_by_inferring(tuned, dataset, folder):
    image = sorted((dataset / "images").iterdir())[0]
    base = ROOT / "models" / "efficient_sam_vitt_base.pth"
    asked = {"adapter": tuned / "lora.safetensors", "ckpt_path": base, "output_dir": folder / "out"}
    result = run_warm("inferring", INFERENCE, dataset_dir=image, **asked)
    assert result.code == 1
    (error,) = result.errors
    assert "was trained on other weights than these: it needs base.pth, unchanged" in error


def test_servers_offer_adapters_and_load_their_base_once(tuned, monkeypatch):
    loads = []
    monkeypatch.setattr(weights, "MODELS", tuned)
    monkeypatch.setattr(weights.networks, "load", lambda path: loads.append(path) or load(path))
    assert {"cells.safetensors", "lora.safetensors"} <= set(weights.offered())
    served = weights.Served("torch")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name in ("cells", "lora", "cells", "lora"):
        answering = served.use(weights.find_weights(f"{name}.safetensors"), "cpu")
        with torch.no_grad():
            alone = load(tuned / f"{name}.safetensors").eval().encode_image(image)
            assert torch.equal(answering.network.encode_image(image), alone)
    assert loads == [tuned / "base.pth"]
    assert answering.nbytes < 5_000_000
