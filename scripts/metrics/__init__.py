# SPDX-License-Identifier: Apache-2.0
"""Metrics that MONAI lacks, and how objects and prompts are told apart."""

from .factory import make_metrics
from .interaction import (
    BackgroundFlips,
    ClickCurveArea,
    ClickFailures,
    NumberOfClicks,
    SelectClickTrace,
    SelectPredictedIoU,
)
from .selectors import ObjectMetric, SelectPromptKind
from .shape_baselines import PromptShapeBaseline
from .threshold_average import ThresholdAverage

__all__ = [
    "BackgroundFlips",
    "ClickCurveArea",
    "ClickFailures",
    "NumberOfClicks",
    "ObjectMetric",
    "PromptShapeBaseline",
    "SelectClickTrace",
    "SelectPredictedIoU",
    "SelectPromptKind",
    "ThresholdAverage",
    "make_metrics",
]
