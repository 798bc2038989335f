# SPDX-License-Identifier: Apache-2.0
"""A volume and its label in space: whether their voxels lie in the same places, in whatever order of axes."""

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError

PARTIAL_KEY = "partial"  # of a label that has no more slices than it needs
MAX_GRID_OFFSET_VOXELS = 0.25  # voxels by which two grids may differ anywhere, which rounding in headers does


def on_grid_of(label: MetaTensor, image: MetaTensor) -> MetaTensor:
    """Bring a label onto the grid of its image, where the two differ by order and direction of their axes alone.

    A label that covers some slices of the image, as a DICOM SEG does, is empty on the others.

    Args:
        label: (C, X, Y, Z) with an affine; anything else (a picture, or an affine that says nothing, which is the
            identity) is taken to be on the image's grid as it is.
        image: (C, X', Y', Z').

    Returns:
        The label, whose voxels are those of the image's indices.

    Raises:
        InputError: when the two lie differently in space, or a label of some slices reaches beyond the image.
    """
    if label.ndim != 4 or image.ndim != 4 or _says_nothing(label) or _says_nothing(image):
        return label
    partial = label.meta.get(PARTIAL_KEY, False)
    matrix = np.linalg.inv(np.asarray(image.affine, float)) @ np.asarray(label.affine, float)  # from label to image
    last = np.array(label.shape[1:]) - 1
    axes = np.abs(matrix[:3, :3]).argmax(0)  # of the image, for each of the label's
    steps, first = np.round(matrix[axes, range(3)]), np.round(matrix[axes, 3]).astype(int)
    steps = np.where(last == 0, 1, steps).astype(int)  # one slice may be of any thickness
    model = np.zeros((3, 3))
    model[axes, range(3)] = steps
    far = np.abs(matrix[:3, :3] - model) @ last + np.abs(matrix[:3, 3] - np.round(matrix[:3, 3]))
    lowest, highest = (pick(first, first + steps * last) for pick in (np.minimum, np.maximum))
    is_order = len(set(axes)) == 3 and (np.abs(steps[:2]) == 1).all() and steps[2] != 0
    if not is_order or (far > MAX_GRID_OFFSET_VOXELS).any() or (not partial and (lowest.any() or abs(steps[2]) != 1)):
        raise InputError(
            f"{image.meta.get('filename_or_obj')} and its label {label.meta.get('filename_or_obj')} lie differently in "
            "space (their affines differ by more than the order of axes): resample the label onto the image's grid"
        )
    order = [1 + int(np.flatnonzero(axes == a)[0]) for a in range(3)]  # of the label, for each of the image's
    shape = tuple(image.shape[1:] if partial else (label.shape[a] for a in order))
    if (lowest < 0).any() or (highest >= np.array(shape)[axes]).any():
        raise InputError(
            f"{label.meta.get('filename_or_obj')} reaches beyond its image {image.meta.get('filename_or_obj')}: is it "
            "of another series?"
        )
    if np.array_equal(axes, range(3)) and (steps == 1).all() and shape == tuple(label.shape[1:]):
        return label
    placed = label.as_tensor().new_zeros(label.shape[0], *shape)
    where = np.ix_(*(f + s * np.arange(n + 1) for f, s, n in zip(first, steps, last)))
    placed.permute(0, *(1 + axes).tolist())[:, *map(torch.from_numpy, where)] = label.as_tensor()
    return MetaTensor(placed, meta={**label.meta, "affine": torch.as_tensor(np.asarray(image.affine))})


def _says_nothing(image: MetaTensor) -> bool:
    """Return whether a file has no position in space: an identity, in RAS or as ITK's LPS comes out."""
    return bool(np.allclose(np.abs(np.asarray(image.affine)), np.eye(4)))
