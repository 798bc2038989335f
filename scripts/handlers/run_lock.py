# SPDX-License-Identifier: Apache-2.0
"""The folders of a run: one run at a time, and nothing of an earlier one lost without a word."""

import logging
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
from filelock import FileLock, Timeout
from ignite.engine import Engine

from ..errors import InputError

logger = logging.getLogger(__name__)

LOCK = ".training.lock"


class RunLock:
    """Keep the folders that a run writes to for itself, until its process ends, however it ends.

    Args:
        folders: of checkpoints first, then of logs.
        fresh: whether the run begins anew; then a ``model.pt`` of an earlier one is kept as ``previous.pth``.
    """

    def __init__(self, folders: Sequence[str], fresh: bool) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.fresh = fresh
        self.locks: list[FileLock] = []

    def attach(self, engine: Engine) -> None:
        """Take the folders, for all processes of the run.

        Raises:
            InputError: when another run has one of them, or it cannot be written to.
        """
        if idist.get_rank() > 0:
            return
        for folder in dict.fromkeys(folder.resolve() for folder in self.folders):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(folder / LOCK, timeout=0)
                lock.acquire()
            except Timeout as error:
                raise InputError(
                    f"another run writes to {folder}: wait for it, or give --ckpt_dir and --output_dir of its own"
                ) from error
            except OSError as error:
                raise InputError(f"{folder} cannot be written to: {error.strerror or error}") from error
            self.locks.append(lock)
            weakref.finalize(self, give_back, lock)  # also at the end of the process
        model = self.folders[0] / "model.pt"
        if self.fresh and model.is_file():
            shutil.copyfile(model, self.folders[0] / "previous.pth")
            logger.info(f"{model} of an earlier run is kept as {self.folders[0] / 'previous.pth'}")


def give_back(lock: FileLock) -> None:
    """Remove a lock's file and release the lock; what a process that was killed leaves is taken by the next."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
