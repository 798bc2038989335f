# SPDX-License-Identifier: Apache-2.0
"""What clients of MONAI Label send, in the bundle's one form of a prompt.

3D Slicer, OHIF and CVAT send indices of the file's array; what a hand that slips sends outside the image is clipped or
left out, and never an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..prompts.form import BACKGROUND, BOTTOM_RIGHT, FOREGROUND, TOP_LEFT, Entry, asks

KEYS = ("foreground", "background", "roi")  # an item with one of these is a request


def is_request(data: Mapping[Any, Any]) -> bool:
    """Return whether an item is a client's request, and not one of a list."""
    return any(key in data for key in KEYS)


def read_request(request: Mapping[Any, Any], shape: Sequence[int]) -> list[Entry]:
    """Read the clicks and the box for one object.

    Args:
        request: ``foreground`` and ``background`` are lists of indices ``[i, j]`` or ``[i, j, k]``; ``roi`` is ``[i0,
            i1, j0, j1, k0, k1]`` in any order of each pair (3D Slicer reverses those of flipped axes) or ``[x0, y0, x1,
            y1]`` (CVAT); ``slice`` is the one slice that a 2D client shows, and for a box without clicks 3D Slicer
            sends a position in mm instead.
        shape: (X, Y) of the image or (X, Y, Z) of the volume, in pixels.

    Returns:
        Entries as of :func:`scripts.prompts.form.read_prompts`, none where nothing is asked. A slice with background
        clicks alone asks for nothing, but says where an object has ended.

    Raises:
        InputError: when clicks are not a list.
    """
    depth = shape[2] if len(shape) > 2 else 1
    shown = _index(request.get("slice"))
    clicks = _read_clicks(request, shape, shown or 0)
    box, boxed = _read_roi(request.get("roi"), shape, shown or 0)

    slices = sorted({*clicks, *boxed})
    if depth == 1:
        slices = slices[:1]
    elif shown is not None and shown in slices:
        slices = [shown]
    elif shown is not None and boxed:
        slices = [boxed[len(boxed) // 2]]
    entries: list[Entry] = []
    for k in slices:
        marks = [*clicks.get(k, []), *(zip(box, (TOP_LEFT, BOTTOM_RIGHT)) if k in boxed else [])]
        points, labels = [xy for xy, _ in marks], [label for _, label in marks]
        entries.append({"object": 0, "slice": k, "points": points, "labels": labels})
    return entries if any(map(asks, entries)) else []


def _index(value: Any) -> int | None:
    """Round a number, as text too; nothing and what is no number are nothing."""
    try:
        return round(float(value)) if np.isfinite(float(value)) else None
    except (TypeError, ValueError):
        return None


def _indices(values: Any) -> list[int]:
    """Round a list of numbers; anything else is empty."""
    found = [_index(value) for value in values] if isinstance(values, (list, tuple)) else []
    return [value for value in found if value is not None] if None not in found else []


def _read_clicks(request: Mapping, shape: Sequence[int], shown: int) -> dict[int, list[tuple[list[float], int]]]:
    """Return the clicks inside the image by slice; OHIF sends empty ones."""
    depth = shape[2] if len(shape) > 2 else 1
    clicks: dict[int, list[tuple[list[float], int]]] = {}
    for key, label in (("foreground", FOREGROUND), ("background", BACKGROUND)):
        points = request.get(key) or []
        if not isinstance(points, (list, tuple)):
            raise InputError(f"{key} is a list of indices [i, j, k], got {points!r}")
        for point in points:
            index = _indices(point)
            if len(index) < 2:
                continue
            x, y, k = [*index, shown][:3] if depth > 1 else [*index[:2], 0]
            if 0 <= x < shape[0] and 0 <= y < shape[1] and 0 <= k < depth:
                clicks.setdefault(k, []).append(([x, y], label))
    return clicks


def _read_roi(values: Any, shape: Sequence[int], shown: int) -> tuple[list[list[float]], range]:
    """Return a box's corners, clipped to the image, and the slices that it is on; nothing where it has no area."""
    roi = _indices(values)
    if len(roi) == 4:
        roi = [roi[0], roi[2], roi[1], roi[3], shown, shown]
    if len(roi) != 6:
        return [], range(0)
    depth = shape[2] if len(shape) > 2 else 1
    (x0, x1), (y0, y1), (k0, k1) = (sorted(roi[n : n + 2]) for n in (0, 2, 4))
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, shape[0] - 1), min(y1, shape[1] - 1)
    if x0 >= x1 or y0 >= y1:
        return [], range(0)
    return [[x0, y0], [x1, y1]], range(max(k0, 0), min(k1, depth - 1) + 1) if depth > 1 else range(1)
