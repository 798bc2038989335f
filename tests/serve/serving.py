# SPDX-License-Identifier: Apache-2.0
"""A server of its own thread, volumes with a tilted organ, and a network that is quick to tell it."""

import contextlib
import threading
import time

import httpx
import numpy as np
import uvicorn

from apps.common.listening import listen_at
from apps.common.weights import Answering
from apps.serve.app import make_app
from scripts.inferers import SpreadInferer
from scripts.transforms import ToRGB
from tests.inferers.brightness import BrightnessNetwork

SHAPE = (30, 40, 48)  # slices, rows, columns
CENTRE, RADII = (14.0, 18.0, 22.0), (8.0, 9.0, 12.0)
KEY = "the key"


def organ(shape=SHAPE, centre=CENTRE, radii=RADII, tilt=0.6):
    """An ellipsoid whose middle moves from slice to slice, (slices, rows, columns) bool."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    x = x - tilt * (z - centre[0])
    return sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radii)) < 1


def scan(truth):
    """A scan (1, slices, rows, columns) int16 in which an organ is bright."""
    return (1000 * truth[None] - 500).astype(np.int16)


def fake_answering(**settings):
    inferer = SpreadInferer(to_rgb=ToRGB(), **settings)
    return Answering(BrightnessNetwork(), 0, None, inferer, [])


def dice(found, truth):
    return 2 * np.logical_and(found, truth).sum() / (found.sum() + truth.sum())


class Server:
    """A server on a free port of the loopback, while the context lasts.

    Args:
        answering: gives weights.
        settings: of :func:`apps.serve.app.make_app`.
    """

    def __init__(self, answering=None, **settings):
        kept = fake_answering() if answering is None else None
        app = make_app(answering or (lambda: kept), **settings)
        self.socket = listen_at("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self):
        self.thread.start()
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz").json() == {"ok": True}:
                    return self
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def __exit__(self, *args):
        self.server.should_exit = True
        self.thread.join(10)
