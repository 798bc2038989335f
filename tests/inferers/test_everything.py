# SPDX-License-Identifier: Apache-2.0
"""Everything mode: each object once, whatever clicks hit it, small ones on a crop, and no background."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.errors import InputError
from scripts.inferers import EverythingInferer
from scripts.inferers.everything import grid_of_clicks
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.crops import SmallObjectCropper
from tests.inferers.brightness import IMAGE_SIZE, PREDICTED_IOU, BrightnessNetwork

SIZE = (128, 192)  # H, W: not square, so that x and y cannot be exchanged unseen
PATCHES = {(20, 10, 70, 60): 0.9, (110, 64, 150, 120): 0.6, (160, 8, 168, 16): 0.3}  # x0, y0, x1, y1, ends outside


def drawn(patches=PATCHES, size=SIZE):
    """A dark picture (1, 3, X, Y) with grey patches, and the label map (X, Y) of those."""
    picture, labels = torch.zeros(size), torch.zeros(size, dtype=torch.int32)
    for number, ((x0, y0, x1, y1), grey) in enumerate(patches.items(), start=1):
        picture[y0:y1, x0:x1], labels[y0:y1, x0:x1] = grey, number
    return picture.T.expand(1, 3, -1, -1), labels.T


def everything(image, network=None, **settings):
    settings = {"points_per_side": 24, "min_area": 4, **settings}
    return EverythingInferer(**settings)(image, network or BrightnessNetwork())


def same_partition(found, true):
    """Tell whether two label maps hold the same objects, whatever their numbers."""
    pairs = set(zip(found.flatten().tolist(), true.flatten().tolist()))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) and (0, 0) in pairs


def test_each_patch_becomes_one_instance_and_the_background_none():
    image, labels = drawn()
    network = BrightnessNetwork()
    instances = everything(image, network)
    assert instances.shape == (1, 1, *labels.shape)
    assert instances.dtype == torch.int32
    assert same_partition(instances[0, 0], labels)
    assert network.encoded == [(1, 3, *SIZE)]  # once for all clicks


def test_instances_come_with_box_area_and_scores():
    entries = json.loads(everything(drawn()[0]).meta["prompts"])
    expected = {(x0, y0, x1 - 1, y1 - 1): (x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in PATCHES}
    assert {tuple(entry["box"]): entry["area"] for entry in entries} == expected
    assert [entry["object"] for entry in entries] == [0, 1, 2]
    assert all(entry["predicted_iou"] == PREDICTED_IOU and entry["stability"] == 1.0 for entry in entries)
    assert all(entry["slice"] == 0 and entry["points"] == [] for entry in entries)


def test_small_objects_are_looked_at_again_on_a_crop():
    image, labels = drawn()
    network = BrightnessNetwork()
    instances = everything(image, network, crop=SmallObjectCropper(IMAGE_SIZE, below=8))
    assert same_partition(instances[0, 0], labels)
    assert network.encoded[0] == (1, 3, *SIZE)
    crops = network.encoded[1:]
    assert crops
    assert all(shape[1:] == (3, IMAGE_SIZE, IMAGE_SIZE) for shape in crops)
    # one click of those that give the same mask is enough: three patches, of which one is small
    assert sum(shape[0] for shape in crops) == 1


def test_the_crops_mask_is_the_answer():
    """What the first look gets wrong is corrected, which it could not be if its own masks were kept."""

    class Blurred(BrightnessNetwork):
        def mask(self, grey, xy, labels):
            mask = super().mask(grey, xy, labels)
            if tuple(grey.shape) == SIZE and 0 < mask.sum() < 100:
                return torch.nn.functional.max_pool2d(mask[None].float(), 5, 1, 2)[0].bool()
            return mask

    image, labels = drawn()
    crop = SmallObjectCropper(IMAGE_SIZE, below=8, context=1, min_side=32)  # 32 pixels, which the network sees doubled
    assert same_partition(everything(image, Blurred(), crop=crop)[0, 0], labels)
    assert not same_partition(everything(image, Blurred())[0, 0], labels)


@pytest.mark.parametrize(
    ("settings", "areas"),
    [
        ({"min_area": 65}, [2500, 2240]),
        ({"max_area": 0.095}, [2240, 64]),
        ({"max_area": 1.0}, None),  # background, too
        ({"iou_threshold": PREDICTED_IOU + 0.01}, []),
        ({"stability_threshold": 1.01}, []),
        ({"points_per_side": 1}, []),  # the middle of the picture is background
    ],
    ids=str,
)
def test_each_setting_chooses(settings, areas):
    found = everything(drawn()[0], **settings)
    entries = json.loads(found.meta["prompts"])
    if areas is None:
        assert len(entries) == 4
        assert (found > 0).all()
    else:
        assert sorted((entry["area"] for entry in entries), reverse=True) == areas
        assert found.max() == len(areas)


def test_a_slice_of_a_volume_is_segmented_and_the_others_stay_empty():
    image, labels = drawn()
    volume = torch.stack([torch.zeros_like(image), image, torch.zeros_like(image)], dim=-1)
    instances = everything(volume, slice_index=1)
    assert same_partition(instances[0, 0, ..., 1], labels)
    assert not instances[..., [0, 2]].any()
    assert json.loads(instances.meta["prompts"])[0]["slice"] == 1


@pytest.mark.parametrize(("slice_index", "said"), [(None, "slice None"), (3, "0 to 2"), (-1, "0 to 2")])
def test_a_slice_that_does_not_exist_is_refused(slice_index, said):
    volume = drawn()[0].unsqueeze(-1).expand(-1, -1, -1, -1, 3)
    with pytest.raises(InputError, match=said):
        everything(volume, slice_index=slice_index)


def test_a_batch_and_an_empty_grid_are_refused():
    with pytest.raises(ValueError, match="one image at a time"):
        everything(drawn()[0].expand(2, -1, -1, -1))
    with pytest.raises(InputError, match="points_per_side"):
        everything(drawn()[0], points_per_side=0)


def test_an_image_without_objects_gives_an_empty_map_on_its_grid():
    image = MetaTensor(drawn({})[0], affine=2 * torch.eye(4))
    instances = everything(image)
    assert not instances.any()
    assert json.loads(instances.meta["prompts"]) == []
    assert torch.equal(instances.affine, image.affine)
    assert instances.meta["seconds"] > 0


@pytest.mark.parametrize("side", [1, 3, 40])
def test_clicks_lie_in_the_middle_of_the_cells(side):
    clicks = grid_of_clicks((30, 60), side)
    points = np.concatenate([xy for xy, _ in clicks])
    assert points.shape == (side**2, 2)
    assert (points >= 0).all()
    assert (points < [60, 30]).all()
    np.testing.assert_allclose(points.mean(0), [29.5, 14.5], atol=0.55)
    assert all(labels.tolist() == [1] for _, labels in clicks)


def test_weights_with_a_mask_for_each_class_are_refused():
    layout = ClassLayout({"cell": [1, 2], "nucleus": [2]})
    with pytest.raises(InputError, match="one for each class, so there are no instances"):
        EverythingInferer(layout=layout)
