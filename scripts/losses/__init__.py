# SPDX-License-Identifier: Apache-2.0
"""Losses that MONAI lacks."""

from .mask_loss import PromptedMaskLoss

__all__ = ["PromptedMaskLoss"]
