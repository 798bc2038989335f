# SPDX-License-Identifier: Apache-2.0
"""Several data sets as one: what each brings along, how often each is drawn, and what is refused."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from scripts.data import ObjectDataset, mixture_datalist, mixture_weights
from scripts.data.mixture import superpixel_pair
from scripts.errors import InputError
from scripts.io.reading import LoadCheckedImaged
from scripts.prompts.case_id import read_case
from scripts.transforms import RandObjectMasksd, UprightSliced
from tests.files import write_picture

SETS = ("few", "few, superpixels", "made")


def make_set(folder, name, count, ids=(1,)):
    """Make pictures of one patch for each id, one of five of which validates."""
    root = folder / name
    label = np.zeros((32, 40), np.uint8)
    for i, value in enumerate(ids):
        label[4 + 8 * i : 10 + 8 * i, 5:15] = value
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
        for n in range(count):
            write_picture(root / kind / f"{n}.png", label if kind == "labels" else 20 * label)
    return str(root)


@pytest.fixture
def mixture(tmp_path):
    return [
        {"dataset_dir": make_set(tmp_path, "few", 5), "weight": 3, "components": True},
        {"dataset_dir": make_set(tmp_path, "many", 20, ids=(1, 2)), "classes": {"both": [1, 2]}, "name": "cells"},
    ]


def items_of(pairs, tmp_path):
    return ObjectDataset(pairs, lambda item: item, objects_per_item=None, cache_dir=str(tmp_path / "cache")).data


def test_items_bring_what_is_particular_to_their_set(mixture, tmp_path):
    lists = mixture_datalist(mixture, str(tmp_path), val_images=10)
    assert [len(lists[split]) for split in ("training", "validation")] == [4 + 16, 1 + 4]
    items = items_of(lists["training"], tmp_path)
    few, cells = ([item for item in items if item["set"] == name] for name in ("few", "cells"))
    assert [len(few), len(cells)] == [4, 16]
    assert all(item["components"] and item["objects"] == [[1]] for item in few)
    assert all("components" not in item and item["objects"] == [[1, 2]] for item in cells)
    assert all("classes" not in item for item in items)  # what does not collate
    assert {name for item in items for name in read_case(item["case"])["objects"]} == {"few", "cells"}


def test_a_set_is_drawn_as_often_as_its_weight_says_whatever_its_size(mixture, tmp_path):
    items = items_of(mixture_datalist(mixture, str(tmp_path), 1)["training"], tmp_path)
    weights = mixture_weights(items, mixture)
    assert sum(weights) == pytest.approx(1)
    for name, share in (("few", 0.75), ("cells", 0.25)):
        assert sum(w for w, item in zip(weights, items) if item["set"] == name) == pytest.approx(share)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.utils.data.WeightedRandomSampler(weights, 4000, generator=generator)
    assert np.mean([items[i]["set"] == "few" for i in drawn]) == pytest.approx(0.75, abs=0.03)


def test_few_images_of_each_set_validate_and_the_same_each_time(mixture, tmp_path):
    first, second = (mixture_datalist(mixture, str(tmp_path), val_images=2)["validation"] for _ in range(2))
    assert first == second
    assert [pair["set"] for pair in first] == ["few", "cells", "cells"]


def test_a_path_is_a_set_of_its_own(mixture, tmp_path):
    paths = [part["dataset_dir"] for part in mixture]
    lists = mixture_datalist(paths, str(tmp_path), 1)["validation"]
    assert [pair["set"] for pair in lists] == ["few", "many"]
    assert mixture_datalist(paths[0], str(tmp_path), 1)["validation"] == lists[:1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: None, "give the data sets to pretrain on"),
        (lambda m: [], "give the data sets to pretrain on"),
        (lambda m: [{"weight": 1}], "a part of the mixture has dataset_dir and any of"),
        (lambda m: [{**m[0], "wieght": 2}], "a part of the mixture has dataset_dir and any of"),
        (lambda m: [m[0], m[0]], "two parts of the mixture are called few"),
        (lambda m: [{**m[0], "weight": 0}], "the weight of few in the mixture is above 0, got 0"),
        (lambda m: [{"dataset_dir": "/absent"}], "/absent is not a folder"),
    ],
    ids=["none", "empty", "no folder", "mistyped", "twice", "weight", "absent"],
)
def test_a_bad_mixture_is_refused(mixture, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        mixture_datalist(change(mixture), str(tmp_path), 1)


def test_drawn_pictures_and_superpixels_are_sets_of_their_own(mixture, tmp_path):
    pytest.importorskip("skimage")
    mixture = [{**mixture[0], "superpixels": 0.25}, {"made": 30, "weight": 6}]
    lists = mixture_datalist(mixture, str(tmp_path), val_images=10)
    assert {pair["set"] for pair in lists["validation"]} == {"few"}
    load = Compose([LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True), UprightSliced()])
    dataset = ObjectDataset(
        lists["training"], Compose([load, RandObjectMasksd(3)]), objects_per_item=None, cache_dir=str(tmp_path / "c")
    )
    weights = mixture_weights(dataset.data, mixture)
    of = {name: [i for i, item in enumerate(dataset.data) if item["set"] == name] for name in SETS}
    assert [len(of[name]) for name in SETS] == [4, 4, 30]
    assert [sum(weights[i] for i in of[name]) for name in SETS] == pytest.approx([0.25, 1 / 12, 2 / 3])
    for name in SETS:
        item = dataset[of[name][0]]
        assert item["label"].ndim == 3 and 1 <= len(item["label"]) <= 3 and item["label"].flatten(1).any(1).all()
        assert item["image"].shape[1:] == item["label"].shape[1:]
    assert dataset.mean_diameter() == pytest.approx(2 * (60 / np.pi) ** 0.5)  # of what is known before


def test_drawn_pictures_are_not_kept_in_memory(mixture, tmp_path):
    alone = ObjectDataset(mixture_datalist([{"made": 7}], "", 1)["training"], lambda item: item, cache_rate=1.0)
    assert len(alone) == 7 and alone.cache_num == 0
    lists = mixture_datalist([mixture[0], {"made": 50}], str(tmp_path), val_images=1)
    dataset = ObjectDataset(lists["training"], lambda item: item, cache_dir=str(tmp_path / "c"), cache_rate=1.0)
    assert len(dataset) == 54 and dataset.cache_num == 4


def test_the_same_seed_draws_the_same_pictures(tmp_path):
    one, same, other = (mixture_datalist([{"made": 3}], str(tmp_path), 1, seed=seed)["training"] for seed in (0, 0, 1))
    assert one == same and one != other


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"made": 0}, "made is a number of pictures, at least 1, got 0"),
        ({"made": True}, "made is a number of pictures, at least 1, got True"),
        ({"made": 5, "components": True}, "a part of the mixture has dataset_dir and any of .* or made, the number"),
        ({"dataset_dir": "x", "superpixels": 1}, "superpixels is a share below 1, got 1"),
    ],
    ids=str,
)
def test_a_bad_share_or_number_of_drawn_pictures_is_refused(part, message, tmp_path):
    with pytest.raises(InputError, match=message):
        mixture_datalist([part], str(tmp_path), val_images=1)


def test_superpixels_of_volumes_are_refused():
    with pytest.raises(
        InputError, match=r"superpixels are of pictures, and /x/a.nii.gz is none: leave them out for ct"
    ):
        superpixel_pair({"image": "/x/a.nii.gz", "label": "/x/b.nii.gz"}, "ct", 0)
