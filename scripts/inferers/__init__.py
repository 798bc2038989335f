# SPDX-License-Identifier: Apache-2.0
"""Inferers that MONAI lacks."""

from .everything import EverythingInferer
from .prompted_slices import PromptedSliceInferer
from .spread import EndOfObject, SpreadInferer

__all__ = ["EndOfObject", "EverythingInferer", "PromptedSliceInferer", "SpreadInferer"]
