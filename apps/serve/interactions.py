# SPDX-License-Identifier: Apache-2.0
"""What a client says of an object, as prompts on the slices across one axis of a volume.

Arrays are (A, B, C), as clients hold them: of a volume, slices, rows, columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from apps.common.errors import RequestError
from scripts.prompts.corrections import correction_click
from scripts.prompts.form import BACKGROUND, BOTTOM_RIGHT, FOREGROUND, TOP_LEFT, Prompt

SCRIBBLE_POINTS = 4  # that stand for a scribble on a slice: prompts of more points than six are decoded apart

Box = tuple[tuple[int, int], ...]  # first index, and that after the last one, of each axis


@dataclass(frozen=True)
class Interaction:
    """One thing that a client says.

    Args:
        include: whether it is of the object; else it is of what is not.
        points: (N, 3) indices.
        box: around the object, flat along one axis.
        mask: (A, B, C) bool within ``place``: pixels that are of the object, or not.
        place: of ``mask`` in the volume.
        is_line: whether ``mask`` is a line, which is no shape of an object.
    """

    include: bool
    points: np.ndarray
    box: Box | None = None
    mask: np.ndarray | None = None
    place: Box | None = None
    is_line: bool = False

    @property
    def extent(self) -> Box:
        """Return what it lies in."""
        if self.box or self.place:
            return self.box or self.place or ()
        first, last = self.points.min(0), self.points.max(0)
        return tuple((int(a), int(b) + 1) for a, b in zip(first, last))

    @property
    def axis(self) -> int | None:
        """Return the axis across which it was drawn; None where that is not to be seen, as of a click."""
        flat = [axis for axis, (low, high) in enumerate(self.extent) if high - low == 1]
        return flat[0] if len(flat) == 1 else None

    def is_drawn_across(self, axis: int) -> bool:
        """Return whether its box or mask lies in the slices across an axis; else its points alone speak there."""
        return (self.box is not None or self.mask is not None) and self.axis in (axis, None)

    def slices(self, axis: int) -> list[int]:
        """List the slices across an axis that it speaks of."""
        if self.is_drawn_across(axis) and not self.is_line:
            return list(range(*self.extent[axis]))
        return np.unique(self.points[:, axis]).tolist()


def click(point: Sequence[float], include: bool, shape: Sequence[int]) -> Interaction:
    """Read a click.

    Args:
        point: three indices.
        include: whether it is on the object.
        shape: of the volume.

    Raises:
        RequestError: when it lies outside.
    """
    if len(point) != len(shape) or not all(map(math.isfinite, point)):
        raise RequestError(f"a point has {len(shape)} indices, got {list(point)}")
    indices = [round(value) for value in point]
    if not all(0 <= index < side for index, side in zip(indices, shape)):
        raise RequestError(f"point {indices} lies outside the image, whose shape is {list(shape)}")
    return Interaction(include, np.array([indices]))


def box(bounds: Sequence[Sequence[float]], include: bool, mask: np.ndarray) -> Interaction:
    """Read a box around the object, or around pixels that are not of it.

    Args:
        bounds: (low, high) of each axis, high being outside of it.
        include: whether the object is inside.
        mask: (A, B, C) so far, of which a box that excludes speaks.

    Raises:
        RequestError: when it is empty or outside, or not flat along one axis.
    """
    place = read_place(bounds, mask.shape)
    found = Interaction(include, np.array([[(low + high - 1) // 2 for low, high in place]]), place)
    if all(high - low > 1 for low, high in place):
        raise RequestError(f"a box lies on one slice, got {[list(each) for each in place]}: draw it in two dimensions")
    if include:
        return found
    before = mask[as_slices(place)] > 0
    return Interaction(False, innermost(place, before, np.ones_like(before)))


def region(
    mask: np.ndarray, include: bool, bounds: Sequence[Sequence[float]] | None, before: np.ndarray
) -> Interaction:
    """Read a lasso: all that is inside.

    Args:
        mask: (A, B, C), positive inside.
        include: whether that is of the object.
        bounds: of the mask in the volume; nothing where it is as large.
        before: (A, B, C) the object so far.
    """
    place, inside = read_drawing(mask, bounds, before.shape)
    wrong = inside & ((before[as_slices(place)] > 0) != include)
    return Interaction(include, innermost(place, wrong, inside), mask=inside, place=place)


def scribble(
    mask: np.ndarray, include: bool, bounds: Sequence[Sequence[float]] | None, before: np.ndarray
) -> Interaction:
    """Read a scribble: points along it stand for it.

    Args:
        mask: (A, B, C), positive where it was drawn.
        include: whether it is on the object.
        bounds: of the mask in the volume; nothing where it is as large.
        before: (A, B, C) the object so far.
    """
    place, drawn = read_drawing(mask, bounds, before.shape)
    pixels = np.argwhere(drawn) + [low for low, _ in place]
    flat = [axis for axis, (low, high) in enumerate(place) if high - low == 1]
    groups = [pixels] if flat else [pixels[pixels[:, 0] == k] for k in np.unique(pixels[:, 0])]
    points = np.concatenate([spaced(each, SCRIBBLE_POINTS) for each in groups])
    return Interaction(include, points, mask=drawn, place=place, is_line=True)


def read_drawing(
    mask: np.ndarray, bounds: Sequence[Sequence[float]] | None, shape: Sequence[int]
) -> tuple[Box, np.ndarray]:
    """Read what was drawn, and where.

    Args:
        mask: (A, B, C).
        bounds: of the mask in the volume, or nothing where it is as large.
        shape: of the volume.

    Returns:
        Its place, no larger than it, and the mask (A, B, C) bool there.

    Raises:
        RequestError: when nothing was drawn, or it is not as large as its place.
    """
    place = read_place(bounds or [(0, side) for side in shape], shape)
    if list(mask.shape) != [high - low for low, high in place]:
        raise RequestError(
            f"what was drawn has the shape {list(mask.shape)}, and its place is {list(map(list, place))}"
        )
    drawn = mask > 0
    found = ndimage.find_objects(drawn.astype(np.uint8))
    if not found or found[0] is None:
        raise RequestError("nothing was drawn: draw on the image")
    tight = tuple((low + part.start, low + part.stop) for (low, _), part in zip(place, found[0]))
    return tight, drawn[found[0]]


def read_place(bounds: Sequence[Sequence[float]], shape: Sequence[int]) -> Box:
    """Read (low, high) of each axis, cut off where the volume ends.

    Args:
        bounds: of any numbers, the higher first or last.
        shape: of the volume.

    Raises:
        RequestError: when it is empty, or outside.
    """
    if len(bounds) != len(shape) or not all(len(each) == 2 and all(map(math.isfinite, each)) for each in bounds):
        raise RequestError(f"a box has a low and a high index for each of {len(shape)} axes, got {bounds!r:.120}")
    pairs = [sorted(round(value) for value in each) for each in bounds]
    place = tuple((max(low, 0), min(high, side)) for (low, high), side in zip(pairs, shape))
    if any(low >= high for low, high in place):
        raise RequestError(f"box {pairs} has nothing of the image, whose shape is {list(shape)}")
    return place


def as_slices(place: Box) -> tuple[slice, ...]:
    """Return what cuts a place out of a volume."""
    return tuple(slice(low, high) for low, high in place)


def innermost(place: Box, *masks: np.ndarray) -> np.ndarray:
    """Return the innermost pixel (1, 3) of the first mask that has one, on the largest slice across its shortest side.

    Args:
        place: of the masks in the volume.
        masks: (A, B, C) bool there.
    """
    mask = next(each for each in masks if each.any())
    axis = int(np.argmin(mask.shape))
    k = int(mask.sum(tuple(other for other in range(3) if other != axis)).argmax())
    across = mask.take(k, axis)
    found = correction_click(np.zeros_like(across), across)
    assert found is not None
    x, y = found.points[0].astype(int).tolist()
    return np.array([np.insert([y, x], axis, k) + [low for low, _ in place]])


def spaced(pixels: np.ndarray, count: int) -> np.ndarray:
    """Choose pixels far from each other: one in the middle, and each next as far as can be from those there.

    Args:
        pixels: (N, 3).
        count: at most.

    Returns:
        (M, 3), M <= count.
    """
    chosen = [int(np.linalg.norm(pixels - pixels.mean(0), axis=1).argmin())]
    distance = np.linalg.norm(pixels - pixels[chosen[0]], axis=1)
    while len(chosen) < min(count, len(pixels)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(pixels - pixels[chosen[-1]], axis=1))
    return pixels[chosen]


def prompt_on(interactions: Sequence[Interaction], axis: int, k: int) -> Prompt:
    """Return what is said of a slice: all points on it, and the last box.

    Args:
        interactions: in their order.
        axis: across which the slice lies.
        k: its index.

    Returns:
        Points (N, 2), (x, y): of the two other axes, the last one is x.
    """
    y, x = (other for other in range(3) if other != axis)
    points: list[list[int]] = []
    labels: list[int] = []
    corners: list[list[int]] = []
    for each in interactions:
        if k not in each.slices(axis):
            continue
        if each.box and each.is_drawn_across(axis):
            corners = [[each.box[x][0], each.box[y][0]], [each.box[x][1] - 1, each.box[y][1] - 1]]
            continue
        on_slice = each.points[each.points[:, axis] == k]
        points += on_slice[:, [x, y]].tolist()
        labels += [FOREGROUND if each.include else BACKGROUND] * len(on_slice)
    box_labels = [TOP_LEFT, BOTTOM_RIGHT] if corners else []
    return Prompt(np.array(corners + points, np.float32).reshape(-1, 2), np.array(box_labels + labels, np.int64))
