# SPDX-License-Identifier: Apache-2.0
"""Intensities of any kind of image as RGB in 0..1."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRange, Transform
from torch import Tensor

from ..errors import InputError
from ..io.intensities import intensity_bounds, is_picture


class ToRGB(Transform):
    """Turn grey, grey with alpha, RGB and RGBA of any depth into RGB in 0..1.

    Pictures of 8 bits are divided by 255. Everything else (16-bit pictures, DICOM, volumes) is scaled from a range:
    the one given, else the :func:`intensity_bounds` of the whole image or volume, from ``meta["percentiles"]`` where
    set.

    Args:
        intensity_range: (low, high) that become 0 and 1, such as a CT window; values beyond are clipped.
    """

    def __init__(self, intensity_range: tuple[float, float] | None = None) -> None:
        if intensity_range is not None and not intensity_range[0] < intensity_range[1]:
            raise InputError(f"intensity_range is (low, high) with low < high, got {intensity_range}")
        self.intensity_range = intensity_range

    def only_divides(self, image: Tensor) -> bool:
        """Return whether an image is a colour picture (3, X, Y) of 8 bits, which is only divided by 255."""
        return self.intensity_range is None and is_picture(image) and len(image) == 3

    def __call__(self, image: MetaTensor) -> MetaTensor:
        """Convert (C, X, Y[, Z]) with 1 to 4 channels to (3, X, Y[, Z]) float32."""
        scale = self.intensity_range or image.meta.get("percentiles")
        if scale is None and not is_picture(image):
            scale = intensity_bounds(image)
        low, high = (float(bound) for bound in scale or (0, 255))  # collated meta data are tensors
        image = image[: 1 if image.shape[0] < 3 else 3].float()  # alpha is left out
        if scale is None:
            image /= 255  # in place: a picture may be large
        elif low == high:
            image = torch.zeros_like(image)
        else:
            image = ScaleIntensityRange(low, high, b_min=0.0, b_max=1.0, clip=True)(image)
        return image if image.shape[0] == 3 else image.expand(3, *image.shape[1:])  # one channel in memory


class ToRGBd(MapTransform):
    """Dictionary form of :class:`ToRGB`; an item's own ``intensity_range`` goes before the one given here.

    Args:
        keys: of the images.
        intensity_range: (low, high) that become black and white; nothing takes percentiles.
    """

    def __init__(self, keys: KeysCollection, intensity_range: tuple[float, float] | None = None) -> None:
        super().__init__(keys)
        self.transform = ToRGB(intensity_range)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        own = data.pop("intensity_range", None)
        transform = self.transform if own is None else ToRGB(own)
        for key in self.key_iterator(data):
            data[key] = transform(data[key])
        return data
