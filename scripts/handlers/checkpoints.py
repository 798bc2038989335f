# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that survive a kill at any moment."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from monai.engines import Trainer

from ..errors import InputError
from ..networks.checkpoint_file import upgrade_names


class _ReplacingSaver(DiskSaver):
    """Write files under fixed names, each beside its place first, so that a whole one is always there.

    Args:
        folder: to write to.
        files: their names.
    """

    def __init__(self, folder: str, files: Sequence[str]) -> None:
        super().__init__(folder, create_dir=True, require_empty=False)
        self.files = files

    @idist.one_rank_only()
    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        parts = checkpoint if len(self.files) > 1 else {self.files[0]: checkpoint}  # Ignite gives a single one bare
        for file in self.files:
            path, part = Path(self.dirname) / file, parts[file]
            unfinished = path.with_name(f".{file}.unfinished")
            try:
                with unfinished.open("wb") as stream:
                    torch.save(part if len(part) > 1 else next(iter(part.values())), stream)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
            unfinished.replace(path)

    def remove(self, filename: str) -> None:
        pass  # the next write replaces the file in one step


class CheckpointFiles:
    """Keep checkpoint files up to date: the best by a metric, or the latest.

    MONAI's CheckpointSaver removes the old file before it writes the new one, has no fixed name for the latest, and
    cannot write two files of the same epoch; a run that is killed or resumed needs all three.

    Args:
        folder: of the files.
        files: for each file its objects with a ``state_dict``, by name; a single one is saved bare.
        metric: name of the metric, higher is better, whose best value decides of all files; without, every event saves.
        event: ``"EPOCH_COMPLETED"`` or ``"COMPLETED"``.
    """

    def __init__(
        self,
        folder: str,
        files: Mapping[str, Mapping[str, Any]],
        metric: str | None = None,
        event: str = "EPOCH_COMPLETED",
    ) -> None:
        self.event = Events[event]
        self.metric = metric
        self.checkpoint = Checkpoint(
            {file: dict(held) for file, held in files.items()},
            _ReplacingSaver(folder, list(files)),
            n_saved=1,
            score_name=metric,
            score_function=None if metric is None else self.score,
        )

    def score(self, engine: Engine) -> float:
        """Return the value that decides.

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
        """Return what is known of the best so far."""
        return self.checkpoint.state_dict()

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Go on from what was known of the best."""
        self.checkpoint.load_state_dict(state_dict)


class ScalerState:
    """The state of a trainer's gradient scaler, empty where it scales nothing.

    Args:
        trainer: of MONAI.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def state_dict(self) -> Mapping:
        """Return the scaler's state."""
        return {} if self.trainer.scaler is None else self.trainer.scaler.state_dict()

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Take a state, where there is one and something that scales."""
        if state_dict and self.trainer.scaler is not None:
            self.trainer.scaler.load_state_dict(dict(state_dict))


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
        if isinstance(checkpoint, dict):
            checkpoint = upgrade(checkpoint, self.load_dict)
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


def upgrade(checkpoint: Mapping[str, Any], load_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the ``last.pth`` of version 0.2 to what is saved now.

    It had no scaler, and one group of parameters, all in the network's order, where there are two now.

    Args:
        checkpoint: what the file holds.
        load_dict: the objects that it is loaded into, by name.

    Returns:
        The same, changed where it has to be.
    """
    new = {"scaler": {}, **checkpoint}
    if "model" in new:
        new["model"] = upgrade_names(new["model"])
    optimizer, state = load_dict.get("optimizer"), checkpoint.get("optimizer")
    if optimizer is None or not state or len(state["param_groups"]) != 1 or len(optimizer.param_groups) != 2:
        return new
    order = [p for p in load_dict["model"].parameters() if p.requires_grad]
    if len(state["param_groups"][0]["params"]) != len(order):
        return new  # of another network, which loading says
    old_index = {id(p): index for index, p in enumerate(order)}
    moments: dict[int, Any] = {}
    groups = []
    for group in optimizer.param_groups:
        indices = [len(moments) + n for n in range(len(group["params"]))]
        moments.update({n: state["state"].get(old_index[id(p)]) for n, p in zip(indices, group["params"])})
        old = {key: value for key, value in state["param_groups"][0].items() if key not in ("params", "weight_decay")}
        groups.append({**old, "params": indices, "weight_decay": group["weight_decay"]})
    new["optimizer"] = {"state": {n: each for n, each in moments.items() if each is not None}, "param_groups": groups}
    scheduler = checkpoint.get("lr_scheduler", {})
    new["lr_scheduler"] = {
        key: value * 2 if key in ("base_lrs", "lr_lambdas", "_last_lr") else value for key, value in scheduler.items()
    }
    return new
