# SPDX-License-Identifier: Apache-2.0
"""The one place that turns axes: readers give (x, y), networks and pictures want (rows, columns), slices lie last."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def upright(array: Array) -> Array:
    """Turn (..., X, Y) into (..., H, W), or back: rows are y and columns are x."""
    return array.swapaxes(-1, -2)


AXIS_KEY = "slice_axis"  # of an image's meta: the axis of its file that was moved last


def with_slices_along(image: MetaTensor, axis: int) -> MetaTensor:
    """Move an axis of a volume last, so that its slices are the planes across it; the image lies where it did.

    Args:
        image: (C, X, Y, Z).
        axis: 0, 1 or 2 of the file's; the others keep their order.
    """
    order = [*(other for other in range(3) if other != axis), axis]
    return permuted(image, order, {**image.meta, AXIS_KEY: axis})


def on_file_axes(volume: MetaTensor) -> MetaTensor:
    """Undo :func:`with_slices_along` for what was made of its image.

    Args:
        volume: (C, X, Y, Z) with the image's meta, or anything whose axes were not moved.
    """
    axis = slice_axis(volume)
    if axis == 2:
        return volume
    order = [*range(axis), 2, *range(axis, 2)]
    return permuted(volume, order, {key: value for key, value in volume.meta.items() if key != AXIS_KEY})


def slice_axis(image: object) -> int:
    """Return which axis of its file the last one of an image, or of a batch of one, is: 2 where none was moved."""
    return int(getattr(image, "meta", {}).get(AXIS_KEY, 2))


def permuted(volume: MetaTensor, order: Sequence[int], meta: dict) -> MetaTensor:
    """Return a volume with its axes in another order.

    Args:
        volume: (C, X, Y, Z).
        order: of the three axes.
        meta: of the result; its affine follows the axes.
    """
    affine = torch.as_tensor(volume.affine)[:, [*order, 3]]
    array = volume.as_tensor().permute(0, *(1 + axis for axis in order))
    return MetaTensor(array, affine=affine, meta={key: value for key, value in meta.items() if key != "affine"})
