# SPDX-License-Identifier: Apache-2.0
"""OHIF in headless Chromium against Orthanc: connect, click, run; and a label that becomes a DICOM SEG."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.e2e.bundle import ROOT
from tests.label.server import require_environment

pytestmark = pytest.mark.slow

TOOLS = ("Orthanc", "chromium", "chromedriver", "unshare", "ip")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    require_environment()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)}: apt-get install orthanc orthanc-dicomweb chromium chromium-driver iproute2"
        )
    folder = tmp_path_factory.mktemp("ohif")
    command = f"ip link set lo up && exec {sys.executable} -m tests.label.ohif_session {folder}"
    result = subprocess.run(
        ["unshare", "-rn", "sh", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    assert result.returncode == 0, result.stderr[-3000:]
    yield json.loads(result.stdout.splitlines()[-1])
    shutil.rmtree(folder)


def test_a_click_in_the_browser_draws_a_mask_on_the_object(session):
    assert session["shape"] == [96, 80, 12] and len(session["slices"]) == 1
    assert session["dice"] > 0.75


def test_a_series_that_was_just_labelled_is_not_the_next_one(session):
    assert session["next"] == {}


def test_a_saved_label_is_a_dicom_seg_of_the_study(session):
    assert session["seg"] == {"modalities": ["CT", "SEG"], "label": "object", "dice": 1.0}
