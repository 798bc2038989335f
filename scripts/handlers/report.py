# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: metrics.json, metrics.csv, a picture of Dice by clicks, and a table in the log."""

import json
import logging
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from ..reports.curves import plot_dice_by_clicks
from ..reports.tables import dice_by_clicks, format_table, summarize, write_rows
from .case_collector import CaseCollector

logger = logging.getLogger(__name__)


class MetricsReport:
    """Write what an evaluator measured.

    ``metrics.json`` holds flat names: the mean over objects as the metric is named (``dice/box``), the mean over images
    of each image's mean (``dice_by_image/box``), where images have groups the same of them (``dice_by_group/box``), and
    means over sizes and classes (``dice/box/small``, ``dice/box/nucleus``), null where nothing could be measured.
    ``metrics.csv`` has a row for each object and, where all that is labelled was asked for, for everything on a slice.
    ``dice_by_clicks.png`` is drawn where Dice was scored after different numbers of clicks. MONAI's MetricsSaver writes
    a file for each metric and one row for each batch item, where this one has several objects.

    Args:
        output_dir: folder to write to.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        self.rows = CaseCollector()

    def attach(self, engine: Engine) -> None:
        self.rows.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        rows, columns = self.rows.table(engine)
        if idist.get_rank() > 0:
            return
        report = summarize(engine.state.metrics, columns, rows)

        self.output_dir.mkdir(parents=True, exist_ok=True)
        (self.output_dir / "metrics.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
        write_rows(self.output_dir / "metrics.csv", columns, rows)
        clicks, curves = dice_by_clicks(report)
        if len(clicks) > 1:
            plot_dice_by_clicks(self.output_dir / "dice_by_clicks.png", clicks, curves)
        lines = format_table(report, list(engine.state.metrics))
        logger.info("\n".join([f"wrote {self.output_dir}/metrics.json and metrics.csv:", *lines]))
