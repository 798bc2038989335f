# SPDX-License-Identifier: Apache-2.0
"""The one form of a prompt: build it from what users write or from a label, validate it, pad it, send it with an image.

A prompt for Q objects is ``points`` (Q, N, 2) float32, (x, y) in pixels of the image, and ``point_labels`` (Q, N)
int64: -1 padding, 0 background, 1 foreground, 2 and 3 a box's top-left and bottom-right corner, 4 a foreground click
that is shared by several classes. Pixel indices count from 0, and a box's corners are the first and last pixel inside.
"""

import json
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .crops import mask_box

PADDING, BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
# a foreground click for several classes, of which this one need not be there: see class_layout.py
SHARED = 4
INSIDE = (FOREGROUND, SHARED)
META_KEY = "prompts"
PREVIOUS_KEY = "previous_mask"  # of an image's meta: the label map (X, Y[, Z]) that its clicks correct


class Prompt(NamedTuple):
    """What is asked of one object."""

    points: np.ndarray  # (N, 2), (x, y) in pixels of the image
    labels: np.ndarray  # (N,)

    @classmethod
    def of(cls, entry: "Entry") -> "Prompt":
        """Take the prompt out of an entry."""
        return cls(np.reshape(np.array(entry["points"], np.float32), (-1, 2)), np.array(entry["labels"], np.int64))


class Entry(TypedDict, total=False):
    """A prompt on its way with an image, and what came of it."""

    object: int  # from 0
    slice: int
    points: list[list[float]]
    labels: list[int]
    predicted_iou: float
    box: list[int]  # of an instance that nobody asked for, and so its area in pixels and its stability
    area: int
    stability: float
    extent: list[int]  # first and last slice of the object, where it was spread through a volume; empty for none


def write_entries(image: Any, entries: Sequence[Entry]) -> None:
    """Write entries into a MetaTensor's meta, as text, which survives collation; a batch of one gets a list of one.

    Args:
        image: whose meta gets them.
        entries: prompts, an entry for each object.
    """
    text = json.dumps(list(entries))
    image.meta[META_KEY] = [text] if _is_collated(image) else text


def read_entries(image: Any) -> list[Entry] | None:
    """Read what :func:`write_entries` wrote into the meta of an image, or of a batch of one; None where nothing did."""
    written: Any = getattr(image, "meta", {}).get(META_KEY)
    if isinstance(written, (list, tuple)):
        written = written[0]
    return None if written is None else json.loads(written)


def _is_collated(image: Any) -> bool:
    """Return whether an image is a batch, whose meta holds a list for each key."""
    return any(isinstance(image.meta.get(key), (list, tuple)) for key in (META_KEY, "filename_or_obj"))


def click_prompt(mask: np.ndarray, rng: np.random.RandomState) -> Prompt:
    """Click a random pixel of a (H, W) mask.

    Args:
        mask: (H, W) bool.
        rng: source of random numbers.
    """
    pixels = np.flatnonzero(mask)
    y, x = np.unravel_index(pixels[rng.randint(len(pixels))], mask.shape)
    return Prompt(np.array([[x, y]], np.float32), np.array([FOREGROUND]))


def box_prompt(mask: np.ndarray, rng: np.random.RandomState, jitter: float = 0.0) -> Prompt:
    """Draw the box around a (H, W) mask, each side moved at random by up to ``jitter`` of the box's side.

    Args:
        mask: (H, W) bool.
        rng: source of random numbers.
        jitter: how far each side moves at most, as a share of the box's side.
    """
    corners = mask_box(mask)
    if corners is None:
        raise ValueError("an empty mask has no box")
    box = np.reshape(np.array(corners, np.float32), (2, 2))
    box += rng.uniform(-jitter, jitter, (2, 2)) * (box[1] - box[0] + 1)
    limit = np.array([mask.shape[1] - 1, mask.shape[0] - 1], np.float32)
    return Prompt(np.sort(box.clip(0, limit), axis=0).astype(np.float32), np.array([TOP_LEFT, BOTTOM_RIGHT]))


def whole_prompt(size: Sequence[int]) -> Prompt:
    """Draw the box of a whole image of ``size`` (H, W), which asks for all there is."""
    return Prompt(np.array([[0, 0], [size[1] - 1, size[0] - 1]], np.float32), np.array([TOP_LEFT, BOTTOM_RIGHT]))


