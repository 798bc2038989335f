# SPDX-License-Identifier: Apache-2.0
"""An object grows, is corrected, and goes back, interaction by interaction."""

import numpy as np
import pytest

from apps.common.errors import RequestError
from apps.serve import annotation as module
from apps.serve.annotation import Annotation
from apps.serve.history import difference
from apps.serve.interactions import box, click, region, scribble
from tests.serve.serving import SHAPE, dice, fake_answering, organ, scan


def make(truth=None, spacing=(2.0, 1.0, 1.0)):
    return Annotation(fake_answering(), scan(organ() if truth is None else truth), spacing)


def on(annotation, point, include=True, spreads=True):
    annotation.add(click(point, include, annotation.shape))
    return annotation.predict(spreads)


def slices_of(mask, axis=0):
    return np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis))).tolist()


def test_one_click_finds_the_organ_and_says_where_the_mask_has_changed():
    annotation = make()
    ran, place = on(annotation, [14, 18, 22])
    assert ran and dice(annotation.mask, organ()) > 0.9
    assert place == difference(annotation.mask, np.zeros(SHAPE, np.uint8))
    assert annotation.predict() == (False, None)  # there is nothing new to answer


def test_without_spreading_one_slice_is_answered_and_the_others_stay():
    annotation = make()
    on(annotation, [14, 18, 22], spreads=False)
    assert slices_of(annotation.mask) == [14] and np.array_equal(annotation.mask[14] > 0, organ()[14])
    on(annotation, [16, 18, 24], spreads=False)
    assert slices_of(annotation.mask) == [14, 16]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_across_the_axis_of_the_largest_spacing(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 2.0
    annotation = make(organ(tilt=0), spacing)
    on(annotation, [14, 18, 22], spreads=False)
    assert slices_of(annotation.mask, axis) == [(14, 18, 22)[axis]]
    assert len(slices_of(annotation.mask, (axis + 1) % 3)) > 5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_changes_the_axis_and_the_points_so_far_follow(axis):
    annotation = make(organ(tilt=0))
    on(annotation, [14, 18, 22], spreads=False)
    bounds = [[8, 21], [10, 27], [11, 33]]
    bounds[axis] = [(14, 18, 22)[axis] + 2, (14, 18, 22)[axis] + 3]
    annotation.reset()
    on(annotation, [14, 18, 22], spreads=False)
    annotation.add(box(bounds, True, annotation.mask))
    annotation.predict(False)
    assert annotation.state.axis == axis
    assert {(14, 18, 22)[axis], bounds[axis][0]} <= set(annotation.state.answers)


def test_a_corrected_slice_stays_bit_for_bit_however_often_it_spreads():
    annotation = make()
    on(annotation, [14, 18, 22])
    on(annotation, [18, 18, 24])
    kept = annotation.mask[18].copy()
    for point in ([10, 18, 20], [16, 18, 23], [20, 18, 26]):
        on(annotation, point)
        assert np.array_equal(annotation.mask[18], kept)


def test_a_background_click_where_nothing_is_says_stop():
    annotation = make()
    on(annotation, [14, 18, 22])
    annotation.reset()
    on(annotation, [18, 2, 2], include=False)
    assert not annotation.mask.any()
    on(annotation, [14, 18, 22])
    assert slices_of(annotation.mask)[-1] == 17


def test_interactions_are_taken_back_one_by_one_bit_for_bit():
    annotation, masks = make(), []
    for point in ([14, 18, 22], [18, 18, 24], [9, 18, 19]):
        masks.append(annotation.mask.copy())
        on(annotation, point)
    last = annotation.mask.copy()
    for before in reversed(masks):
        undone, _ = annotation.undo()
        assert undone and np.array_equal(annotation.mask, before)
    assert annotation.undo() == (False, None)
    for point in ([14, 18, 22], [18, 18, 24], [9, 18, 19]):
        on(annotation, point)
    assert np.array_equal(annotation.mask, last)


def test_interactions_can_wait_for_one_answer():
    annotation = make()
    for k in (13, 15):
        annotation.add(click([k, 18, 22], True, SHAPE))
    assert not annotation.mask.any()
    assert annotation.predict(False)[0] and slices_of(annotation.mask) == [13, 15]
    assert annotation.undo()[0] and not annotation.mask.any()


def test_a_segmentation_to_start_from_stays_where_no_interaction_is():
    annotation, given = make(), organ()
    given[:8] = given[18:] = False
    given[10:13] = False  # a gap, which is filled
    given[14, 0:3, 0:3] = True  # drawn by hand
    annotation.start_from(given)
    annotation.predict()
    assert slices_of(annotation.mask) == list(range(8, 18))
    assert all(np.array_equal(annotation.mask[k] > 0, given[k]) for k in (8, 9, 13, 14, 17))
    on(annotation, [20, 18, 26])  # beyond its end
    assert slices_of(annotation.mask)[-1] >= 20 and slices_of(annotation.mask)[0] == 8
    assert np.array_equal(annotation.mask[14] > 0, given[14])


def test_one_slice_to_start_from_is_followed_both_ways():
    annotation, given = make(), np.zeros(SHAPE, bool)
    given[14] = organ()[14]
    annotation.start_from(given)
    annotation.predict()
    assert dice(annotation.mask, organ()) > 0.9


def test_a_lasso_starts_an_object_and_takes_from_it():
    annotation, drawn = make(), np.zeros(SHAPE, np.uint8)
    drawn[14, 12:25, 15:30] = 1
    annotation.add(region(drawn, True, None, annotation.mask))
    annotation.predict(False)
    assert np.array_equal(annotation.mask[14] > 0, organ()[14])
    annotation.add(region(drawn, False, None, annotation.mask))
    assert annotation.predict(False)[0] and slices_of(annotation.mask) in ([], [14])


def test_a_scribble_asks_by_points():
    annotation, drawn = make(), np.zeros(SHAPE, np.uint8)
    drawn[14, 18, 16:29] = 1
    annotation.add(scribble(drawn, True, None, annotation.mask))
    annotation.predict()
    assert dice(annotation.mask, organ()) > 0.9


def test_an_answer_that_takes_too_long_goes_on_with_the_next_request(monkeypatch):
    annotation = make()
    monkeypatch.setattr(module, "MOST_SECONDS", 0.0)
    on(annotation, [14, 18, 22])
    assert slices_of(annotation.mask) == [13, 14] and annotation.state.pending
    monkeypatch.setattr(module, "MOST_SECONDS", 40.0)
    assert annotation.predict()[0] and dice(annotation.mask, organ()) > 0.9


def test_a_picture_has_one_slice_in_grey_or_colour():
    truth = organ()[14:15]
    for channels in (1, 3):
        image = np.repeat(np.where(truth, 200, 20)[None].astype(np.uint8), channels, 0)
        annotation = Annotation(fake_answering(), image)
        on(annotation, [0, 18, 22])
        assert np.array_equal(annotation.mask > 0, truth)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "int64", "float16", "float64", "bool"])
