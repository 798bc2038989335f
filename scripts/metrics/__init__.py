# SPDX-License-Identifier: Apache-2.0
"""Metrics that MONAI lacks, and how objects and prompts are told apart."""

from .declare import object_metrics
from .floors import FloorOfPrompt
from .interaction import BackgroundFlips, ClickCurveArea, ClickFailures, NumberOfClicks, SelectPredictedIoU, SelectTrace
from .of_prompt import ObjectMetric, SelectPromptKind
from .threshold_average import ThresholdAverage

__all__ = [
    "BackgroundFlips",
    "ClickCurveArea",
    "ClickFailures",
    "FloorOfPrompt",
    "NumberOfClicks",
    "ObjectMetric",
    "SelectPredictedIoU",
    "SelectPromptKind",
    "SelectTrace",
    "ThresholdAverage",
    "object_metrics",
]
