# SPDX-License-Identifier: Apache-2.0
"""The simulated user of training and of evaluation, and prediction that goes on."""

from .evaluation import SimulatedUser
from .prediction import AttemptEach
from .training import IterativeClicks

__all__ = ["AttemptEach", "IterativeClicks", "SimulatedUser"]
