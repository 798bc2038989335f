# SPDX-License-Identifier: Apache-2.0
"""The mask that a user goes on from, on its way with the image that it is of."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from ..errors import InputError
from ..io.grids import on_grid_of
from ..io.reading import LoadCheckedImaged, label_values, spatial_shape
from ..prompts.form import PREVIOUS_KEY


class PreviousMaskd(Transform):
    """Read the label map of an earlier prediction and send it along with the image, in its meta.

    An item's own ``mask`` goes before the one given here. Object q is id q + 1, as predictions are written.

    Args:
        image_key: of the (C, X, Y[, Z]) image.
        mask: path of a label map of the image's size, for items that name none; nothing starts anew.

    Raises:
        InputError: when the map has another size than the image, or lies elsewhere.
    """

    def __init__(self, image_key: str = "image", mask: str | None = None) -> None:
        self.image_key = image_key
        self.mask = mask
        self.load = LoadCheckedImaged("mask", label=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        path = data.pop("mask", None) or self.mask
        if path is None:
            return data
        image = data[self.image_key]
        labels = on_grid_of(label_values(self.load({"mask": path})["mask"]), image)
        if spatial_shape(labels) != spatial_shape(image):
            sizes = [" x ".join(map(str, spatial_shape(array))) for array in (labels, image)]
            raise InputError(
                f"the mask {path} is {sizes[0]} but its image is {sizes[1]}: give a mask of the image's size"
            )
        previous = labels.as_tensor().reshape(image.shape[1:])  # (X, Y[, Z])
        data[self.image_key] = MetaTensor(image, meta={**image.meta, PREVIOUS_KEY: previous})
        return data
