# SPDX-License-Identifier: Apache-2.0
"""Who is served: each client holds a lease, which ends when it is given back, not used, or its client is gone."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import psutil

from apps.common.errors import RequestError

from .annotation import Annotation

Finish = Callable[[Annotation], None]


class AtCapacityError(Exception):
    """As many clients as there may be are served."""


class LeaseGoneError(Exception):
    """A client has no lease, or no longer."""


@dataclass
class Lease:
    """What a client holds."""

    annotation: Annotation | None = None
    dtype: np.dtype = np.dtype("uint8")  # noqa: RUF009 (it never changes) of the masks that the client wants
    spreads: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0  # requests that are being answered
    used: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)

    @property
    def object(self) -> Annotation:
        """Return what the client works on.

        Raises:
            RequestError: when it has sent no image.
        """
        if self.annotation is None:
            raise RequestError("there is no image yet: send one first")
        return self.annotation


class Leases:
    """Give out leases.

    Args:
        most: at a time.
        idle_seconds: after which a lease ends that is not used.
        liveness_seconds: after which it ends when nothing is heard of its client; nothing does not end it.
        finish: is given what a client works on when it leaves it.
        most_bytes: of the images of all clients.
    """

    def __init__(
        self,
        most: int,
        idle_seconds: float,
        liveness_seconds: float | None,
        finish: Finish = lambda annotation: None,
        most_bytes: int = psutil.virtual_memory().total // 4,
    ) -> None:
        self.most = most
        self.idle_seconds = idle_seconds
        self.liveness_seconds = liveness_seconds
        self.finish = finish
        self.most_bytes = most_bytes
        self.held: dict[str, Lease] = {}
        self.lock = threading.Lock()

    def claim(self) -> str:
        """Give a lease.

        Returns:
            Its token.

        Raises:
            AtCapacityError: when all are held.
        """
        self.reap()
        with self.lock:
            if len(self.held) >= self.most:
                raise AtCapacityError(f"{self.most} clients are served, which is the most: try again later")
            token = secrets.token_hex(16)
            self.held[token] = Lease()
            return token

    def release(self, token: str | None) -> bool:
        """Take a lease back.

        Args:
            token: of it; one that is not known does no harm.
        """
        with self.lock:
            lease = self.held.pop(token or "", None)
        if lease is not None and lease.annotation is not None:
            with lease.lock:
                self.finish(lease.annotation)
        return lease is not None

    def begin(self, lease: Lease, annotation: Annotation) -> None:
        """Let a client work on another image.

        Args:
            lease: of the client, which is held.
            annotation: the image, with nothing said of it.

        Raises:
            RequestError: when the images of all clients are too large; the client keeps the one that it had.
        """
        with self.lock:
            others = [each.annotation for each in self.held.values() if each is not lease and each.annotation]
        size = sum(each.nbytes for each in [*others, annotation])
        if size > self.most_bytes:
            raise RequestError(
                f"the images of all clients would take {size / 2**30:.1f} GiB: this server has room for "
                f"{self.most_bytes / 2**30:.1f} GiB"
            )
        self.next_object(lease)
        lease.annotation = annotation

    def next_object(self, lease: Lease) -> None:
        """Let a client, who may have sent no image yet, go on to another object.

        Args:
            lease: of the client, which is held.
        """
        if lease.annotation is not None:
            self.finish(lease.annotation)
            lease.annotation.reset()

    def get(self, token: str | None) -> Lease:
        """Return a lease, whose client has been heard of.

        Args:
            token: of it.

        Raises:
            LeaseGoneError: when there is none.
        """
        self.reap()
        with self.lock:
            lease = self.held.get(token or "")
            if lease is None:
                raise LeaseGoneError("this session has ended: connect again")
            lease.seen = time.monotonic()
            return lease

    @contextmanager
    def use(self, token: str | None) -> Iterator[Lease]:
        """Hold a lease while a request is answered, one after the other.

        Args:
            token: of it.

        Raises:
            LeaseGoneError: when there is none.
        """
        lease = self.get(token)
        with self.lock:
            lease.busy += 1
        try:
            with lease.lock:
                yield lease
        finally:
            with self.lock:
                lease.busy -= 1
                lease.used = lease.seen = time.monotonic()

    def remaining(self, lease: Lease) -> float:
        """Return the seconds until a lease ends that is not used."""
        return max(0.0, self.idle_seconds - (time.monotonic() - lease.used))

    def reap(self) -> None:
        """End the leases whose time is over."""
        now = time.monotonic()
        with self.lock:
            over = [
                token
                for token, lease in self.held.items()
                if not lease.busy
                and (
                    now - lease.used > self.idle_seconds
                    or (self.liveness_seconds is not None and now - lease.seen > self.liveness_seconds)
                )
            ]
        for token in over:
            self.release(token)
