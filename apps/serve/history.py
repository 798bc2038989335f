# SPDX-License-Identifier: Apache-2.0
"""What an object is made of, and what each interaction changed of it, so that it can be taken back."""

import copy
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from scripts.inferers.session import ObjectView, PromptSession

from .interactions import Box, Interaction


@dataclass
class State:
    """What an object is made of so far."""

    interactions: list[Interaction] = field(default_factory=list)
    axis: int = 0  # across which its slices lie
    answers: dict[int, Tensor] = field(default_factory=dict)  # (H, W) bool of the slices that were prompted
    sessions: dict[int, PromptSession] = field(default_factory=dict)  # of these
    given: np.ndarray | None = None  # (A, B, C) bool, a segmentation to start from
    pending: bool = False  # whether something was said that is not answered yet

    def copy(self) -> "State":
        """Return a copy that later interactions leave as it is."""
        sessions = {k: copy.copy(session) for k, session in self.sessions.items()}
        for session in sessions.values():
            session.views = [ObjectView(view.crop, view.low, view.iou) for view in session.views]
        return State(list(self.interactions), self.axis, dict(self.answers), sessions, self.given, self.pending)


@dataclass
class Change:
    """What an interaction changed, so that it can be taken back."""

    state: State  # before
    place: Box | None
    before: np.ndarray | None  # the mask there


def difference(one: np.ndarray, other: np.ndarray) -> Box | None:
    """Return the box in which two masks differ; None where they are the same.

    Args:
        one: (A, B, D) uint8.
        other: likewise.
    """
    place = []
    differs = one != other
    for axis in range(differs.ndim):
        along = np.flatnonzero(differs.any(tuple(other for other in range(differs.ndim) if other != axis)))
        if not len(along):
            return None
        place.append((int(along[0]), int(along[-1]) + 1))
        differs = differs[tuple(slice(*place[-1]) if other == axis else slice(None) for other in range(differs.ndim))]
    return tuple(place)
