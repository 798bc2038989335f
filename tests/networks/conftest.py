# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in files that give their megabytes back."""

import pytest
import torch


@pytest.fixture
def save(tmp_path):
    """Save a checkpoint, and remove the megabytes afterwards."""
    paths = []

    def write(checkpoint, name="weights.pt"):
        paths.append(tmp_path / name)
        torch.save(checkpoint, paths[-1])
        return paths[-1]

    yield write
    for path in paths:
        path.unlink(missing_ok=True)
