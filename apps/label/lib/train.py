# SPDX-License-Identifier: Apache-2.0
"""Fine-tune on the labels that were saved; what answers changes only when a training has ended well."""

import json
import logging
import math
import os
import shutil
import time
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask

from .errors import RequestError
from .infer import BUNDLE, FINE_TUNE, MODELS, find_weights, offered

logger = logging.getLogger(__name__)

RUNS = MODELS / "label_runs"
STATS = RUNS / "train_stats.json"
PREVIOUS = MODELS / "previous.pth"  # what answered before the last training
OF_NETWORK = ("backbone", "image_size", "adapters", "mask_feedback")


class Trainer(BundleTrainTask):
    """Train from the weights that answer, in a folder of the run, and serve the result.

    Args:
        conf: options of the command line.
    """

    def __init__(self, conf: dict[str, str]) -> None:
        super().__init__(str(BUNDLE), conf)

    def config(self) -> dict[str, Any]:
        """Give a client's options."""
        return {**super().config(), "max_epochs": 10, "run_id": "training", "model_filename": offered()}

    def stats(self) -> dict[str, Any]:
        """Tell how the last training went, epoch by epoch, and how it goes."""
        try:
            stats = json.loads(STATS.read_text())
        except (OSError, ValueError):
            return {}
        stats["best_metric"] = max(stats.get("best_metric") or 0.0, 0.0)  # -1 before a validation
        return _finite(stats)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict:
        """Train, and serve the best weights of the run.

        Raises:
            RequestError: when no label has been saved.
        """
        if not datastore.datalist():
            raise RequestError("no image has a saved label yet: save one, then train")
        shutil.rmtree(RUNS, ignore_errors=True)  # of a run that was stopped
        run = RUNS / time.strftime("%Y%m%d-%H%M%S")
        run.mkdir(parents=True)
        self.run, self.start = run, find_weights(request.get("model_filename"))
        super().__call__({**request, "run_id": "training", "multi_gpu": False}, datastore)
        if (MODELS / FINE_TUNE).is_file():
            shutil.copyfile(MODELS / FINE_TUNE, PREVIOUS)
        for name in ("adapter.pth", FINE_TUNE):  # what answers last
            os.replace(run / name, MODELS / name)
        shutil.rmtree(run)
        return {}

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list) -> None:
        """Leave out MONAI Label's loader, which takes any file without a word of what is missing from it."""

    def _update_overrides(self, overrides: dict[str, Any]) -> None:
        overrides["pretrained"] = str(self.start)
        settings = torch.load(self.start, map_location="cpu", weights_only=True).get("settings", {})
        overrides.update({name: settings[name] for name in OF_NETWORK if settings.get(name) is not None})
        overrides["ckpt_dir"] = str(self.run)
        overrides["output_dir"] = str(self.run / "eval")
        overrides["label_stats"] = {
            "_target_": "monailabel.tasks.train.handler.PublishStatsAndModel",
            "stats_path": str(STATS),
            "publish_path": None,
            "key_metric_filename": FINE_TUNE,
            "start_ts": int(time.time()),
            "run_id": "training",
            "output_dir": str(self.run),
            "trainer": "@train#trainer",
            "evaluator": "@validate#evaluator",
        }
        overrides["run"] = ["$@label_stats.attach(@train#trainer)", *self.bundle_config["run"]]


def _finite(value: Any) -> Any:
    """Replace what JSON cannot hold, such as the score of a prompt that was not asked."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
