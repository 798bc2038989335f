# SPDX-License-Identifier: Apache-2.0
"""What is kept in memory between requests: up to so many bytes, and what was not used for longest goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Keep what is dear to make, for several threads.

    Args:
        most_bytes: of all that is kept; the latest stays whatever its size.
        size_of: gives the bytes of one.
    """

    def __init__(self, most_bytes: int, size_of: Callable[[T], int]) -> None:
        self.most_bytes = most_bytes
        self.size_of = size_of
        self.kept: OrderedDict[Hashable, T] = OrderedDict()
        self.making: dict[Hashable, Lock] = {}
        self.lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept, or make it; who asks for the same meanwhile waits, and who asks for another does not.

        Args:
            key: what tells it from others.
            make: makes it where it is not kept.
        """
        with self.lock:
            one_maker = self.making.setdefault(key, Lock())
        with one_maker:
            with self.lock:
                if key in self.kept:
                    self.kept.move_to_end(key)
                    return self.kept[key]
            value = make()
            with self.lock:
                self.kept[key] = value
                self.making.pop(key, None)
                while len(self.kept) > 1 and sum(map(self.size_of, self.kept.values())) > self.most_bytes:
                    self.kept.popitem(last=False)
            return value
