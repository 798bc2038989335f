# SPDX-License-Identifier: Apache-2.0
"""The image that a client has sent, as slices across any axis."""

import itertools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from apps.common.errors import RequestError
from scripts.io.intensities import intensity_bounds

READABLE = {"uint16": np.int32, "uint32": np.int64, "uint64": np.float32, "float64": np.float32, "bool": np.uint8}

numbers = itertools.count()  # of images, by which embeddings are told apart
background = ThreadPoolExecutor(1, "intensities")


class SentImage:
    """An image, whose intensities are found while its reader looks at it.

    Args:
        array: (C, A, B, D) with 1 or 3 channels, of any numbers.
        spacing: of the three axes, in millimetres; nothing takes 1.

    Raises:
        RequestError: when it or its spacing cannot be used.
    """

    def __init__(self, array: np.ndarray, spacing: Sequence[float] | None = None) -> None:
        if array.ndim != 4 or len(array) not in (1, 3):
            raise RequestError(
                f"an image is (channels, slices, rows, columns) with 1 or 3 channels, got {list(array.shape)}"
            )
        spacing = [float(each) for each in spacing] if spacing is not None else [1.0] * 3
        if len(spacing) != 3 or not all(0 < each < float("inf") for each in spacing):
            raise RequestError(f"spacing has three positive numbers, got {spacing}")
        self.shape = array.shape[1:]
        self.spacing = spacing
        self.source = (f"image {next(numbers)}",)
        kind = READABLE.get(array.dtype.name)
        tensor = torch.from_numpy(np.ascontiguousarray(array if kind is None else array.astype(kind)))
        self.nbytes = tensor.nbytes
        self.prepared: Future[tuple[Tensor, list[float] | None]] = background.submit(prepare, tensor)

    def first_axis(self) -> int:
        """Return the axis of a picture's only slice, else that of the largest spacing."""
        flat = [axis for axis, side in enumerate(self.shape) if side == 1]
        return flat[0] if flat else int(np.argmax(self.spacing))

    def volume(self, axis: int) -> MetaTensor:
        """Return it as (1, C, X, Y, Z), whose slices lie across an axis."""
        y, x = (other for other in range(3) if other != axis)
        image, bounds = self.prepared.result()
        meta = {} if bounds is None else {"percentiles": bounds}
        affine = torch.diag(
            torch.tensor([self.spacing[x], self.spacing[y], self.spacing[axis], 1.0], dtype=torch.float64)
        )
        return MetaTensor(image.permute(0, 1 + x, 1 + y, 1 + axis), affine=affine, meta=meta)[None]


def prepare(image: Tensor) -> tuple[Tensor, list[float] | None]:
    """Find the intensities that become black and white; nothing for a picture of bytes.

    Args:
        image: (C, A, B, D) of any numbers; what is no finite number becomes the least one.
    """
    if image.dtype == torch.uint8 and 1 in image.shape[1:]:
        return image, None
    if image.is_floating_point():
        finite = image.isfinite()
        if not finite.all():
            image = image.where(finite, image[finite].min() if finite.any() else torch.zeros((), dtype=image.dtype))
    return image, intensity_bounds(image)
