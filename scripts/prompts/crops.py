# SPDX-License-Identifier: Apache-2.0
"""A closer look at objects that are small on the network's grid: when, and at what part of the image.

A nucleus of ten pixels is three cells of the 64 x 64 masks that a network of 256 pixels draws. The same rule serves
training, evaluation, prediction and everything mode. Boxes are (x0, y0, x1, y1) in pixels of the image, first and last
pixel inside; a crop's x1 and y1 are one past its last pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]
Crop = tuple[int, int, int, int]
LEAST_ZOOM = 1.5  # a crop that enlarges less than this is not worth an encoding of its own


@dataclass(frozen=True)
class SmallObjectCropper:
    """Tell small objects, and choose the square around each that the network shall see at its full size.

    Args:
        image_size: side of the network's image in pixels.
        below: an object whose longer side has fewer pixels of the network's image than this is small.
        context: side of the crop as a multiple of the object's longer side.
        min_side: least side of a crop in pixels of the image.
    """

    image_size: int
    below: float = 64.0
    context: float = 3.0
    min_side: int = 32

    def __call__(self, box: Sequence[float], size: Sequence[int], context: float | None = None) -> Crop | None:
        """Choose the crop for an object.

        Args:
            box: of the object.
            size: (H, W) of the image.
            context: instead of the usual one, for training.

        Returns:
            The crop, shifted into the image, or None where the object is large enough or nothing would be gained.
        """
        width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
        if max(width / size[1], height / size[0]) * self.image_size >= self.below:
            return None
        side = max(round((context or self.context) * max(width, height)), self.min_side)
        if min(size) < LEAST_ZOOM * side:
            return None
        x0 = round((box[0] + box[2] + 1 - side) / 2)
        y0 = round((box[1] + box[3] + 1 - side) / 2)
        x0, y0 = min(max(x0, 0), size[1] - side), min(max(y0, 0), size[0] - side)
        return x0, y0, x0 + side, y0 + side


def expand_crop(crop: Crop, size: Sequence[int]) -> Crop | None:
    """Widen a crop by half about its middle, shifted into an image of ``size`` (H, W); None is all of the image.

    Args:
        crop: (x0, y0, x1, y1) in pixels.
        size: (H, W) of the image.
    """
    side = round(1.5 * (crop[2] - crop[0]))
    if min(size) < LEAST_ZOOM * side:
        return None
    x0, y0 = (
        min(max((low + high - side) // 2, 0), most - side)
        for low, high, most in zip(crop[:2], crop[2:], reversed(size))
    )
    return x0, y0, x0 + side, y0 + side


def mask_window(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Return the rows and the columns that a (H, W) mask is on, or None of an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def mask_box(mask: np.ndarray) -> Box | None:
    """Return the box of a (H, W) mask, or None of an empty one."""
    window = mask_window(mask)
    if window is None:
        return None
    rows, columns = window
    return float(columns.start), float(rows.start), float(columns.stop - 1), float(rows.stop - 1)


def box_around(boxes: Sequence[Box]) -> Box:
    """Return the box around boxes."""
    corners = np.array(boxes)
    return (*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist())


def contains(crop: Crop, point: Sequence[float]) -> bool:
    """Return whether a point (x, y) lies in a crop.

    Args:
        crop: (x0, y0, x1, y1) in pixels.
        point: (x, y).
    """
    return crop[0] <= point[0] < crop[2] and crop[1] <= point[1] < crop[3]
