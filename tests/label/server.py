# SPDX-License-Identifier: Apache-2.0
"""The app as an annotator's team runs it: a copy of the bundle, a server of its own process, 3D Slicer's own client."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import itk
import numpy as np
import pytest

from tests.e2e.bundle import ENVIRONMENT, ROOT

VENV = ROOT / ".venv-label"
PLUGIN = VENV / "monailabel" / "plugins" / "slicer" / "MONAILabel"
SECONDS = 120  # for a start or a training


def require_environment():
    """Make 3D Slicer's client importable from the server's environment; whatever both have comes from ours."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("MONAI Label 0.8.5 needs Python 3.11")
    assert (VENV / "installed").is_file(), "the server's environment is missing: make label-setup"
    for path in (PLUGIN / "MONAILabelLib", next(VENV.glob("lib/python*/site-packages"))):
        if str(path) not in sys.path:
            sys.path.append(str(path))


def copy_bundle(folder):
    """Copy what a server changes, link what it reads and the exported weights; give the copy's root."""
    root = folder / "bundle"
    (root / "models").mkdir(parents=True)
    shutil.copy(ROOT / "models" / "efficient_sam_vitt_base.pth", root / "models")
    shutil.copytree(ROOT / "apps", root / "apps")
    for name in ("configs", "scripts", "docs"):
        (root / name).symlink_to(ROOT / name)
    exported = ROOT / ".cache" / "exported"  # named by the weights that they come from; writing them takes a minute
    exported.mkdir(parents=True, exist_ok=True)
    (root / ".cache").mkdir()
    (root / ".cache" / "exported").symlink_to(exported)
    return root


@dataclass
class Server:
    """A server in a process group of its own; ``log`` is what it has printed."""

    root: Path
    studies: str
    conf: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None

    def command(self):
        conf = [word for key, value in self.conf.items() for word in (f"--{key}", value)]
        serve = self.root / "apps" / "label" / "serve.py"
        return [VENV / "bin" / "python", serve, "--studies", self.studies, "--port", str(self.port), *conf]

    def start(self, port=None, ready=200):
        import client  # of the plugin

        with socket.socket() as free:
            free.bind(("127.0.0.1", port or 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = open(self.root / "server.log", "a")
        environment = {
            "PATH": f"{VENV}/bin:/usr/bin:/bin:/usr/sbin",
            "HOME": str(self.root),
            **ENVIRONMENT,
            **self.environment,
        }
        self.process = subprocess.Popen(
            self.command(), stdout=self.file, stderr=self.file, env=environment, cwd=self.root, start_new_session=True
        )
        wait_for(lambda: f"Ready: {self.url}" in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log[-3000:]
        wait_for(lambda: self.status("/info/") == ready)
        self.client = client.MONAILabelClient(self.url, str(self.root), "tester")
        return self

    @property
    def log(self):
        return (self.root / "server.log").read_text()

    def status(self, path):
        """Give the status of a GET."""
        try:
            with urllib.request.urlopen(self.url + path) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def stop(self, sign=signal.SIGKILL):
        """End the server, and a training with it where it is killed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, sign)
        self.process.wait(timeout=30)
        self.file.close()

    def infer(self, image, dimension=2, **params):
        """Ask for a mask as 3D Slicer does; give it as (X, Y[, Z]), and what is told of it."""
        params = {"label": "object", "result_extension": ".nrrd", "result_dtype": "uint8", **params}
        path, told = self.client.infer(f"efficientsam_{dimension}d", image, params)
        mask = itk.imread(path)
        return np.asarray(mask).T.copy(), told, mask

    def train(self, **params):
        """Train as 3D Slicer does, which sends an empty run id, and wait; give the task."""
        sent = {"max_epochs": 1, "val_split": 0.25, "run_id": "", "device": "cpu", "pretrained": True, **params}
        self.client.train_start("efficientsam", sent)
        wait_for(lambda: self.client.train_status()["status"] in ("DONE", "ERROR"))
        return self.client.train_status()


def wait_for(condition, seconds=SECONDS):
    """Poll until something is so, or there; give it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)
    return value


def dice(one, other):
    """Give the Dice of two masks."""
    one, other = one > 0, other > 0
    return 2 * (one & other).sum() / max(one.sum() + other.sum(), 1)
