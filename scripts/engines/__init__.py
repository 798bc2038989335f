# SPDX-License-Identifier: Apache-2.0
"""The simulated user of training and of evaluation, and prediction that goes on."""

from .evaluation import EvaluationSimulator
from .prediction import AttemptEach
from .training import TrainingSimulator
from .volumes import VolumeSimulator

__all__ = ["AttemptEach", "EvaluationSimulator", "TrainingSimulator", "VolumeSimulator"]
