# SPDX-License-Identifier: Apache-2.0
"""The one place that turns axes: readers give (x, y), networks and pictures want (rows, columns)."""

from typing import TypeVar

import numpy as np
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def upright(array: Array) -> Array:
    """Turn (..., X, Y) into (..., H, W), or back: rows are y and columns are x."""
    return array.swapaxes(-1, -2)
