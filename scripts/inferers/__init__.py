# SPDX-License-Identifier: Apache-2.0
"""Inferers that MONAI lacks."""

from .end_of_object import EndOfObject
from .everything import EverythingInferer
from .prompted_slices import PromptedSliceInferer
from .spread import SpreadInferer

__all__ = ["EndOfObject", "EverythingInferer", "PromptedSliceInferer", "SpreadInferer"]
