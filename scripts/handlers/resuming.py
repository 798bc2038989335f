# SPDX-License-Identifier: Apache-2.0
"""What a run needs to go on after it was stopped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.engines import Trainer

from ..errors import InputError
from ..networks.checkpoint_file import upgrade_names
from .checkpoints import CheckpointFiles
from .compact import Compact

FILE = "last.pth"


class RunState:
    """Keep in ``last.pth`` all that a run needs to go on, and go on from that of a run that was stopped.

    A file is read at once and loaded when this is attached: a bad one stops a run before it starts.

    Args:
        folder: of the file.
        objects: what has a state, by name; the trainer and its gradient scaler come on top. What is attached to the
            trainer itself is attached before this.
        resume_path: a ``last.pth`` to go on from; nothing begins anew.

    Raises:
        InputError: when the file is missing, unreadable or of another kind.
    """

    def __init__(self, folder: str, objects: Mapping[str, Any], resume_path: str | None = None) -> None:
        self.folder = folder
        self.objects = dict(objects)
        self.resume_path = resume_path
        self.checkpoint = read_state(resume_path, self.objects) if resume_path else None

    def attach(self, engine: Trainer) -> None:
        """Attach to a trainer.

        Raises:
            InputError: when the file cannot be gone on from; see :func:`load_state`.
        """
        held = {**self.objects, "trainer": engine, "scaler": ScalerState(engine)}
        if self.resume_path and self.checkpoint is not None:
            load_state(self.resume_path, self.checkpoint, held, engine)
            self.checkpoint = None
        CheckpointFiles(self.folder, {FILE: held}).attach(engine)


class ScalerState:
    """The state of a trainer's gradient scaler, empty where it scales nothing.

    Args:
        trainer: of MONAI, which makes its scaler when it starts.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def state_dict(self) -> Mapping:
        """Return the scaler's state."""
        return {} if self.trainer.scaler is None else self.trainer.scaler.state_dict()

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Take a state as soon as the trainer starts, where there is one and something that scales."""
        if state_dict:
            self.trainer.add_event_handler(Events.STARTED, self._load, dict(state_dict))

    def _load(self, state: dict[str, Any]) -> None:
        if self.trainer.scaler is not None:
            self.trainer.scaler.load_state_dict(state)


def read_state(path: str, objects: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a run saved to go on.

    Args:
        path: of its ``last.pth``.
        objects: that it holds, by name, beside the trainer and its scaler.

    Raises:
        InputError: when the file is missing, unreadable or of another kind.
    """
    if not Path(path).is_file():
        raise InputError(f"cannot resume: {path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a bad file
        raise InputError(f"cannot resume: {path} is not a readable checkpoint (cut short?)") from error
    if isinstance(checkpoint, dict):
        checkpoint = upgrade(checkpoint, objects)
    missing = [name for name in (*objects, "trainer") if not isinstance(checkpoint, dict) or name not in checkpoint]
    if missing:
        raise InputError(f"cannot resume: {path} holds no {', '.join(missing)}; give the last.pth of a run")
    return checkpoint


def load_state(path: str, checkpoint: Mapping[str, Any], load_dict: Mapping[str, Any], engine: Engine) -> None:
    """Load all that a run saved to go on.

    Args:
        path: of its ``last.pth``, for errors.
        checkpoint: what it holds.
        load_dict: the objects that it is loaded into, by name.
        engine: the trainer, which may have more epochs now than the run had.

    Raises:
        InputError: when it is of another network or of other settings, or has no epoch left to train.
    """
    max_epochs, batches = engine.state.max_epochs, engine.state.epoch_length
    scheduler = load_dict.get("lr_scheduler")
    ends = {name: getattr(scheduler, name) for name in ("t_total", "warmup_steps") if hasattr(scheduler, name)}
    try:
        Checkpoint.load_objects(load_dict, checkpoint)
    except InputError as error:
        raise InputError(f"cannot resume: {path} is of a run with other settings: {error}") from error
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot resume: {path} is of a run with another network or data: {str(error).splitlines()[0]}"
        ) from error
    if engine.state.epoch_length != batches:
        raise InputError(
            f"cannot resume: {path} is of a run with another network or data: {engine.state.epoch_length} "
            f"batches in an epoch, now {batches} (batch_size times the number of processes stays the same)"
        )
    if engine.state.epoch >= max_epochs:
        raise InputError(f"{path} has {engine.state.epoch} epochs already: give a larger max_epochs than {max_epochs}")
    engine.state.max_epochs = max_epochs
    if scheduler is not None and any(getattr(scheduler, name) != value for name, value in ends.items()):
        vars(scheduler).update(ends)  # the schedule of all epochs there are now, not of those there were
        for group, base, factor in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas):
            group["lr"] = base * factor(scheduler.last_epoch)
        engine.logger.info(f"the learning rate now falls until epoch {max_epochs}")
    engine.logger.info(f"resumed {path} after epoch {engine.state.epoch}")


def upgrade(checkpoint: Mapping[str, Any], load_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the ``last.pth`` of version 0.2 to what is saved now.

    It had no scaler, no ranks of AdaLoRA, in pretraining no curves, and one group of parameters, all in the network's
    order, where there are two now.

    Args:
        checkpoint: what the file holds.
        load_dict: the objects that it is loaded into, by name.

    Returns:
        The same, changed where it has to be.
    """
    ranks = {"steps": 0, "smoothed": {}, "kept": None}
    new = {"scaler": {}, "curves": {"losses": {}, "scores": {}}, "ranks": ranks, **checkpoint}
    if "model" in new:
        new["model"] = upgrade_names(new["model"])
    optimizer, network = (_whole(load_dict.get(name)) for name in ("optimizer", "model"))
    state = checkpoint.get("optimizer")
    if optimizer is None or not state or len(state["param_groups"]) != 1 or len(optimizer.param_groups) != 2:
        return new
    order = [p for p in network.parameters() if p.requires_grad]
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


def _whole(held: Any) -> Any:
    """Return what is saved, which may be saved in fewer bytes."""
    return held.of if isinstance(held, Compact) else held
