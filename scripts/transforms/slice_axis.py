# SPDX-License-Identifier: Apache-2.0
"""Which planes of a volume are its slices."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from ..errors import InputError
from ..io.axes import with_slices_along
from ..prompts.form import PREVIOUS_KEY


class SliceAxisd(Transform):
    """Take the planes across one axis of a volume as its slices; what comes out is written on the file's own axes.

    Prompts that follow are in pixels of those planes: the two other axes in their order, then the slice.

    Args:
        axis: 0, 1 or 2 of the file's; 2 are the slices as files have them, also of DICOM series.
        image_key: (C, X, Y, Z), with the mask that :class:`scripts.transforms.PreviousMaskd` sent along; an image
            (C, X, Y) has one slice and stays.

    Raises:
        InputError: when there is no such axis.
    """

    def __init__(self, axis: int = 2, image_key: str = "image") -> None:
        if axis not in (0, 1, 2):
            raise InputError(f"axis is 0, 1 or 2: the axis of a volume that its slices lie along, got {axis!r}")
        self.axis = axis
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        image = data[self.image_key]
        if self.axis == 2 or image.ndim == 3:
            return data
        moved = with_slices_along(image, self.axis)
        if PREVIOUS_KEY in image.meta:
            moved.meta[PREVIOUS_KEY] = image.meta[PREVIOUS_KEY].movedim(self.axis, 2)
        data[self.image_key] = moved
        return data
