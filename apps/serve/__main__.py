# SPDX-License-Identifier: Apache-2.0
"""Serve 3D Slicer, napari and ITK-SNAP: python -m apps.serve, which is what make serve does."""

import argparse
import logging
import os
import socket
import sys
import warnings

import torch

from apps.common.errors import RequestError
from apps.common.listening import listen_at
from apps.common.weights import Answering, Served, find_weights
from scripts.errors import InputError
from scripts.export import AUTO, BACKENDS, choose_backend

try:
    from .app import LOOPBACK, make_app
    from .keeping import Keeper
except ModuleNotFoundError as missing:
    NEEDED = "pip install fastapi uvicorn python-multipart nninteractive-client"
    sys.exit(f"error: the server takes {missing.name}, which is not installed: {NEEDED}")

PORT, SNAP_PORT = 1527, 8911  # where the clients look first
READY = """
Ready, with {weights}, on {device} by {backend}. Stop by Ctrl-C.
  3D Slicer  module nnInteractive, tab Configuration, server URL: {address}
  napari     plugin nnInteractive, Remote, URL: {address}
  ITK-SNAP   Deep Learning Segmentation, local server {host}, port {snap_port}
  {key}
  {kept}
How each works, step by step: docs/annotate.md
"""

logger = logging.getLogger("apps.serve")


def main() -> None:
    """Read the command line, load the weights, and serve until stopped."""
    parser = argparse.ArgumentParser("make serve", description="Serve 3D Slicer, napari and ITK-SNAP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; this machine alone by default")
    parser.add_argument("--port", type=int, default=PORT, help="for 3D Slicer and napari")
    parser.add_argument("--itksnap-port", type=int, default=SNAP_PORT, help="for ITK-SNAP")
    parser.add_argument("--api-key", default=os.environ.get("API_KEY"), help="password of clients, or $API_KEY")
    parser.add_argument("--hosts", default="", help="other names of this server, parted by commas")
    parser.add_argument("--weights", default=None, help="a file of models/; the best there is by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", default=AUTO, choices=BACKENDS)
    parser.add_argument("--most-sessions", type=int, default=8, help="clients at a time")
    parser.add_argument("--idle-seconds", type=float, default=600.0, help="after which an unused session ends")
    parser.add_argument(
        "--keep", default=None, help="folder that keeps what is segmented, to train on; without it nothing is kept"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        serve(options)
    except (RequestError, InputError) as error:
        sys.exit(f"error: {error}")


def serve(options: argparse.Namespace) -> None:
    """Serve until stopped.

    Args:
        options: of the command line.
    """
    sockets = [listen(options.host, port) for port in (options.port, options.itksnap_port)]
    backend = choose_backend(options.backend, options.device)
    served = Served(backend)

    def answering() -> Answering:
        return served.use(find_weights(options.weights), options.device)

    answering()  # what is wrong with the weights is said now, and the first client does not wait
    hosts = [each for each in (options.host, *options.hosts.split(",")) if each]
    keeper = Keeper(options.keep) if options.keep else None
    finish = keeper or (lambda annotation: None)
    app = make_app(answering, options.api_key, hosts, options.most_sessions, options.idle_seconds, finish=finish)
    address = f"http://{LOOPBACK[0] if options.host == '0.0.0.0' else options.host}"
    key = (
        "API key    the one that you gave; ITK-SNAP has none to give, and is not served"
        if options.api_key
        else ("API key    none; --api-key sets one")
    )
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    print(
        READY.format(
            weights=find_weights(options.weights).name,
            device=options.device,
            backend=backend,
            address=f"{address}:{options.port}",
            host=address.removeprefix("http://"),
            snap_port=options.itksnap_port,
            key=key,
            kept=f"Kept       images, masks and prompts of finished objects, in {keeper.folder}"
            if keeper
            else ("Kept       nothing; --keep DIR keeps finished objects, to train on"),
        ),
        flush=True,
    )
    server.run(sockets=sockets)


def listen(host: str, port: int) -> socket.socket:
    """Take a port.

    Args:
        host: address.
        port: of it; 0 takes a free one.

    Raises:
        InputError: when it is taken, or there is no such address.
    """
    try:
        return listen_at(host, port)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host}, port {port}: {error}; choose another by --port or --itksnap-port"
        ) from error


if __name__ == "__main__":
    main()
