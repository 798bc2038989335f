# SPDX-License-Identifier: Apache-2.0
"""Handlers that MONAI and Ignite lack."""

from .checkpoints import CheckpointFiles
from .curves import TrainingCurves
from .early_stop import EarlyStop
from .finite import StopOnNonFinite
from .folders import RunFolders
from .forgetting import Forgetting
from .gradient_clipping import GradientClipping
from .outcome import Outcome
from .panels import ValidationPanels
from .predictions import PredictionSaver
from .report import MetricsReport
from .resources import CudaTimer, PeakMemory
from .resuming import RunState
from .seeding import SeedEachEpoch
from .time_left import TimeLeft
from .time_limit import TimeLimit

__all__ = [
    "CheckpointFiles",
    "CudaTimer",
    "EarlyStop",
    "Forgetting",
    "GradientClipping",
    "MetricsReport",
    "Outcome",
    "PeakMemory",
    "PredictionSaver",
    "RunFolders",
    "RunState",
    "SeedEachEpoch",
    "StopOnNonFinite",
    "TimeLeft",
    "TimeLimit",
    "TrainingCurves",
    "ValidationPanels",
]
