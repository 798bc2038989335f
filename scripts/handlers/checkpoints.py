# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a kill at any moment."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver

from ..errors import InputError


class _ReplacingSaver(DiskSaver):
    """Write one file under a fixed name, beside it first, so that a whole one is always there."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path.parent), atomic=True, create_dir=True, require_empty=False)
        self.name = path.name

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        super().__call__(checkpoint, self.name, metadata)

    def remove(self, filename: str) -> None:
        pass  # the next write replaces the file in one step


class CheckpointFile:
    """Keep one checkpoint file up to date: the best by a metric, or the latest.

    MONAI's CheckpointSaver removes the old file before it writes the new one, has no fixed name for the latest, and
    cannot save what it knows of the best; a run that is killed or resumed needs all three.

    Args:
        path: of the file.
        save_dict: objects with a ``state_dict``, by name; a single one is saved bare.
        metric: name of the metric, higher is better, whose best value decides; without, every event saves.
        event: ``"EPOCH_COMPLETED"`` or ``"COMPLETED"``.
    """

    def __init__(
        self, path: str, save_dict: Mapping[str, Any], metric: str | None = None, event: str = "EPOCH_COMPLETED"
    ) -> None:
        self.event = Events[event]
        self.metric = metric
        self.checkpoint = Checkpoint(
            dict(save_dict),
            _ReplacingSaver(Path(path)),
            n_saved=1,
            score_name=metric,
            score_function=None if metric is None else self.score,
        )

    def score(self, engine: Engine) -> float:
        """Give the value that decides.

        Raises:
            InputError: when it is not a number, by which nothing can be the best.
        """
        value = engine.state.metrics[self.metric]
        if math.isnan(value):
            raise InputError(
                f"the best weights are chosen by {self.metric}, which was not measured: keep its kind of prompt in "
                "val_prompts"
            )
        return value

    def attach(self, engine: Engine) -> None:
        """Save on events of a trainer, or of an evaluator where a metric decides."""
        engine.add_event_handler(self.event, self.checkpoint)

    def state_dict(self) -> Mapping:
        """Give what is known of the best so far."""
        return self.checkpoint.state_dict()

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Go on from what was known of the best."""
        self.checkpoint.load_state_dict(state_dict)


class Resume:
    """Load all that a run saved to go on, as soon as it is attached: a bad file stops a run before it starts.

    Args:
        path: of ``last.pth``.
        load_dict: the objects that it holds, by name.

    Raises:
        InputError: when the file is missing, unreadable, of another kind, or has no epoch left to train.
    """

    def __init__(self, path: str, load_dict: Mapping[str, Any]) -> None:
        if not Path(path).is_file():
            raise InputError(f"cannot resume: {path} does not exist")
        self.path = path
        self.load_dict = dict(load_dict)

    def attach(self, engine: Engine) -> None:
        try:
            checkpoint = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds for a bad file
            raise InputError(f"cannot resume: {self.path} is not a readable checkpoint (cut short?)") from error
        missing = [name for name in self.load_dict if not isinstance(checkpoint, dict) or name not in checkpoint]
        if missing:
            raise InputError(f"cannot resume: {self.path} holds no {', '.join(missing)}; give the last.pth of a run")
        max_epochs, batches = engine.state.max_epochs, engine.state.epoch_length
        scheduler = self.load_dict.get("lr_scheduler")
        ends = {name: getattr(scheduler, name) for name in ("t_total", "warmup_steps") if hasattr(scheduler, name)}
        try:
            Checkpoint.load_objects(self.load_dict, checkpoint)
        except InputError as error:
            raise InputError(f"cannot resume: {self.path} is of a run with other settings: {error}") from error
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"cannot resume: {self.path} is of a run with another network or data: {str(error).splitlines()[0]}"
            ) from error
        if engine.state.epoch_length != batches:
            raise InputError(
                f"cannot resume: {self.path} is of a run with another network or data: {engine.state.epoch_length} "
                f"batches in an epoch, now {batches} (batch_size times the number of processes stays the same)"
            )
        if engine.state.epoch >= max_epochs:
            raise InputError(
                f"{self.path} has {engine.state.epoch} epochs already: give a larger max_epochs than {max_epochs}"
            )
        engine.state.max_epochs = max_epochs
        if scheduler is not None and any(getattr(scheduler, name) != value for name, value in ends.items()):
            vars(scheduler).update(ends)  # the schedule of all epochs there are now, not of those there were
            for group, base, factor in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas):
                group["lr"] = base * factor(scheduler.last_epoch)
            engine.logger.info(f"the learning rate now falls until epoch {max_epochs}")
        engine.logger.info(f"resumed {self.path} after epoch {engine.state.epoch}")
