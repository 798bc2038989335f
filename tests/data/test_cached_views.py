# SPDX-License-Identifier: Apache-2.0
"""Cached views: the same images again, encoded once, with prompts that differ; made anew when anything changes."""

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandFlipd, Resized

from scripts.data import CachedViews, ObjectDataset
from scripts.data.cached_views import describe, pack, unpack
from scripts.errors import InputError
from scripts.io.reading import LoadCheckedImaged
from scripts.networks import FrozenPrefix, train_only
from scripts.transforms import RandObjectMasksd, RandPromptsd, ToRGBd, UprightSliced
from tests.files import write_picture
from tests.networks.recipe import recipe_network


class CountingPrefix(FrozenPrefix):
    """Count the images that are encoded."""

    count = 0

    def start(self, image):
        self.count += len(image)
        return super().start(image)


def make_pair(folder, name, seed):
    rng = np.random.default_rng(seed)
    label = np.zeros((40, 50), np.uint8)
    label[5:20, 5:20], label[25:38, 20:45] = 1, 2
    image = rng.integers(0, 255, label.shape, dtype=np.uint8)
    return {
        "image": str(write_picture(folder / "images" / f"{name}.png", image)),
        "label": str(write_picture(folder / "labels" / f"{name}.png", label)),
    }


def transforms(gamma=(0.7, 1.4), jitter=0.1):
    return Compose(
        [
            LoadCheckedImaged("image"),
            LoadCheckedImaged("label", label=True),
            UprightSliced(),
            ToRGBd("image"),
            RandObjectMasksd(count=1),
            Resized(["image", "label"], [64, 64], mode=["bilinear", "nearest-exact"]),
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandAffined(["image", "label"], prob=0.5, rotate_range=0.3, mode=["bilinear", "nearest"]),
            RandAdjustContrastd("image", prob=0.5, gamma=gamma),
            RandPromptsd({"click_1": 0.5, "box_jittered": 0.5}, jitter),
        ]
    )


@pytest.fixture
def pairs(tmp_path):
    return [make_pair(tmp_path, f"p{i}", i) for i in range(3)]


@pytest.fixture
def make_views(tmp_path, pairs):
    def make(count=2, transform=None, network=None, **options):
        dataset = ObjectDataset(pairs, transform or transforms(), objects_per_item=None, cache_dir=str(tmp_path))
        prefix = CountingPrefix(network or train_only(recipe_network("vitt", 64), ["mask_decoder"]))
        return CachedViews(dataset, count, prefix, tmp_path, **options)

    return make


def visit(views, times=8, seed=0):
    torch.manual_seed(seed)
    np.random.seed(seed)
    views.after.set_random_state(seed)
    return [views[i] for _ in range(times) for i in range(len(views))]


def test_each_view_is_encoded_once_and_seen_again_as_it_was(make_views):
    views = make_views()
    items = visit(views)
    assert views.prefix.count == 3 * 2 and len(items) == 24
    for image in ("p0", "p1", "p2"):
        seen = {bytes(each["image"].numpy().tobytes()) for each in items if image in each["case"]}
        assert len(seen) == 2
    assert items[0]["image"].dtype == torch.float16 and items[0]["image"].shape == (256, 4, 4)
    prompts = {each["points"].numpy().tobytes() for each in items}
    assert len(prompts) > 12  # which are drawn anew


def test_another_run_finds_what_was_kept_and_sees_the_same(make_views):
    first, second = make_views(), make_views()
    expected, found = visit(first), visit(second)
    assert second.prefix.count == 0
    for a, b in zip(expected, found, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("image", "label", "points", "point_labels"))


def test_a_view_is_what_the_network_makes_of_its_image(make_views):
    views = make_views(count=1)
    (item, *_) = visit(views, times=1)
    views.of_view.set_random_state(0)
    again = views.make(views.data[0], zlib.crc32(f"{views.data[0]['case']} 0".encode()))
    assert torch.equal(unpack(again)["label"][0], item["label"][0]) and torch.equal(again["image"], item["image"])
    assert item["label"].unique().tolist() == [0, 1]


@pytest.mark.parametrize("change", ["image", "label", "weights", "transform", "size"])
def test_views_are_made_again_when_something_changes(make_views, pairs, change):
    visit(make_views(count=1), times=1)
    network, transform, expected = None, None, 3
    if change in ("image", "label"):
        os.utime(pairs[0][change], ns=(1, 1))
        expected = 1
    elif change == "weights":
        network = train_only(recipe_network("vitt", 64), ["mask_decoder"])
        network.image_encoder.blocks[3].norm1.bias.data += 0.1
    elif change == "size":
        network = train_only(recipe_network("vitt", 128), ["mask_decoder"])
    else:
        transform = transforms(gamma=(0.5, 2.0))
    views = make_views(count=1, network=network, transform=transform)
    visit(views, times=1)
    assert views.prefix.count == expected


def test_what_prompts_are_drawn_changes_no_view(make_views):
    visit(make_views(count=1), times=1)
    views = make_views(count=1, transform=transforms(jitter=0.3))
    visit(views, times=1)
    assert views.prefix.count == 0


def test_a_broken_file_is_made_again(make_views, caplog):
    views = make_views(count=1)
    expected = visit(views, times=1)
    path = next(views.folder.iterdir())
    path.write_bytes(path.read_bytes()[:200])
    again = make_views(count=1)
    found = visit(again, times=1)
    assert again.prefix.count == 1 and f"{path} is broken: the view is made again" in caplog.text
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(expected, found, strict=True))


def test_no_more_is_kept_than_there_is_room_for(make_views):
    views = make_views(count=2, most_bytes=20_000)
    expected = visit(views)
    kept = sum(path.stat().st_size for path in views.folder.iterdir())
    assert 0 < kept < 20_000 + 12_000 and views.prefix.count > 6
    plenty = visit(make_views(count=2))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(expected, plenty, strict=True))


def test_views_of_other_runs_go_first(make_views):
    old = make_views(count=2)
    visit(old)
    os.utime(old.folder, (1, 1))
    new = make_views(count=1, transform=transforms(gamma=(0.5, 2.0)), most_bytes=old.nbytes + 1000)
    assert not old.folder.exists() and new.nbytes == 0


def test_images_that_are_made_are_refused(make_views):
    views = make_views()
    views.data = [{**views.data[0], "label": lambda: None}]
    with pytest.raises(InputError, match="cached_views keeps views of files"):
        views[0]


def test_masks_are_kept_in_bits():
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (3, 7, 9)).astype(np.float32))
    packed = pack({"label": label, "case": "a"})
    assert packed["label"]["bits"].numel() == (3 * 7 * 9 + 7) // 8
    assert torch.equal(unpack(packed)["label"].float(), label)


def test_transforms_are_described_the_same_in_every_process():
    code = (
        "from tests.data.test_cached_views import transforms; from scripts.data.cached_views import describe;"
        "print(describe(transforms().transforms), end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout == describe(transforms().transforms)
    assert describe(transforms().transforms) != describe(transforms(gamma=(0.7, 1.5)).transforms)
    assert describe(lambda x: x + 1) != describe(lambda x: x + 2)
