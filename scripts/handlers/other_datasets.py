# SPDX-License-Identifier: Apache-2.0
"""What training did to other data sets: they are scored by the weights before it and by the best ones of it."""

import json
import logging
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from ..errors import InputError
from ..networks import EfficientSAM, load_weights
from ..prompts.class_layout import ClassLayout
from .case_collector import CaseCollector

logger = logging.getLogger(__name__)
Scores = dict[str, dict[str, float]]  # by set, then by metric


class OtherDatasetScores:
    """Score other data sets when training has ended, by the weights before it and by those that it leaves.

    It logs a line for each set, and writes ``also_validated.json``: for each set and metric, both scores.

    Args:
        evaluator: of a data set whose objects are named by their set, see :func:`scripts.data.mixture_datalist`.
        network: that is evaluated, with the weights that training begins from: they are kept from now on.
        path: of the best weights.
        output_dir: folder to write to.
        layout: of the classes, where the network answers with a mask for each.

    Raises:
        InputError: when there is a layout: other sets have other classes.
    """

    def __init__(
        self, evaluator: Evaluator, network: EfficientSAM, path: str, output_dir: str, layout: ClassLayout | None = None
    ) -> None:
        if layout is not None:
            raise InputError("also_validate asks for single objects, which weights with class_masks do not answer")
        self.evaluator = evaluator
        self.network = network
        self.path = path
        self.output_dir = Path(output_dir)
        self.before = {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}
        self.rows = CaseCollector()

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        self.rows.attach(self.evaluator)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, trainer: Engine) -> None:
        latest = {name: tensor.cpu().clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.before)
        before = self.score()
        idist.barrier()  # until the best weights are written
        load_weights(self.network, self.path)
        after = self.score()
        self.network.load_state_dict(latest)  # others may save them yet

        if idist.get_rank() > 0:
            return
        both = {
            name: {metric: [before[name][metric], after[name][metric]] for metric in before[name]} for name in before
        }
        self.output_dir.mkdir(parents=True, exist_ok=True)
        (self.output_dir / "also_validated.json").write_text(json.dumps(both, indent=2) + "\n")
        lines = [
            f"  {name}: " + ", ".join(f"{metric} {old:.4f} -> {new:.4f}" for metric, (old, new) in scores.items())
            for name, scores in both.items()
        ]
        logger.info("\n".join(["other data sets, before training -> with its best weights:", *lines]))

    def score(self) -> Scores:
        """Evaluate, and give each set's means over its objects."""
        self.evaluator.run()
        rows, columns = self.rows.table(self.evaluator)
        sets = np.array([row.object for row in rows])
        return {
            name: {metric: float(values[sets == name].mean()) for metric, values in columns.items()}
            for name in dict.fromkeys(sets.tolist())
        }
