# SPDX-License-Identifier: Apache-2.0
"""From files' axes to one upright slice with a mask for each object asked for, seen whole or on a crop."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from scripts.errors import InputError
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.crops import SmallObjectCropper
from scripts.transforms import ObjectMasksd, RandObjectMasksd, UprightSliced

X, Y, Z = 7, 4, 3
LAYOUT = ClassLayout({"a": [1, 2, 3], "b": [2, 3], "c": [3]})
IMAGE = torch.arange(3 * X * Y * Z).reshape(3, X, Y, Z)
LABEL = torch.arange(X * Y * Z).reshape(1, X, Y, Z) % 5


def item(image, label, objects, k=0):
    return {"image": MetaTensor(image), "label": MetaTensor(label), "slice": k, "objects": objects, "case": "{}"}


def select(image, label, objects, k=0):
    return Compose([UprightSliced(), ObjectMasksd()])(item(image, label, objects, k))


def soft_label(*channels):
    """What several raters drew, as it is read: (C, X, Y[, Z]) float32."""
    return MetaTensor(torch.stack([torch.as_tensor(c, dtype=torch.float32) for c in channels]), meta={"raters": [2]})


# --- upright


def test_picture_turns_to_rows_and_columns():
    data = select(IMAGE[..., 0], LABEL[..., 0], [[1]])
    assert data["image"].shape == (3, Y, X)
    assert data["label"].shape == (1, Y, X)
    for x in range(X):
        for y in range(Y):
            assert data["image"][:, y, x].tolist() == IMAGE[:, x, y, 0].tolist()
            assert data["label"][0, y, x] == (LABEL[0, x, y, 0] == 1)


@pytest.mark.parametrize("k", range(Z))
def test_slice_of_a_volume_is_taken_from_image_and_label(k):
    data = UprightSliced()(item(IMAGE, LABEL, [[1]], k))
    np.testing.assert_array_equal(data["image"], IMAGE[..., k].transpose(1, 2))
    np.testing.assert_array_equal(data["label"], LABEL[..., k].transpose(1, 2))
    assert data["label"].dtype == torch.int32


@pytest.mark.parametrize(
    ("image", "label"),
    [(IMAGE[..., :1], LABEL[..., 0]), (IMAGE[..., 0], LABEL[..., :1])],
    ids=["image-has-a-slice-axis", "label-has-a-slice-axis"],
)
def test_one_slice_and_a_picture_go_together(image, label):
    data = select(image, label, [[1]])
    np.testing.assert_array_equal(data["image"], IMAGE[..., 0].transpose(1, 2))
    np.testing.assert_array_equal(data["label"][0], (LABEL[0, ..., 0] == 1).T)


@pytest.mark.parametrize("k", [None, 1])
def test_soft_masks_of_every_class_turn_too(k):
    masks = torch.rand(2, X, Y, Z) if k else torch.rand(2, X, Y)
    data = UprightSliced()(item(IMAGE if k else IMAGE[..., 0], soft_label(*masks), [[1]], k or 0))
    np.testing.assert_array_equal(data["label"], (masks[..., k] if k else masks).transpose(1, 2))


def test_colour_label_is_refused():
    with pytest.raises(InputError, match="colour"):
        UprightSliced()(item(IMAGE[..., 0], IMAGE[..., 0], [[1]]))


# --- every object


def test_each_object_is_the_mask_of_its_ids_in_order():
    data = select(IMAGE[..., 0], LABEL[..., 0], [[4], [1, 2], [9]])
    upright = LABEL[0, ..., 0].T
    assert data["label"].dtype == torch.uint8
    np.testing.assert_array_equal(
        data["label"], np.stack([upright == 4, (upright == 1) | (upright == 2), upright == 9])
    )


def test_id_of_a_soft_label_is_its_channel_counted_from_one():
    masks = torch.rand(3, X, Y)
    data = select(IMAGE[..., 0], soft_label(*masks), [[3], [1], [1, 2]])
    assert data["label"].dtype == torch.float32
    expected = torch.stack([masks[2], masks[0], torch.maximum(masks[0], masks[1])]).transpose(1, 2)
    np.testing.assert_array_equal(data["label"], expected)


@pytest.mark.parametrize("transform", [ObjectMasksd(), RandObjectMasksd()], ids=["all", "some"])
def test_what_does_not_collate_is_taken_out_and_the_item_stays_as_it_was(transform):
    before = item(IMAGE[..., 0], LABEL[..., 0], [[1], [2]])
    assert "objects" not in transform(UprightSliced()(before))
    assert before["objects"] == [[1], [2]]
    assert before["image"].shape == (3, X, Y)


# --- some objects

HEIGHT, WIDTH = 90, 120
PLACES = {1: (5, 9, 70, 82), 2: (40, 46, 100, 103), 3: (60, 85, 2, 60), 4: (30, 31, 20, 21), 5: (88, 90, 116, 120)}


def ids():
    """An upright label (1, H, W): objects at rows y0 to y1 and columns x0 to x1; 4 is a pixel, 5 in a corner."""
    label = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.int32)
    for i, (y0, y1, x0, x1) in PLACES.items():
        label[0, y0:y1, x0:x1] = i
    return label


def where():
    """An image (3, H, W) whose pixels say where they are: x, y, and which object."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([x, y, ids()[0]]).float()


