# SPDX-License-Identifier: Apache-2.0
"""The simulated user of training and of evaluation."""

from .corrections import correction_click
from .evaluation import SimulatedUser
from .training import IterativeClicks

__all__ = ["IterativeClicks", "SimulatedUser", "correction_click"]
