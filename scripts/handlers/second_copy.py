# SPDX-License-Identifier: Apache-2.0
"""A second copy of what a run needs to go on, elsewhere: a machine that goes takes its disk along."""

import logging
import shutil
import time
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from ..io.whole_files import written_whole

logger = logging.getLogger(__name__)


class SecondCopy:
    """Copy a file to another folder from time to time, whole. A folder that cannot be written to stops no run.

    Attach it after what writes the file.

    Args:
        path: of the file.
        folder: for the copy; nothing copies nothing.
        minutes: between two copies; the first is made after the first epoch.
    """

    def __init__(self, path: str, folder: str | None, minutes: float = 30) -> None:
        self.path = Path(path)
        self.folder = folder
        self.seconds = 60 * minutes
        self.last: float | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if self.folder is not None and idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)
            engine.add_event_handler(Events.COMPLETED, self.copy)

    def __call__(self, engine: Engine) -> None:
        now = time.monotonic()
        if self.last is None or now - self.last >= self.seconds:
            self.last = now
            self.copy(engine)

    def copy(self, engine: Engine) -> None:
        """Copy the file now."""
        target = Path(str(self.folder)) / self.path.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(target) as path:
                shutil.copyfile(self.path, path)
        except OSError as error:
            logger.warning(f"no second copy of {self.path} in {self.folder}: {error.strerror or error}")