def pad_prompts(prompts: Sequence[tuple], slots: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stack the prompts of Q objects, padded to the longest or to a number of slots.

    Args:
        prompts: one (N, 2) and (N,) pair for each object.
        slots: the least N of the result.

    Returns:
        points (Q, N, 2) float32 and point_labels (Q, N) int64; padding is (-1, -1) with label -1.
    """
    slots = max([slots, *(len(labels) for _, labels in prompts)])
    points = np.full((len(prompts), slots, 2), -1, np.float32)
    point_labels = np.full((len(prompts), slots), PADDING, np.int64)
    for q, (xy, labels) in enumerate(prompts):
        points[q, : len(labels)] = xy
        point_labels[q, : len(labels)] = labels
    return points, point_labels


def align_points(points: Tensor, point_labels: Tensor, size: tuple[int, int], image_size: int) -> Tensor:
    """Move points so that they lie where they were placed once a small image has been enlarged.

    EfficientSAM multiplies indices by its size over the image's. On an image that is smaller than the network's, that
    moves a pixel's centre by up to half a pixel of the image, and leaves the last row and column out of a box. A larger
    image is left as upstream has it: there the same is less than half a pixel of the network's.

    Args:
        points: (..., 2), (x, y) in pixels of the image.
        point_labels: (...) of them.
        size: (H, W) of the image.
        image_size: side of the network's image in pixels.

    Returns:
        (..., 2): clicks fall on the centre of their pixel, and a box's corners on the outer edges of theirs.
    """
    share = alignment(point_labels).to(points.dtype)
    # the network's pixel in pixels of the image is at most 1
    x = points[..., 0] + share * (1.0 - min(size[1] / image_size, 1.0))
    y = points[..., 1] + share * (1.0 - min(size[0] / image_size, 1.0))
    return torch.stack([x, y], dim=-1)


def alignment(point_labels: Tensor) -> Tensor:
    """Return how far points move in :func:`align_points`, as a share of what the network's pixel leaves of the image's.

    Args:
        point_labels: (...) of any integers.

    Returns:
        (...) float32: a click by half, to the middle of its pixel, a box's last corner by all of it.
    """
    # by number, since TorchScript reads no module's names: FOREGROUND, BACKGROUND and SHARED; BOTTOM_RIGHT
    is_click = (point_labels == 1) | (point_labels == 0) | (point_labels == 4)
    return 0.5 * is_click.float() + (point_labels == 3).float()


def read_prompts(
    points: Sequence | None,
    boxes: Sequence | None,
    shape: Sequence[int],
    slice_index: int | None = None,
    name: str = "the image",
) -> list[Entry]:
    """Read the clicks and boxes that a user wrote for one image or volume, and refuse what cannot be meant.

    Args:
        points: ``[[x, y, label], ...]`` for one object, or a list of such lists, one for each object; label 1 is
            foreground, 0 background. In a volume a point may name its slice: ``[x, y, slice, label]``.
        boxes: ``[[x0, y0, x1, y1], ...]``, one box for each object.
        shape: (X, Y) of the image or (X, Y, Z) of the volume, in pixels.
        slice_index: the slice of points and boxes that name none, in a volume.
        name: what to call the image in errors.

    Returns:
        One entry for each object and slice: ``{"object": q, "slice": k, "points": [[x, y], ...], "labels": [...]}``,
        where slice is 0 for an image. Without points and boxes, the box of the whole image on each slice.

    Raises:
        InputError: when a prompt is malformed, lies outside the image, has no area, or does not match the others.
    """
    depth = shape[2] if len(shape) > 2 else 1
    clicks = _group_points(points, name)
    boxes = _listed(boxes, "boxes", name)
    if boxes and not isinstance(boxes[0], (list, tuple)):
        boxes = [boxes]
    if clicks and boxes and len(clicks) != len(boxes):
        raise InputError(
            f"{name}: {len(clicks)} objects have points but {len(boxes)} have boxes: give one list of points and one "
            "box for each object, or only one of the two"
        )
    if not clicks and not boxes:
        labels = [TOP_LEFT, BOTTOM_RIGHT]
        corners: list[list[float]] = [[0, 0], [shape[0] - 1, shape[1] - 1]]
        slices = range(depth) if slice_index is None else [_check_slice(slice_index, depth, name)]
        return [{"object": 0, "slice": k, "points": corners, "labels": labels} for k in slices]

    entries: list[Entry] = []
    for q in range(max(len(clicks), len(boxes))):
        by_slice: dict[int, Entry] = {}
        for point in clicks[q] if clicks else []:
            xy, k, label = _read_point(point, shape, slice_index, name)
            entry = by_slice.setdefault(k, {"object": q, "slice": k, "points": [], "labels": []})
            entry["points"].append(xy)
            entry["labels"].append(label)
        if boxes:
            k = _check_slice(slice_index, depth, name)
            entry = by_slice.setdefault(k, {"object": q, "slice": k, "points": [], "labels": []})
            x0, y0, x1, y1 = _read_box(boxes[q], shape, name)
            entry["points"] += [[x0, y0], [x1, y1]]
            entry["labels"] += [TOP_LEFT, BOTTOM_RIGHT]
        entries += [by_slice[k] for k in sorted(by_slice)]
    return entries


def asks(entry: Entry) -> bool:
    """Return whether a prompt says what an object is; background clicks alone say what a mask before them is not."""
    return any(label != BACKGROUND for label in entry["labels"])


def _listed(value: Sequence | None, what: str, name: str) -> list:
    """Take a list, tuple, array, list of arrays or nothing; refuse anything else."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{name}: {what} must be a list, got {value!r}")
    return [v.tolist() if isinstance(v, np.ndarray) else v for v in value]