def test_images_of_any_numbers_are_read(dtype):
    annotation = Annotation(fake_answering(), organ()[None].astype(dtype))
    on(annotation, [14, 18, 22])
    assert dice(annotation.mask, organ()) > 0.9


def test_what_is_no_number_in_an_image_is_black():
    image = scan(organ()).astype(np.float32)
    image[:, :, :4], image[:, 0, 0, 5] = np.nan, np.inf
    annotation = Annotation(fake_answering(), image)
    on(annotation, [14, 18, 22])
    assert dice(annotation.mask, organ()) > 0.9
    assert Annotation(fake_answering(), np.full((1, 2, 4, 4), np.nan)).image.volume(0).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((4, 5, 6), None, "1 or 3 channels"),
        ((2, 4, 5, 6), None, "1 or 3 channels"),
        ((1, 4, 5, 6), [1, 1], "three positive numbers"),
        ((1, 4, 5, 6), [1, 0, 1], "three positive numbers"),
        ((1, 4, 5, 6), [1, float("nan"), 1], "three positive numbers"),
    ],
)
def test_images_that_cannot_be_used_are_refused(shape, spacing, message):
    with pytest.raises(RequestError, match=message):
        Annotation(fake_answering(), np.zeros(shape, np.int16), spacing)


def test_a_segmentation_of_another_size_is_refused():
    with pytest.raises(RequestError, match="the segmentation is"):
        make().start_from(np.ones((3, 4, 5)))


def test_differences_are_told_by_their_box():
    one, other = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
    assert difference(one, other) is None
    other[1, 2, 3] = other[2, 4, 3] = 1
    assert difference(one, other) == ((1, 3), (2, 5), (3, 4))
