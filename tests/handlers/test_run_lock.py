# SPDX-License-Identifier: Apache-2.0
"""Folders of a run: for itself alone, tidied, and what lay there kept."""

import gc
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from ignite.engine import Engine

from scripts.errors import InputError
from scripts.handlers import RunLock

FORKS = multiprocessing.get_context("fork")


def take(*folders, fresh=True):
    folders = RunLock([str(folder) for folder in folders], fresh)
    folders.attach(Engine(lambda engine, batch: None))
    return folders


def hold(folder, held, seconds):
    """Be a run that has a folder for so long."""
    folders = take(folder)  # noqa: F841
    held.set()
    time.sleep(seconds)


def test_a_second_run_is_refused_until_the_first_has_ended_even_by_a_kill(tmp_path):
    held = FORKS.Event()
    other = FORKS.Process(target=hold, args=(tmp_path / "models", held, 60))
    other.start()
    assert held.wait(60)
    try:
        with pytest.raises(InputError, match=r"another run writes to .*models: wait for it"):
            take(tmp_path / "models", tmp_path / "eval")
    finally:
        other.kill()
        other.join()
    take(tmp_path / "models", tmp_path / "eval")


def test_the_same_folder_for_both_is_no_second_run(tmp_path):
    assert len(take(tmp_path, tmp_path).locks) == 1


@pytest.mark.parametrize("fresh", [True, False])
def test_the_model_of_an_earlier_run_is_kept_by_a_fresh_one(tmp_path, fresh):
    (tmp_path / "model.pt").write_text("earlier")
    take(tmp_path, fresh=fresh)
    assert (tmp_path / "previous.pth").exists() == fresh
    assert not fresh or (tmp_path / "previous.pth").read_text() == "earlier"


def test_a_users_files_and_folders_stay_whatever_they_are_called(tmp_path):
    """Files of eight letters behind tmp were deleted, and a folder of such a name ended the run."""
    (tmp_path / "tmpfolder_1").mkdir()
    for name in ("tmpab12cd_9", "template", "model.pt"):
        (tmp_path / name).write_text("")
    before = sorted(os.listdir(tmp_path))
    folders = take(tmp_path, fresh=False)
    assert sorted(os.listdir(tmp_path)) == sorted([*before, ".training.lock"])
    del folders
    gc.collect()
    assert sorted(os.listdir(tmp_path)) == before


def test_nothing_is_left_of_a_run_that_ended(tmp_path):
    code = "import sys; from tests.handlers.test_run_lock import take; folders = take(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        take(tmp_path / "file" / "models")
