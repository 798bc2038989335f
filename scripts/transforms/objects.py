# SPDX-License-Identifier: Apache-2.0
"""From an image and its label to one slice, upright, with one binary mask for each object asked for."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform, Transpose

from ..data.reading import label_values


class SelectObjectsd(Transform):
    """Take the slice and the objects that an item of :class:`scripts.data.ObjectDataset` names.

    This is the one place where training data turn from the readers' axes (x, y) to the network's (rows, columns).

    Args:
        image_key: (3, X, Y[, Z]) in, (3, H, W) out.
        label_key: (C, X, Y[, Z]) ids in, (Q, H, W) uint8 masks out, one for each entry of ``data["objects"]``.
    """

    def __init__(self, image_key: str = "image", label_key: str = "label") -> None:
        self.image_key = image_key
        self.label_key = label_key
        self.upright = Transpose((0, 2, 1))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        objects = data.pop("objects")  # lists of differing lengths do not collate
        image, label = data[self.image_key], label_values(data[self.label_key])
        # each may be a volume: a DICOM file has one slice, and its label may be a picture
        image, label = (array[..., data["slice"]] if array.ndim == 4 else array for array in (image, label))
        label = torch.cat([torch.isin(label, torch.tensor(ids)) for ids in objects]).to(torch.uint8)  # (Q, X, Y)
        data[self.image_key] = self.upright(image)
        data[self.label_key] = self.upright(label)
        return data
