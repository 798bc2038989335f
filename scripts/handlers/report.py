# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: metrics.json, metrics.csv with a row for each object, and a table in the log."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.utils import string_list_all_gather

logger = logging.getLogger(__name__)


class MetricsReport:
    """Write what an evaluator measured.

    ``metrics.json`` holds flat names: the mean over objects as the metric is named (``dice/box``), and the mean over
    images of each image's mean with ``_by_image`` behind the measure (``dice_by_image/box``). MONAI's MetricsSaver
    writes a file for each metric and one row for each batch item, where this one has several objects.

    Args:
        output_dir: folder to write to.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        self.cases: list[str] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def collect(self, engine: Engine) -> None:
        self.cases += [item["case"] for item in engine.state.batch]

    def __call__(self, engine: Engine) -> None:
        cases = [json.loads(case) for case in string_list_all_gather(self.cases)]
        if engine.state.rank > 0:
            return
        rows = [(case["image"], case["slice"], name) for case in cases for name in case["objects"]]
        details = {name: np.asarray(values.cpu()).reshape(-1) for name, values in engine.state.metric_details.items()}
        details = {name: values for name, values in details.items() if len(values) == len(rows)}
        report = {name: value for name, value in engine.state.metrics.items() if isinstance(value, (int, float))}
        report.update({_by_image(name): _mean_by_image(rows, values) for name, values in details.items()})
        report["objects"], report["images"] = len(rows), len({row[0] for row in rows})

        self.output_dir.mkdir(parents=True, exist_ok=True)
        (self.output_dir / "metrics.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
        with open(self.output_dir / "metrics.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "slice", "object", *details])
            writer.writerows([*row, *(f"{v[i]:.6f}" for v in details.values())] for i, row in enumerate(rows))
        width = max(map(len, report))
        lines = [f"  {name:{width}}  {value:.4f}" if isinstance(value, float) else f"  {name:{width}}  {value}"
                 for name, value in sorted(report.items())]  # fmt: skip
        logger.info("\n".join([f"wrote {self.output_dir}/metrics.json and metrics.csv:", *lines]))


def _by_image(name: str) -> str:
    measure, slash, prompt = name.partition("/")
    return f"{measure}_by_image{slash}{prompt}"


def _mean_by_image(rows: list[tuple], values: np.ndarray) -> float:
    """Average each image's objects, then the images."""
    images: dict[str, list[float]] = {}
    for (image, _, _), value in zip(rows, values):
        images.setdefault(image, []).append(float(value))
    return float(np.mean([np.mean(scores) for scores in images.values()]))
