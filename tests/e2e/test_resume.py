# SPDX-License-Identifier: Apache-2.0
"""A run that is killed and resumed ends exactly where one ends that was left alone."""

import signal
import time

import pytest
import torch

from scripts.networks.adapters.files import read_adapter
from tests.e2e.bundle import SMALL, TRAIN, places, run, run_warm, start
from tests.e2e.logs import epochs_of, read_log

pytestmark = pytest.mark.slow

EPOCHS = 4


def wait_for(condition, process, seconds=240):
    """Wait for something that a process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def load(path):
    return torch.load(path, weights_only=True)


def last_score(folder):
    """The last validation's key metric, in full, and its epoch."""
    event = read_log(folder / "eval" / "tensorboard").Scalars("dice/click_1")[-1]
    return event.step, event.value


def test_a_killed_run_resumes_to_the_same_end(dataset, folder):
    settings = {**SMALL, "max_epochs": EPOCHS, "dataset_dir": dataset}
    whole = run_warm("training", TRAIN, **settings, **places(folder / "whole"))
    assert whole.code == 0, whole.err

    log, models = folder / "killed.log", folder / "killed" / "models"
    process = start("training", TRAIN, log, **settings, **places(folder / "killed"))
    try:
        wait_for(lambda: 2 in epochs_of(log.read_text()), process)
        time.sleep(0.2)  # into the third epoch
    finally:
        process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert epochs_of(log.read_text()) == [1, 2]
    assert load(models / "last.pth")["trainer"]["iteration"] == 2 * 3
    assert not (models / "model_final.pt").exists()

    resumed = run("training", TRAIN, **settings, **places(folder / "killed"), resume_path=models / "last.pth")
    assert resumed.code == 0, resumed.err
    assert f"resumed {models}/last.pth after epoch 2" in resumed.out
    assert epochs_of(resumed.out) == list(range(3, EPOCHS + 1))
    assert last_score(folder / "killed") == last_score(folder / "whole")
    for name in ("model_final.pt", "model.pt"):
        ours, theirs = (load(path / name)["model"] for path in (models, folder / "whole" / "models"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items()), name
    best = load(models / "model.pt")["model"]
    kept = read_adapter(models / "adapter.safetensors")["adapter"]
    assert all(torch.equal(value, best[key].half()) for key, value in kept.items())
