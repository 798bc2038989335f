# SPDX-License-Identifier: Apache-2.0
"""Each layout of data and each file of configs/finetune trains, and a kind of fine-tuning trains what it says."""

import re

import pytest
import torch

from tests.e2e.bundle import ROOT, SMALL, TRAIN, network_of, places, run_warm
from tests.e2e.datasets import LAYOUTS
from tests.networks.recipe import CORRECTIONS

pytestmark = pytest.mark.slow

PARTS = {  # by the name of the file: what a parameter's name says of being trained
    "adapter": lambda name: ".bottleneck." in name,
    "decoder": lambda name: name.startswith("mask_decoder.") or CORRECTIONS.search(name),
    "full": lambda name: True,
    "lora": lambda name: ".lora_" in name or name.startswith("mask_decoder.") or CORRECTIONS.search(name),
    "adalora": lambda name: ".adalora_" in name or name.startswith("mask_decoder.") or CORRECTIONS.search(name),
    "late": lambda name: LATE.match(name) or name.startswith("mask_decoder.") or CORRECTIONS.search(name),
    "norms_and_biases": lambda name: (
        NORM.search(name) or name.endswith(".bias") or CHOICE.match(name) or CORRECTIONS.search(name)
    ),
}
LATE = re.compile(r"image_encoder\.(blocks\.(8|9|10|11)|neck)\.")
NORM = re.compile(r"norm[1-4_]|neck\.[13]\.|upscaling_layers\.0\.1\.|mask_downscaling\.[14]\.")
CHOICE = re.compile(r"mask_decoder\.(mask_tokens|iou_token|iou_prediction_head)\.")
FURTHER = (
    "mask_tokens",
    "iou_token",
    "iou_prediction_head",
    "background_embeddings",
    "mask_downscaling",
    "no_mask_embed",
)
UNUSED = ("prompt_encoder.", "mask_decoder.output_hypernetworks_mlps.")


def files(folder):
    """The config files of a folder, as a command line names them."""
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))]


def stem(file):
    return file.rpartition("/")[2].removesuffix(".yaml")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_of_data_trains(folder, layout):
    data = LAYOUTS[layout](folder / "data")
    more = [file for file in files("data") if stem(file) == layout]  # for the others nothing need be said
    result = run_warm("training", [TRAIN, *more], **SMALL, dataset_dir=data, **places(folder))
    assert result.code == 0, result.err
    assert (folder / "models" / "model.pt").is_file()


@pytest.mark.parametrize("file", files("data"), ids=stem)
def test_a_layout_of_data_refuses_another(folder, file):
    """The file decides the layout: it does not fall back on what is found in the folder."""
    other = next(make for name, make in LAYOUTS.items() if name != stem(file))
    result = run_warm("training", [TRAIN, file], **SMALL, dataset_dir=other(folder / "data"), **places(folder))
    assert result.code == 1
    assert len(result.errors) == 1, result.err


@pytest.mark.parametrize("file", ["adapter", *files("finetune")], ids=stem)
def test_a_kind_of_finetuning_trains_its_parts_and_no_others(dataset, folder, file):
    config = [TRAIN] if file == "adapter" else [TRAIN, file]  # which train.yaml does by itself
    network = network_of(*config)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    further = FURTHER if stem(file) == "adapter" else ()
    assert trained == {
        name
        for name, _ in network.named_parameters()
        if PARTS[stem(file)](name) or any(part in name for part in further)
    }

    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save({"model": before}, folder / "start.pt")
    settings = {**SMALL, "dataset_dir": dataset, "pretrained": folder / "start.pt", **places(folder)}
    result = run_warm("training", config, **settings)
    assert result.code == 0, result.err
    assert f"parameters: {sum(p.numel() for p in network.parameters() if p.requires_grad):,} trained" in result.out

    after = torch.load(folder / "models" / "model_final.pt", weights_only=True)["model"]
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= trained
    unused = trained - changed  # kinds of prompt that no batch held, masks that were never the best
    assert all(name.startswith(UNUSED) for name in unused), sorted(unused)


def test_views_that_are_kept_train_as_often_as_views_that_are_made(dataset, folder):
    """The second run finds all views of the first, and comes to the same weights."""
    config = [TRAIN, "configs/finetune/late.yaml"]
    settings = {**SMALL, "max_epochs": 2, "dataset_dir": dataset, "cached_views": 1, "learning_rate": 0.01}
    models, times = [], []
    for name in ("first", "second"):
        where = {**places(folder / name), "cache_dir": folder / "cache"}
        result = run_warm("training", config, **settings, **where)
        assert result.code == 0, result.err
        assert "1 views of each image are seen, and kept after 8 frozen stages" in result.out
        models.append(torch.load(folder / name / "models" / "model_final.pt", weights_only=True)["model"])
        times.append({path.name: path.stat().st_mtime_ns for path in (folder / "cache" / "views").glob("*/*.pt")})
    assert len(times[0]) == 6 and times[0] == times[1]
    assert all(torch.equal(models[0][key], value) for key, value in models[1].items())


def test_views_are_not_kept_where_the_first_block_is_trained(dataset, folder):
    result = run_warm("training", TRAIN, **SMALL, dataset_dir=dataset, cached_views=2, **places(folder))
    assert result.code == 1
    (error,) = result.errors
    assert error.startswith("error: cached_views keeps what the frozen blocks of the image encoder give")