def _group_points(points: Sequence | None, name: str) -> list[list]:
    """Return one list of points for each object, whether one or several were written."""
    points = _listed(points, "points", name)
    if not points:
        return []
    if not isinstance(points[0], (list, tuple)):
        points = [points]
    if not points[0] or isinstance(points[0][0], (list, tuple)):
        if not all(isinstance(p, (list, tuple)) and p for p in points):
            raise InputError(f"{name}: every object needs at least one point, got {points!r}")
        return [list(p) for p in points]
    return [points]


def _read_point(point: Sequence, shape: Sequence[int], slice_index: int | None, name: str) -> tuple[list, int, int]:
    numeric = isinstance(point, (list, tuple)) and len(point) in (3, 4) and all(_is_number(v) for v in point)
    if not numeric or point[-1] not in (BACKGROUND, FOREGROUND):
        raise InputError(
            f"{name}: a point is [x, y, label], or [x, y, slice, label] in a volume, with label 1 (object) or "
            f"0 (background), got {point!r}"
        )
    x, y = point[:2]
    _check_inside(x, y, shape, f"point ({x}, {y})", name)
    k = _check_slice(point[2] if len(point) == 4 else slice_index, shape[2] if len(shape) > 2 else 1, name)
    return [x, y], k, int(point[-1])


def _read_box(box: Sequence, shape: Sequence[int], name: str) -> Sequence:
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise InputError(f"{name}: a box is [x0, y0, x1, y1], got {box!r}")
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"{name}: box {list(box)} has no area: give [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
    _check_inside(x0, y0, shape, f"the corner ({x0}, {y0}) of box {list(box)}", name)
    _check_inside(x1, y1, shape, f"the corner ({x1}, {y1}) of box {list(box)}", name)
    return box


def _check_inside(x: float, y: float, shape: Sequence[int], what: str, name: str) -> None:
    if not (0 <= x <= shape[0] - 1 and 0 <= y <= shape[1] - 1):
        raise InputError(
            f"{name}: {what} lies outside the image of {shape[0]} x {shape[1]} pixels: x is 0 to "
            f"{shape[0] - 1}, y is 0 to {shape[1] - 1}"
        )


def _check_slice(k: int | None, depth: int, name: str) -> int:
    if k is None:
        if depth == 1:
            return 0
        raise InputError(f"{name} has {depth} slices: say which one the prompt is on (slice 0 to {depth - 1})")
    if not _is_number(k) or k != int(k) or not 0 <= k < depth:
        raise InputError(f"{name}: slice {k} does not exist: it has slices 0 to {depth - 1}")
    return int(k)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
