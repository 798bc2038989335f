# SPDX-License-Identifier: Apache-2.0
"""The real plugin in a real window of napari: open, initialize, click, and see the mask."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.e2e.bundle import ENVIRONMENT, ROOT
from tests.serve.serving import SHAPE, Server, dice, organ

pytestmark = pytest.mark.slow
VENV = ROOT / ".venv-napari"


def test_one_click_in_napari_gives_a_mask(tmp_path):
    if not (VENV / "installed").is_file() or shutil.which("xvfb-run") is None:
        pytest.skip("needs xvfb and make napari-setup")
    noise = np.random.RandomState(0).normal(0, 30, SHAPE)
    np.save(tmp_path / "scan.npy", (1000 * organ() + noise).astype(np.int16))
    window, mask = tmp_path / "window.png", tmp_path / "mask.npy"
    with Server() as server:
        session = [VENV / "bin" / "python", ROOT / "tests" / "serve" / "napari_session.py", server.url]
        session += [tmp_path / "scan.npy", "2,1,1", "14,18,22", mask, window]
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1440x960x24"]
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "HOME": str(tmp_path),
            "PYTHONPATH": "",  # napari needs scikit-image
            "QT_QPA_PLATFORM": "xcb",
            "LIBGL_ALWAYS_SOFTWARE": "1",
        }
        done = subprocess.run([*screen, *session], env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    assert dice(np.load(mask), organ()) > 0.9
    shown = np.asarray(Image.open(window))
    assert shown.shape[1] > 1000 and shown.std() > 10  # a window, and not a black one
