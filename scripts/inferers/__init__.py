# SPDX-License-Identifier: Apache-2.0
"""Inferers that MONAI lacks."""

from .everything import EverythingInferer
from .prompted_slices import PromptedSliceInferer

__all__ = ["EverythingInferer", "PromptedSliceInferer"]
