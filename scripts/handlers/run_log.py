# SPDX-License-Identifier: Apache-2.0
"""All that a run says goes into a file, and what nobody need read meanwhile goes there alone."""

import logging
from pathlib import Path

from ignite.engine import Engine, Events

LOGGERS = (None, "monai.handlers.StatsHandler")  # the root, and one that has a handler of its own
DETAILS = ("scripts.handlers.report",)  # loggers
NOISE = ("Engine run ", "Epoch[", "Epoch: ", "Got new best metric ", "Key metric: ")  # how lines of engines begin
PLAIN = "%(asctime)s - %(levelname)s - %(name)s: %(message)s"


class RunLog:
    """Write the log of a training to ``log.txt``, and keep off the console what :class:`EpochTable` says there.

    Warnings and errors are on both. A run that goes on writes to the end of the file.

    Args:
        output_dir: folder of the file.
    """

    def __init__(self, output_dir: str) -> None:
        self.path = Path(output_dir) / "log.txt"
        self.file: logging.Handler | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before the handlers that say something when it starts."""
        for logger in map(logging.getLogger, LOGGERS):
            for handler in logger.handlers:  # engines speak before they start and after they are done
                handler.addFilter(is_worth_saying)
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Open the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = logging.FileHandler(self.path, encoding="utf-8")
        self.file.setFormatter(logging.Formatter(PLAIN))
        for logger in map(logging.getLogger, LOGGERS):
            logger.addHandler(self.file)

    def finish(self, engine: Engine) -> None:
        """Close the file."""
        if self.file is not None:
            for logger in map(logging.getLogger, LOGGERS):
                logger.removeHandler(self.file)
            self.file.close()
        self.file = None

    def fail(self, engine: Engine, error: Exception) -> None:
        """Close the file, and leave the error to others.

        Args:
            engine: that failed.
            error: what it raised.
        """
        self.finish(engine)
        raise error


def is_worth_saying(record: logging.LogRecord) -> bool:
    """Return whether a record is for the console."""
    if record.levelno >= logging.WARNING:
        return True
    return record.name not in DETAILS and not record.getMessage().startswith(NOISE)
