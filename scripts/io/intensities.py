# SPDX-License-Identifier: Apache-2.0
"""What the values of an image mean: of every picture of 8 bits the same, of others what their range says."""

import torch
from monai.data import MetaTensor
from monai.transforms.utils_pytorch_numpy_unification import percentile
from torch import Tensor


def is_picture(image: Tensor) -> bool:
    """Return whether (C, X, Y) comes from an 8-bit picture, whose values mean the same in every file."""
    return image.dtype == torch.uint8 and image.ndim == 3


def intensity_bounds(image: MetaTensor) -> list[float]:
    """Return the 0.5th and 99.5th percentile, or the extremes where those are equal (a few bright pixels)."""
    low, high = (float(v) for v in percentile(image.float(), (0.5, 99.5)))
    return [low, high] if low < high else [float(image.min()), float(image.max())]