def visit(transform, objects=(1, 2, 3, 4, 5), label=None):
    """One visit, with the ids of the objects in the order in which they are asked for."""
    objects = [list(o) if isinstance(o, tuple) else [o] for o in objects]
    return transform({"image": where(), "label": ids() if label is None else label, "objects": objects})


def asked(data):
    """The ids under each mask, which the image's third channel knows."""
    return [tuple(data["image"][2][mask > 0.5].unique().int().tolist()) for mask in data["label"]]


@pytest.mark.parametrize(("count", "got"), [(1, 1), (3, 3), (5, 5), (16, 5)])
def test_at_most_so_many_objects_are_asked_for_each_once_and_all_in_time(count, got):
    transform, seen = RandObjectMasksd(count).set_random_state(0), set()
    for _ in range(40):
        data = visit(transform)
        assert data["whole"] is False
        chosen = asked(data)
        assert len(chosen) == got == len(set(chosen))
        seen.update(chosen)
        for (i,), mask in zip(chosen, data["label"]):
            assert torch.equal(mask, (ids()[0] == i).to(torch.uint8))
    assert seen == {(1,), (2,), (3,), (4,), (5,)}


def test_visits_follow_the_random_state():
    transform = RandObjectMasksd(2, 0.3, SmallObjectCropper(256), 0.5)
    drawn = []
    for seed in (1, 1, 2):
        transform.set_random_state(seed)
        drawn.append([(asked(data), data["image"][:2, 0, 0].tolist()) for data in (visit(transform) for _ in range(8))])
    assert drawn[0] == drawn[1] != drawn[2]
    assert any(visit_ != drawn[0][0] for visit_ in drawn[0])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_everything_is_asked_for_as_one_object_as_often_as_said(share):
    transform = RandObjectMasksd(2, share, SmallObjectCropper(256), 1.0).set_random_state(0)
    visits = [visit(transform, [1, 3, (3, 5)]) for _ in range(200)]
    whole = [data for data in visits if data["whole"]]
    assert len(whole) / 200 == pytest.approx(share, abs=0.1)
    for data in whole:
        assert data["image"].shape == (3, HEIGHT, WIDTH)  # never a crop
        assert asked(data) == [(1, 3, 5)]


def test_everything_of_a_soft_label_is_the_largest_share():
    masks = torch.rand(2, HEIGHT, WIDTH)
    data = visit(RandObjectMasksd(whole_prob=1.0), [1, 2], masks)
    np.testing.assert_array_equal(data["label"], masks.amax(0, keepdim=True))


# --- on a crop


