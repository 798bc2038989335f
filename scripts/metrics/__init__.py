# SPDX-License-Identifier: Apache-2.0
"""Metrics that MONAI lacks, and how objects and prompts are told apart."""

from .floors import FloorOfPrompt
from .interaction import BackgroundFlips, ClickFailures, NumberOfClicks, OfFlips, OfPredictedIoU, OfTrace
from .of_prompt import ObjectMetric, OfPrompt
from .threshold_average import ThresholdAverage

__all__ = [
    "BackgroundFlips",
    "ClickFailures",
    "FloorOfPrompt",
    "NumberOfClicks",
    "ObjectMetric",
    "OfFlips",
    "OfPredictedIoU",
    "OfPrompt",
    "OfTrace",
    "ThresholdAverage",
]
