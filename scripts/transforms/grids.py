# SPDX-License-Identifier: Apache-2.0
"""A volume and its label in space: whether their voxels lie in the same places, in whatever order of axes."""

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError

APART = 0.25  # voxels by which two grids may differ anywhere, which rounding in headers does


def on_grid_of(label: MetaTensor, image: MetaTensor) -> MetaTensor:
    """Bring a label onto the grid of its image, where the two differ by order and direction of their axes alone.

    Args:
        label: (C, X, Y, Z) with an affine; anything else (a picture, or an affine that says nothing, which is the
            identity) is taken to be on the image's grid as it is.
        image: (C, X', Y', Z').

    Returns:
        The label, whose voxels are those of the image's indices.

    Raises:
        InputError: when the two lie differently in space.
    """
    if label.ndim != 4 or image.ndim != 4 or _says_nothing(label) or _says_nothing(image):
        return label
    # from an index of the image to one of the label
    matrix = np.linalg.inv(np.asarray(label.affine, float)) @ np.asarray(image.affine, float)
    turn, shift = np.round(matrix[:3, :3]), matrix[:3, 3]
    last = np.array(label.shape[1:]) - 1
    axes = np.abs(turn).argmax(1)  # of the image, for each of the label's
    is_order = np.array_equal(np.abs(turn), np.eye(3)[axes]) and len(set(axes)) == 3
    flipped = turn.sum(1) < 0
    far = np.abs(matrix[:3, :3] - turn) @ (np.array(image.shape[1:]) - 1)  # at the corner that is furthest off
    if not is_order or (far + np.abs(shift - np.where(flipped, last, 0)) > APART).any():
        raise InputError(
            f"{image.meta.get('filename_or_obj')} and its label {label.meta.get('filename_or_obj')} lie differently in "
            "space (their affines differ by more than the order of axes): resample the label onto the image's grid"
        )
    if np.array_equal(axes, range(3)) and not flipped.any():
        return label
    order = [0, *(1 + int(np.flatnonzero(axes == b)[0]) for b in range(3))]
    voxels = label.as_tensor().flip([1 + a for a in range(3) if flipped[a]]).permute(order)
    return MetaTensor(voxels, meta={**label.meta, "affine": torch.as_tensor(np.asarray(image.affine))})


def _says_nothing(image: MetaTensor) -> bool:
    """Tell a file without a position in space: an identity, as programs write it, in RAS or as ITK's LPS comes out."""
    return bool(np.allclose(np.abs(np.asarray(image.affine)), np.eye(4)))