def is_cropped(data):
    return data["image"].shape != (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("first", [1, 2, 4, 5])
@pytest.mark.parametrize("soft", [False, True])
def test_crop_of_a_small_object_takes_image_and_masks_from_the_same_place(first, soft):
    label = torch.stack([(ids()[0] == i) * 0.7 for i in PLACES]) if soft else None
    transform = RandObjectMasksd(5, 0.0, SmallObjectCropper(256, context=3.0), 1.0).set_random_state(first)
    for _ in range(30):
        data = visit(transform, [first], label)
        x0, y0 = data["image"][:2, 0, 0].int().tolist()
        height, width = data["image"].shape[1:]
        assert is_cropped(data)
        assert height == width
        assert torch.equal(data["image"], where()[:, y0 : y0 + height, x0 : x0 + width])
        expected = (ids()[0] == first)[y0 : y0 + height, x0 : x0 + width]
        np.testing.assert_array_equal(data["label"][0] > 0.5, expected)
        assert bool(expected.any())
        assert data["label"].dtype == (torch.float32 if soft else torch.uint8)


def test_object_that_is_small_enough_is_all_on_its_crop():
    transform = RandObjectMasksd(1, 0.0, SmallObjectCropper(256, min_side=8), 1.0).set_random_state(0)
    middles = set()
    for _ in range(60):
        data = visit(transform, [1])
        assert data["label"].sum() == 4 * 12
        middles.add(tuple(data["image"][:2, 0, 0].int().tolist()))
    assert len(middles) > 20  # off its middle, by a little more or less each time
    sides = {visit(transform, [1])["image"].shape[1] for _ in range(60)}
    assert min(sides) >= 0.6 * 3 * 12 - 1
    assert max(sides) <= 1.6 * 3 * 12 + 1
    assert max(sides) - min(sides) > 20


def test_only_objects_that_are_on_the_crop_are_asked_for():
    transform, together = RandObjectMasksd(5, 0.0, SmallObjectCropper(256, min_side=40), 1.0).set_random_state(0), 0
    for _ in range(60):
        data = visit(transform)
        assert (data["label"] > 0.5).flatten(1).any(1).all()
        assert all(len(names) == 1 for names in asked(data))
        if is_cropped(data):
            assert set(asked(data)) == {(i,) for i in data["image"][2].unique().int().tolist() if i}
            together += len(data["label"]) > 1
    assert together


def test_crops_come_as_often_as_said():
    for share in (0.0, 0.4, 1.0):
        transform = RandObjectMasksd(1, 0.0, SmallObjectCropper(256), share).set_random_state(0)
        crops = sum(is_cropped(visit(transform, [1])) for _ in range(200))
        assert crops / 200 == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize(
    ("crop", "first"),
    [(None, 1), (SmallObjectCropper(256), 3), (SmallObjectCropper(256, min_side=70), 1)],
    ids=["no-crops", "large-object", "nothing-to-gain"],
)
def test_image_stays_whole_where_a_crop_would_not_help(crop, first):
    transform = RandObjectMasksd(1, 0.0, crop, 1.0).set_random_state(0)
    assert not any(is_cropped(visit(transform, [first])) for _ in range(20))


@pytest.mark.parametrize("soft", [False, True])
def test_object_without_a_pixel_is_an_empty_mask_on_the_whole_image(soft):
    label = torch.full((1, HEIGHT, WIDTH), 0.4) if soft else torch.zeros_like(ids())
    data = visit(RandObjectMasksd(3, 0.0, SmallObjectCropper(256), 1.0), [1], label)
    assert data["label"].shape == (1, HEIGHT, WIDTH)
    assert not (data["label"] > 0.5).any()


# --- all at once


@pytest.mark.parametrize("whole_prob", [0.0, 1.0])
def test_classes_asked_for_together_are_all_there_in_their_order(whole_prob):
    transform = RandObjectMasksd(1, whole_prob, layout=LAYOUT).set_random_state(0)
    for _ in range(10):
        data = visit(transform, [(1, 2), 2, 9])
        assert asked(data) == [(1, 2), (2,), ()]
        assert data["whole"] is bool(whole_prob)


def test_everything_asked_for_together_is_never_cropped():
    data = visit(RandObjectMasksd(1, 1.0, SmallObjectCropper(256), 1.0, layout=LAYOUT), [4, 4])
    assert not is_cropped(data)
    assert is_cropped(visit(RandObjectMasksd(1, 0.0, SmallObjectCropper(256), 1.0, layout=LAYOUT), [4, 4]))


def test_crop_of_classes_asked_for_together_is_around_all_of_them():
    outer, inner = torch.zeros(2, HEIGHT, WIDTH)
    outer[30:40, 50:62], inner[33:36, 53:56] = 0.8, 0.8
    transform = RandObjectMasksd(1, 0.0, SmallObjectCropper(256, min_side=8), 1.0, layout=LAYOUT).set_random_state(0)
    for _ in range(20):
        data = visit(transform, [1, 2], torch.stack([outer, inner]))
        assert is_cropped(data)
        assert (data["label"] > 0.5).flatten(1).sum(1).tolist() == [10 * 12, 3 * 3]


# --- for pretraining


@pytest.mark.parametrize("objects", [(1,), (1, 2, 3)])
def test_few_objects_are_asked_for_again_until_there_are_enough(objects):
    got = asked(visit(RandObjectMasksd(5, fill=True).set_random_state(0), objects))
    assert len(got) == 5
    assert {i for ids in got for i in ids} == set(objects)


@pytest.mark.parametrize("crop", [None, SmallObjectCropper(image_size=64, below=64, context=2.0, min_side=8)])
def test_a_connected_part_of_a_class_is_an_object_where_the_item_says_so(crop):
    label = ids()
    label[label == 2] = 1  # a class of two parts, far from each other
    transform, seen = RandObjectMasksd(1, crop=crop, crop_prob=1.0).set_random_state(0), set()
    for _ in range(30):
        item = {"image": where(), "label": label, "objects": [[1]], "components": True}
        data = transform(item)
        assert "components" not in data
        part = {int(i) for i in data["image"][2][data["label"][0] > 0].unique()}  # the image still knows 1 from 2
        assert len(part) == 1
        seen |= part
    assert seen == {1, 2}
