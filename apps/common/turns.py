# SPDX-License-Identifier: Apache-2.0
"""The network's turns: requests of several readers share it part by part, first come first served."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any


class Turns:
    """A lock that is given in the order of asking, so that a long request lets others in between its parts."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.waiting: deque[Event] = deque()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, and give the next one its own afterwards."""
        mine = Event()
        with self.lock:
            self.waiting.append(mine)
            if len(self.waiting) == 1:
                mine.set()
        mine.wait()
        try:
            yield
        finally:
            with self.lock:
                self.waiting.popleft()
                if self.waiting:
                    self.waiting[0].set()


class TakingTurns:
    """A network whose encoder and decoder wait for their turn.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        turns: shared by all networks, since they share the processor.
    """

    WAITING = ("encode_image", "decode_best", "upscale")

    def __init__(self, network: Any, turns: Turns) -> None:
        self.network = network
        self.turns = turns

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.network, name)
        if name not in self.WAITING:
            return found

        def in_turn(*args: Any, **kwargs: Any) -> Any:
            with self.turns.take():
                return found(*args, **kwargs)

        return in_turn
