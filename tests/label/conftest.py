# SPDX-License-Identifier: Apache-2.0
"""One server for the tests that only ask."""

import shutil

import pytest

from tests.label.server import Server, copy_bundle, require_environment
from tests.label.studies import make_studies


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A server of the base weights on a folder of volumes and pictures, and the truth of each."""
    require_environment()
    folder = tmp_path_factory.mktemp("label")
    truths = make_studies(folder / "studies")
    server = Server(copy_bundle(folder), str(folder / "studies"), {"labels": "lesion, vessel"}).start()
    yield server, truths
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def server(served):
    return served[0]


@pytest.fixture
def truths(served):
    return served[1]
