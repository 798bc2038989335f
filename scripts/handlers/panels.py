# SPDX-License-Identifier: Apache-2.0
"""Pictures of validation: image with prompt, truth and prediction side by side, before and after training."""

from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from ..prompts.case_id import read_case
from ..reports.overlays import CRISP, drawn_step, overlay, panels, to_uint8

MOST_PIXELS = 1024  # of a picture's longer side


class ValidationPanels:
    """Draw the first cases of each validation, to TensorBoard and as JPEG files.

    What was drawn at epoch 0, before training, stands above what is drawn later.

    Args:
        log_dir: of the TensorBoard log.
        output_dir: of the JPEG files, which the next validation replaces.
        kinds: the kinds of prompt of validation, in order.
        count: number of cases to draw.
    """

    def __init__(self, log_dir: str, output_dir: str, kinds: Sequence[str], count: int = 4) -> None:
        self.log_dir = log_dir
        self.output_dir = Path(output_dir)
        self.kinds = list(kinds)
        self.count = count
        self.before: dict[int, tuple[list[np.ndarray], list[str]]] = {}
        self.writer: SummaryWriter | None = None
        self.drawn = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        self.drawn = 0 if idist.get_rank() == 0 else self.count  # the others would write the same files

    def __call__(self, engine: Engine) -> None:
        for item, result in zip(engine.state.batch, engine.state.output):
            if self.drawn == self.count:
                return
            row, titles = self.draw(item, result)
            if engine.state.epoch == 0:
                self.before[self.drawn] = row, [f"{title}, before" for title in titles]
            above, heads = self.before.get(self.drawn, ([], [])) if engine.state.epoch else ([], [])
            panel = panels(above + row, heads + titles, columns=len(row))
            self.output_dir.mkdir(parents=True, exist_ok=True)
            Image.fromarray(panel).save(self.output_dir / f"validation_{self.drawn}.jpg", **CRISP)
            if self.writer is None:
                self.writer = SummaryWriter(self.log_dir)
            self.writer.add_image(f"validation/{self.drawn}", panel, engine.state.epoch, dataformats="HWC")
            self.writer.flush()
            self.drawn += 1

    def draw(self, item: dict, result: dict) -> tuple[list[np.ndarray], list[str]]:
        """Draw the first object of a case: truth, then each kind of prompt with its prediction, and a title for each.

        Args:
            item: of the evaluator's batch.
            result: its output.
        """
        step = drawn_step(result["image"].shape[1:], MOST_PIXELS)
        image = to_uint8(result["image"][:, ::step, ::step].detach().cpu())
        truth = np.asarray(result["label"][0, ::step, ::step].cpu()) > 0.5
        case = read_case(item["case"])
        pictures, titles = [overlay(image, truth)], [f"truth: {case['image']}"]
        for kind in self.kinds:
            if kind in item["prompts"]:
                prediction = np.asarray(result["pred"]["masks"][kind][0, ::step, ::step].cpu()) > 0
                prompt = item["prompts"][kind]
                points, labels = (np.asarray(prompt[key][:1]) for key in ("points", "labels"))
                pictures.append(overlay(image, prediction, points / step, labels))
                titles.append(kind)
        return pictures, titles
