# SPDX-License-Identifier: Apache-2.0
"""What training did to other data sets: they are scored by the weights before it and by the best ones of it."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from ..cases import read_case
from ..errors import InputError
from ..networks import EfficientSAM, load_weights
from ..reports import list_rows

logger = logging.getLogger(__name__)
Scores = dict[str, dict[str, float]]  # by set, then by metric


class Forgetting:
    """Score other data sets when training has ended, by the weights before it and by those that it leaves.

    It logs a line for each set, and writes ``also_validated.json``: for each set and metric, both scores.

    Args:
        evaluator: of a data set whose objects are named by their set, see :func:`scripts.data.mixture_datalist`.
        network: that is evaluated, with the weights that training begins from: they are kept from now on.
        path: of the best weights.
        output_dir: folder to write to.
        class_masks: whether the network answers with a mask for each class.

    Raises:
        InputError: when it does: other sets have other classes.
    """

    def __init__(
        self, evaluator: Evaluator, network: EfficientSAM, path: str, output_dir: str, class_masks: bool = False
    ) -> None:
        if class_masks:
            raise InputError("also_validate asks for single objects, which weights with class_masks do not answer")
        self.evaluator = evaluator
        self.network = network
        self.path = path
        self.output_dir = Path(output_dir)
        self.before = _copy_weights(network)
        self.cases: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        self.evaluator.add_event_handler(Events.EPOCH_STARTED, lambda _: self.cases.clear())
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self)

    def collect(self, evaluator: Engine) -> None:
        self.cases += [item["case"] for item in evaluator.state.batch]

    def __call__(self, trainer: Engine) -> None:
        latest = _copy_weights(self.network)
        self.network.load_state_dict(self.before)
        before = self.score()
        load_weights(self.network, self.path)
        after = self.score()
        self.network.load_state_dict(latest)

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
        rows = list_rows([read_case(case) for case in self.cases])
        sets = np.array([row.object for row in rows])
        details = {
            name: np.asarray(values.cpu(), float).ravel()
            for name, values in self.evaluator.state.metric_details.items()
        }
        return {
            name: {metric: float(values[sets == name].mean()) for metric, values in details.items()}
            for name in dict.fromkeys(sets.tolist())
        }


def _copy_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
