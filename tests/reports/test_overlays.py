# SPDX-License-Identifier: Apache-2.0
"""Figures: what is drawn, in which colour, and where."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from scripts.reports import overlays as figures
from scripts.reports.overlays import overlay, panels, to_uint8

GREY = np.full((120, 200, 3), 128, dtype=np.uint8)  # lop-sided, so that x and y cannot be exchanged unseen


def is_colour(picture, colour, tolerance=0):
    return np.all(np.abs(picture.astype(int) - colour) <= tolerance, axis=-1)


def centre_of(picture, colour):
    """The middle (x, y) of all pixels of about this colour."""
    rows, columns = np.nonzero(is_colour(picture, colour, tolerance=8))
    return columns.mean(), rows.mean()


def draw(points, point_labels, image=GREY, min_side=1):
    return overlay(image, points=np.array([points], float), point_labels=np.array([point_labels]), min_side=min_side)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_to_uint8_moves_channels_last_scales_and_clips(kind):
    image = np.zeros((3, 2, 4), dtype=np.float32)
    image[:, 1, 3] = 2.0, -1.0, 0.5
    array = to_uint8(kind(image))
    assert array.dtype == np.uint8
    assert array.shape == (2, 4, 3)
    assert array[1, 3].tolist() == [255, 0, 128]
    assert array.sum() == 255 + 128


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 3)), r"\(3, H, W\), got \(4, 5, 3\)"),
        (np.zeros((4, 5)), r"\(3, H, W\)"),
        (np.zeros((3, 4, 5), dtype=np.uint8), "floats in 0..1, got uint8"),
    ],
)
def test_to_uint8_refuses(image, message):
    with pytest.raises(ValueError, match=message):
        to_uint8(image)


def test_nothing_to_draw_returns_the_image_itself():
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, min_side=70), image)


@pytest.mark.parametrize(
    ("shape", "expected"), [((64, 96), (512, 768)), ((96, 64), (768, 512)), ((512, 600), (512, 600))]
)
def test_only_small_images_are_enlarged(shape, expected):
    assert overlay(np.zeros((*shape, 3), dtype=np.uint8)).shape == (*expected, 3)


def test_given_image_is_not_drawn_upon():
    image = GREY.copy()
    overlay(image, labels=np.ones((120, 200), dtype=bool), points=[[[5, 5]]], point_labels=[[1]], min_side=1)
    np.testing.assert_array_equal(image, GREY)


def test_mask_is_tinted_inside_outlined_at_its_edge_and_absent_outside():
    mask = np.zeros((120, 200), dtype=bool)
    mask[20:60, 100:180] = True
    picture = overlay(GREY, mask, min_side=1)
    np.testing.assert_array_equal(picture[~mask], GREY[~mask])
    first = figures.PALETTE[0].astype(int)
    assert is_colour(picture, first)[20, 100:180].all()
    inside = picture[40, 140].astype(int)
    np.testing.assert_allclose(inside, 128 + figures.FILL * (first - 128), atol=1)


@pytest.mark.parametrize("side", [1, 700])
def test_objects_have_colours_of_their_own_and_each_is_outlined_where_another_begins(side):
    labels = np.zeros((120, 200), dtype=np.uint8)
    labels[20:80, 20:80] = 1
    labels[40:60, 40:60] = 2
    picture = overlay(GREY, labels, min_side=side)
    zoom, line = side // 120 or 1, max(1, side // 200)
    first, second = (is_colour(picture, colour) for colour in figures.PALETTE[:2])
    if side == 1:
        assert first[20:80, 20].all() and first[40:60, 39].all() and not first[40:60, 38].any()
        assert second[40, 40:60].all() and second.sum() == 4 * 19
        assert not is_colour(picture, GREY[0, 0])[20:80, 20:80].any()  # no hole
    else:
        assert first.sum() > 4 * 60 * zoom * line and second.sum() > 4 * 18 * zoom * line


def test_more_ids_than_colours_begin_the_palette_again():
    labels = np.zeros((120, 200), dtype=np.int64)
    labels[30:60, 30:60] = len(figures.PALETTE) + 1
    assert is_colour(overlay(GREY, labels, min_side=1), figures.PALETTE[0])[30, 45]


def test_a_thousand_instances_take_no_more_memory_than_one():
    """A mask for each of them took 4 GB."""
    labels = np.arange(1024).reshape(32, 32).repeat(16, 0).repeat(16, 1)
    image = np.full((512, 512, 3), 128, np.uint8)
    peaks = []
    for ids in (labels > 0, labels):
        tracemalloc.start()
        overlay(image, ids)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def test_enlarged_mask_covers_the_same_part_of_the_image():
    mask = np.zeros((60, 100), dtype=bool)
    mask[10:20, 50:90] = True
    picture = overlay(GREY[:60, :100], mask, min_side=240)
    expected = np.kron(mask, np.ones((4, 4), dtype=bool))
    np.testing.assert_array_equal(np.any(picture != 128, axis=-1), expected)


@pytest.mark.parametrize(("label", "colour"), [(1, figures.GREEN), (0, figures.RED)])
@pytest.mark.parametrize("zoom", [1, 4])
def test_click_is_a_star_at_x_y(label, colour, zoom):
    picture = draw([(150, 40)], [label], min_side=120 * zoom)
    x, y = centre_of(picture, colour)
    expected = (np.array([150, 40]) + 0.5) * zoom - 0.5
    np.testing.assert_allclose((x, y), expected, atol=1.0)
    assert picture.min(axis=-1).max() > 190  # the white rim


@pytest.mark.parametrize("corner", [(0, 0), (199, 119), (199, 0)])
def test_click_in_a_corner_of_the_image_is_drawn(corner):
    picture = draw([corner], [1])
    assert is_colour(picture, figures.GREEN)[corner[1], corner[0]]


def test_padding_draws_nothing():
    np.testing.assert_array_equal(draw([(100, 60), (20, 20)], [-1, -1]), GREY)


def test_box_is_a_yellow_rectangle_through_its_corners():
    yellow = is_colour(draw([(30, 20), (170, 90)], [2, 3]), figures.YELLOW)
    rows, columns = np.nonzero(yellow)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (30, 20, 170, 90)
    assert yellow[20, 30:171].all()
    assert yellow[20:91, 170].all()
    assert not yellow[40:70, 60:140].any()


def test_each_query_gets_its_own_box_and_clicks():
    points = np.array([[[30, 20], [60, 50], [45, 35]], [[120, 60], [180, 110], [150, 85]]], float)
    picture = overlay(GREY, points=points, point_labels=np.array([[2, 3, 1], [2, 3, 0]]), min_side=1)
    yellow = is_colour(picture, figures.YELLOW)
    assert yellow[20, 30:61].all()
    assert yellow[60, 120:181].all()
    np.testing.assert_allclose(centre_of(picture, figures.GREEN), (45, 35), atol=1.0)
    np.testing.assert_allclose(centre_of(picture, figures.RED), (150, 85), atol=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": GREY.transpose(2, 0, 1)}, r"image must be \(H, W, 3\)"),
        ({"image": GREY / 255}, "uint8, got .* float64"),
        ({"labels": np.zeros((200, 120), dtype=bool)}, r"labels must be \(120, 200\)"),
        ({"labels": np.zeros((1, 120, 200), dtype=bool)}, r"labels must be \(120, 200\)"),
        ({"labels": np.zeros((120, 200))}, "labels must be ids or bool, got float64"),
        ({"points": np.zeros((1, 4, 2))}, "together"),
        ({"point_labels": np.zeros((1, 4))}, "together"),
        ({"points": np.zeros((4, 2)), "point_labels": np.zeros(4)}, r"points must be \(Q, N, 2\), got \(4, 2\)"),
        ({"points": np.zeros((1, 4, 3)), "point_labels": np.zeros((1, 4))}, r"points must be \(Q, N, 2\)"),
        ({"points": np.zeros((1, 4, 2)), "point_labels": np.zeros((1, 3))}, r"point_labels must be \(1, 4\)"),
        ({"points": np.zeros((1, 1, 2)), "point_labels": np.array([[5]])}, r"got \[5\]"),
        ({"points": np.zeros((1, 1, 2)), "point_labels": np.array([[2]])}, "both corners"),
    ],
)
def test_overlay_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        overlay(**{"image": GREY, **arguments})


def solid(height, width, colour):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_panels_set_pictures_in_rows_of_equal_height_on_white():
    red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    images = [solid(100, 100, red), solid(50, 80, green), solid(100, 60, blue)]
    sheet = panels(images, ["a", "b", "c"], columns=2, gap=5)
    boxes = []
    for colour in (red, green, blue):
        rows, columns = np.nonzero(is_colour(sheet, colour))
        boxes.append((columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1))
    (x0, y0, *size0), (x1, y1, *size1), (x2, y2, *size2) = boxes
    assert (size0, size1, size2) == ([100, 100], [160, 100], [60, 100])
    assert (x0, x1, x2) == (5, 110, 5)
    assert y0 == y1 > 5 + 10
    assert y2 > y0 + 100
    assert (sheet[:5] == 255).all()
    assert (sheet[:, :5] == 255).all()
    assert (sheet[-5:] == 255).all()


def test_panels_without_columns_are_one_row():
    assert panels([GREY] * 3, ["a"] * 3, gap=0).shape[1] == 3 * GREY.shape[1]


def test_each_title_stands_above_its_own_picture():
    sheet = panels([GREY, GREY], ["", "title"], gap=0)
    strip = sheet[: len(sheet) - len(GREY)]
    assert (strip[:, :200] == 255).all()
    assert strip[:, 200:].min() < 64


def test_long_title_does_not_run_into_its_neighbour():
    sheet = panels([GREY, GREY], ["far too long for one picture " * 9, ""], gap=0)
    strip = sheet[: len(sheet) - len(GREY)]
    assert strip[:, :200].min() < 64
    assert (strip[:, 200:] == 255).all()


@pytest.mark.parametrize(
    ("images", "titles", "columns", "message"),
    [
        ([], [], None, "got 0 and 0 titles"),
        ([GREY], ["a", "b"], None, "got 1 and 2 titles"),
        ([GREY[..., 0]], ["a"], None, r"\(H, W, 3\) uint8"),
        ([GREY / 255], ["a"], None, r"\(H, W, 3\) uint8"),
        ([GREY], ["a"], 0, "columns must be at least 1"),
    ],
)
def test_panels_refuse(images, titles, columns, message):
    with pytest.raises(ValueError, match=message):
        panels(images, titles, columns=columns)


def test_a_strip_is_not_enlarged_without_limit():
    height, width, _ = overlay(np.zeros((1, 300, 3), np.uint8)).shape
    assert (height, width) == (7, 2048)
