# SPDX-License-Identifier: Apache-2.0
"""What a step of a training costs: seconds, memory, and the number of parameters that it trains.

    python -m tools.step_costs '["configs/train.yaml","configs/finetune/decoder.yaml"]' '{"dataset_dir": "/data/mine"}'

Prints JSON. Nothing else should run meanwhile.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

ROOT = Path(__file__).parents[1]
MEASURED_IMAGES, BATCH, PASSES = 24, 4, 3


def parse(files: list[str], settings: Mapping[str, Any]) -> ConfigParser:
    """Read configs.

    Args:
        files: of configs.
        settings: that go over them.
    """
    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in files])
    parser.update(dict(settings))
    return parser


def costs_of(run: Callable[[Callable[[], None]], Any], per_pass: int) -> dict[str, float]:
    """Measure a training: the mean of the steps of all passes over its images but the first.

    Args:
        run: trains; it calls what it is given after each step.
        per_pass: steps of a pass.

    Returns:
        Seconds a step (``s/step``), those of one whose images are ``first`` seen, and what training adds
        to memory (``train MB``).
    """
    process, times, memory = psutil.Process(), [], []
    before = process.memory_info().rss

    def note() -> None:
        times.append(time.perf_counter())
        memory.append(process.memory_info().rss)

    run(note)
    steps = [b - a for a, b in pairwise(times)]
    return {
        "s/step": round(statistics.mean(steps[per_pass - 1 :]), 4),
        "train MB": round((max(memory) - before) / 2**20),
        "first": round(statistics.mean(steps[: per_pass - 1] or steps), 4),
    }


def measure(files: list[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """Measure the steps of a training of the bundle on a few images.

    Args:
        files: of configs.
        settings: of the command line.

    Returns:
        See :func:`costs_of`; the number of ``trained`` parameters and of ``threads``, and of the ``views`` that are
        made when they are first seen, 0 where none are kept.
    """
    set_determinism(0)
    images = f"$@datalist['training'][:{MEASURED_IMAGES}]"
    own = {"max_epochs": PASSES, "train#dataset#data": images, "validate#dataset#data": [], "train#handlers": []}
    passes = {"train#sampler#num_samples": MEASURED_IMAGES, "train#keeping": ["@ranks", "@final"]}
    views = settings.get("cached_views", 0)
    once = {"cached_views": 1} if views else {}  # so that the first pass has made them all
    parser = parse(files, {**settings, **own, **passes, **once})
    trainer, network = parser.get_parsed_content("train#trainer"), parser.get_parsed_content("network")

    def run(note: Callable[[], None]) -> None:
        trainer.add_event_handler("ITERATION_COMPLETED", lambda _: note())
        torch.manual_seed(0)  # each recipe draws as many corrections
        trainer.run()

    found = costs_of(run, MEASURED_IMAGES // BATCH)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    kept = views * len(parse(files, settings).get_parsed_content("train#dataset")) if views else 0
    return found | {"trained": trained, "threads": torch.get_num_threads(), "views": kept}


def steps_in(seconds: float, costs: Mapping[str, Any]) -> int:
    """Return how many steps a time has, of which the first make the views that are kept.

    Args:
        seconds: of training.
        costs: of :func:`measure`.
    """
    step, first = float(costs["s/step"]), max(float(costs["first"]), float(costs["s/step"]))
    making = min(int(costs["views"]) / BATCH, seconds / first)  # steps whose views are all new
    return max(int(making + (seconds - making * first) / step), 1)


if __name__ == "__main__":
    print(json.dumps(measure(*map(json.loads, sys.argv[1:3]))))
