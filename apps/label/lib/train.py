# SPDX-License-Identifier: Apache-2.0
"""Fine-tune on the labels that were saved; what answers changes only when a training has ended well."""

import json
import logging
import math
import os
import shutil
import threading
import time
from typing import Any

import monai
from monai.data import partition_dataset
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list

from apps.common.errors import RequestError
from apps.common.weights import BUNDLE, FINE_TUNE, MODELS, PREVIOUS, find_weights, offered
from scripts.cli import as_values

logger = logging.getLogger(__name__)

RUNS = MODELS / "label_runs"
STATS = RUNS / "train_stats.json"
SERVER = os.getppid()  # of the process that trains


class Trainer(TrainTask):
    """Train from the weights that answer, in a folder of the run, and serve the result.

    Args:
        conf: options of the command line.
    """

    def __init__(self, conf: dict[str, str]) -> None:
        super().__init__("Fine-tune on the saved labels")
        self.conf = conf

    def config(self) -> dict[str, Any]:
        """Return a client's options."""
        return {"device": device_list(), "max_epochs": 10, "val_split": 0.2, "model_filename": offered()}

    def stats(self) -> dict[str, Any]:
        """Return how the last training went, epoch by epoch, and how it goes."""
        try:
            stats = json.loads(STATS.read_text())
        except (OSError, ValueError):
            return {}
        stats["best_metric"] = max(stats.get("best_metric") or 0.0, 0.0)  # -1 before a validation
        return _finite(stats)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict:
        """Train, and serve the best weights of the run.

        Args:
            request: checked fields, see :data:`lib.checks.TRAIN`.
            datastore: of the labels.

        Raises:
            RequestError: when no label has been saved.
        """
        pairs = [{"image": pair["image"], "label": pair["label"]} for pair in datastore.datalist()]
        if not pairs:
            raise RequestError("no image has a saved label yet: save one, then train")
        end_with_server()
        share = request.get("val_split", 0.2)
        parts = partition_dataset(pairs, ratios=[1 - share, share]) if share > 0 else [pairs, []]
        shutil.rmtree(RUNS, ignore_errors=True)  # of a run that was stopped
        run = RUNS / time.strftime("%Y%m%d-%H%M%S")
        run.mkdir(parents=True)
        start = find_weights(request.get("model_filename"))
        values = {"pretrained": str(start), "bundle_root": str(BUNDLE), "device": request.get("device", "cpu")}
        values |= {"ckpt_dir": str(run), "output_dir": str(run / "eval"), "trained_on": "labels"}
        values |= {"train#trainer#max_epochs": request.get("max_epochs", 10)}
        values |= {"train#dataset#data": parts[0], "validate#dataset#data": parts[1]}
        values |= {"label_stats#stats_path": str(STATS), "label_stats#output_dir": str(run)}
        monai.bundle.run(
            run_id="training",
            meta_file=str(BUNDLE / "configs" / "metadata.json"),
            config_file=[str(BUNDLE / "configs" / "train.yaml"), str(BUNDLE / "apps" / "label" / "stats.yaml")],
            **as_values(values),
        )
        if (MODELS / FINE_TUNE).is_file():
            shutil.copyfile(MODELS / FINE_TUNE, MODELS / PREVIOUS)
        for name in ("adapter.safetensors", FINE_TUNE):  # what answers last
            os.replace(run / name, MODELS / name)
        shutil.rmtree(run)
        return {}


def end_with_server() -> None:
    """End this process when the server that started it is gone: nobody would know what its weights are."""

    def watch() -> None:
        while os.getppid() == SERVER:
            time.sleep(0.5)
        logger.error("the server is gone: this training ends, and what answers stays as it was")
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _finite(value: Any) -> Any:
    """Replace what JSON cannot hold, such as the score of a prompt that was not asked."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
