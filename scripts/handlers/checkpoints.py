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

from ..errors import InputError
from ..io.whole_files import written_whole
from ..networks.adapters.files import SUFFIX, write_adapter


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
            part = parts[file]
            held = part if len(part) > 1 else next(iter(part.values()))
            with written_whole(Path(self.dirname) / file) as path:
                if file.endswith(SUFFIX):
                    write_adapter(path, held)
                else:
                    with path.open("wb") as stream:
                        torch.save(held, stream)

    def remove(self, filename: str) -> None:
        pass  # the next write replaces the file in one step


class CheckpointFiles:
    """Keep checkpoint files up to date: the best by a metric, or the latest.

    MONAI's CheckpointSaver removes the old file before it writes the new one, has no fixed name for the latest, and
    cannot write two files of the same epoch; a run that is killed or resumed needs all three.

    Args:
        folder: of the files.
        files: for each file its objects with a ``state_dict``, by name; a single one is saved bare. That of a
            ``.safetensors`` is a :class:`scripts.networks.AdapterWeights`.
        evaluator: that measures the metric.
        metric: its name, higher is better, whose best value decides of all files; without, every event saves.
        event: ``"EPOCH_COMPLETED"`` or ``"COMPLETED"``, of the trainer, or of the evaluator where a metric decides.
    """

    def __init__(
        self,
        folder: str,
        files: Mapping[str, Mapping[str, Any]],
        evaluator: Engine | None = None,
        metric: str | None = None,
        event: str = "EPOCH_COMPLETED",
    ) -> None:
        self.event = Events[event]
        self.evaluator = evaluator
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
        """Attach to a trainer."""
        judge = engine if self.metric is None or self.evaluator is None else self.evaluator
        judge.add_event_handler(self.event, self.checkpoint)

    def state_dict(self) -> Mapping:
        """Return what is known of the best so far."""
        return self.checkpoint.state_dict()

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Go on from what was known of the best."""
        self.checkpoint.load_state_dict(state_dict)
