# SPDX-License-Identifier: Apache-2.0
"""Handlers that MONAI and Ignite lack."""

from .baseline_validation import BaselineValidation
from .checkpoints import CheckpointFiles
from .compact import Compact
from .curves import TrainingCurves
from .early_stop import EarlyStop
from .epoch_table import EpochTable
from .finite import StopOnNonFinite
from .gradient_clipping import GradientClipping
from .other_datasets import OtherDatasetScores
from .panels import ValidationPanels
from .predictions import PredictionSaver
from .rank_allocation import RankAllocation
from .report import MetricsReport
from .resources import CudaTimer, PeakMemory
from .resuming import RunState
from .run_lock import RunLock
from .run_log import RunLog
from .second_copy import SecondCopy
from .seeding import SeedEachEpoch
from .time_limit import TimeLimit

__all__ = [
    "BaselineValidation",
    "CheckpointFiles",
    "Compact",
    "CudaTimer",
    "EarlyStop",
    "EpochTable",
    "GradientClipping",
    "MetricsReport",
    "OtherDatasetScores",
    "PeakMemory",
    "PredictionSaver",
    "RankAllocation",
    "RunLock",
    "RunLog",
    "RunState",
    "SecondCopy",
    "SeedEachEpoch",
    "StopOnNonFinite",
    "TimeLimit",
    "TrainingCurves",
    "ValidationPanels",
]
