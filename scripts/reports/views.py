# SPDX-License-Identifier: Apache-2.0
"""A volume from three sides, with the masks of its objects."""

from collections.abc import Callable, Sequence

import numpy as np
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from PIL import Image

from ..io.axes import upright
from ..prompts.form import Entry, Prompt, pad_prompts
from .overlays import overlay, panels, to_uint8


def views_of(image: MetaTensor, labels: np.ndarray, entries: Sequence[Entry], to_rgb: Callable) -> np.ndarray:
    """Draw :func:`three_views` through the middle of the first object that was spread, on the slice of its prompt.

    Args:
        image: (C, X, Y, Z), with its affine.
        labels: (X, Y, Z) ids.
        entries: the prompts, at least one of an object that has an extent.
        to_rgb: turns a plane (C, a, b) into RGB in 0..1.
    """
    first = next(entry for entry in entries if entry.get("extent"))
    k = first["slice"]
    pixels = np.argwhere(labels[..., k] == first["object"] + 1)
    x, y = pixels.mean(0) if len(pixels) else np.array(labels.shape[:2]) / 2
    asked = [Prompt.of(entry) for entry in entries if entry["slice"] == k]
    return three_views(image, labels, (int(x), int(y), k), asked, to_rgb)


def three_views(
    image: MetaTensor,
    labels: np.ndarray,
    place: Sequence[int],
    prompts: Sequence[Prompt],
    to_rgb: Callable,
    min_side: int = 384,
) -> np.ndarray:
    """Draw the three planes through a place, each as wide and high as its millimetres are.

    Args:
        image: (C, X, Y, Z), with its affine.
        labels: (X, Y, Z) ids.
        place: (x, y, z) in voxels.
        prompts: drawn on the plane of slice z, (x, y) in its pixels.
        to_rgb: turns a plane (C, a, b) into RGB in 0..1.
        min_side: see :func:`scripts.reports.overlays.overlay`.

    Returns:
        (H, W, 3) uint8: slice z first, then the planes across y and x, in which z points up.
    """
    spacing = affine_to_spacing(np.asarray(image.affine))
    pictures, titles = [], []
    for axis, name in ((2, "slice"), (1, "y"), (0, "x")):
        first, second = (other for other in range(3) if other != axis)
        plane = to_uint8(upright(to_rgb(image.select(axis + 1, place[axis])).as_tensor().cpu()))
        ids = upright(labels.take(place[axis], axis))
        if axis != 2:
            plane, ids = plane[::-1], ids[::-1]
        # no side is drawn with fewer pixels than it has
        scale = np.array([spacing[first], spacing[second]]) / min(spacing[first], spacing[second])
        width, height = (round(n * by) for n, by in zip(ids.shape[::-1], scale))
        drawn = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
        enlarged = np.asarray(Image.fromarray(ids.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST))
        asked = [Prompt((xy + 0.5) * scale - 0.5, kinds) for xy, kinds in prompts] if axis == 2 else []
        points, point_labels = pad_prompts(asked) if asked else (None, None)
        pictures.append(overlay(drawn, enlarged, points, point_labels, min_side))
        titles.append(f"{name} {place[axis]}")
    return panels(pictures, titles)
