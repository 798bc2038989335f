# SPDX-License-Identifier: Apache-2.0
"""Metrics that MONAI lacks, and how objects and prompts are told apart."""

from .of_prompt import OfPrompt
from .threshold_average import ThresholdAverage

__all__ = ["OfPrompt", "ThresholdAverage"]
