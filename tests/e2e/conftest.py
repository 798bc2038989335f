# SPDX-License-Identifier: Apache-2.0
"""Runs that several tests look at, each made once, and folders that give their megabytes back."""

import shutil

import pytest

from tests.e2e.bundle import EVALUATE, SMALL, TRAIN, places, run, run_warm
from tests.e2e.datasets import make_folder


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("e2e")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def dataset(shared):
    """Eight pictures of 64 pixels: six train and two validate."""
    return make_folder(shared / "data")


@pytest.fixture(scope="session")
def trained(shared, dataset):
    """A training run of two epochs: what it printed, and its folder."""
    folder = shared / "trained"
    result = run("training", TRAIN, **{**SMALL, "max_epochs": 2}, dataset_dir=dataset, **places(folder))
    assert result.code == 0, result.err
    return result, folder


@pytest.fixture(scope="session")
def evaluated(shared, dataset, trained):
    """Two evaluations of that run's best weights, one in a new interpreter, with their folders."""
    results = []
    for name, execute in (("first", run), ("second", run_warm)):
        where = {**places(shared / name), "ckpt_dir": trained[1] / "models"}
        result = execute("evaluating", EVALUATE, **SMALL, dataset_dir=dataset, **where)
        assert result.code == 0, result.err
        results.append((result, shared / name / "eval"))
    return results
