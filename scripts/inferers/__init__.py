# SPDX-License-Identifier: Apache-2.0
"""Inferers that MONAI lacks."""

from .prompted_slices import PromptedSliceInferer

__all__ = ["PromptedSliceInferer"]
