# SPDX-License-Identifier: Apache-2.0
"""The server as a user starts it, with the weights of the bundle: it says what to type, and comes back after a kill."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from nnInteractive.inference.remote import SessionExpiredError, nnInteractiveRemoteInferenceSession

from tests.e2e.bundle import ENVIRONMENT, ROOT
from tests.serve.serving import SHAPE, dice, organ

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(*arguments):
    """Start the server, and wait until it says that it is ready."""
    command = [sys.executable, "-m", "apps.serve", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**ENVIRONMENT, "PYTHONPATH": os.environ["PYTHONPATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("How each works"):
            return process, said
    process.wait()
    return process, said


def noisy_scan():
    rng = np.random.RandomState(0)
    return (600 * organ()[None] + rng.normal(0, 30, (1, *SHAPE))).astype(np.int16)


def annotate(url, **settings):
    client = nnInteractiveRemoteInferenceSession(url, **settings)
    client.set_image(noisy_scan(), {"spacing": [2.0, 1.0, 1.0]})
    client.set_target_buffer(np.zeros(SHAPE, np.uint8))
    client.add_point_interaction([14, 18, 22], True)
    return client


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_one_click_finds_an_organ_and_a_killed_server_comes_back(backend):
    port, snap_port = free_port(), free_port()
    arguments = ["--port", port, "--itksnap-port", snap_port, "--backend", backend]
    process, said = start(*arguments)
    try:
        assert re.search(rf"napari .*http://127\.0\.0\.1:{port}\n", said) and f"port {snap_port}" in said
        assert f"efficient_sam_vitt_base.pth, on cpu by {backend}" in said
        client = annotate(f"http://127.0.0.1:{port}")
        first = client.target_buffer.copy()
        assert dice(first, organ()) > 0.8
        assert httpx.get(f"http://127.0.0.1:{snap_port}/status").json()["status"] == "ok"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(httpx.TransportError):
            client.add_point_interaction([14, 18, 22], True)
        process, _ = start(*arguments)
        with pytest.raises(SessionExpiredError, match="connect again"):
            client.add_point_interaction([14, 18, 22], True)
        client.close()
        again = annotate(f"http://127.0.0.1:{port}")
        assert np.array_equal(again.target_buffer, first)
        again.close()
    finally:
        process.send_signal(signal.SIGINT)
        stopped = time.monotonic()
        process.wait(20)
    assert time.monotonic() - stopped < 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weights", "mine.pt"], "there are no weights mine.pt: choose best, "),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
    ],
    ids=["weights", "host", "port"],
)
def test_what_cannot_be_served_is_one_sentence(arguments, sentence):
    process, said = start("--port", free_port(), "--itksnap-port", free_port(), *arguments)
    assert process.returncode == 1
    assert said.startswith("error: ") and sentence in said and len(said.splitlines()) == 1


def test_a_port_that_is_taken_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process, said = start("--port", taken.getsockname()[1], "--itksnap-port", free_port())
    assert process.returncode == 1 and "choose another by --port or --itksnap-port" in said


def test_a_key_is_asked_for():
    port = free_port()
    process, said = start("--port", port, "--itksnap-port", free_port(), "--api-key", "secret", "--backend", "torch")
    try:
        assert "the one that you gave" in said and "secret" not in said
        with pytest.raises(httpx.HTTPStatusError):
            annotate(f"http://127.0.0.1:{port}", api_key="wrong")
        client = annotate(f"http://127.0.0.1:{port}", api_key="secret")
        assert client.target_buffer.any()
        client.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
