# SPDX-License-Identifier: Apache-2.0
"""Time and memory of a data set of many images: its check, its index when seen again, and a first batch.

    python -m tools.benchmark_index --pairs 100000

Pictures are drawn, 16 pixels wide, so that what is measured is what each file costs.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser
from PIL import Image

TRAIN = Path(__file__).parents[1] / "configs" / "train.yaml"


def make_pairs(folder: Path, count: int) -> None:
    """Draw pairs into ``images`` and ``labels``.

    Args:
        folder: of both.
        count: of pairs.
    """
    for part in ("images", "labels"):
        (folder / part).mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        label = np.zeros((16, 16), np.uint8)
        label[3:9, 4 : 9 + i % 5] = 1
        Image.fromarray(rng.integers(0, 255, label.shape, dtype=np.uint8)).save(folder / "images" / f"{i:06d}.png")
        Image.fromarray(label).save(folder / "labels" / f"{i:06d}.png")


def measure(folder: Path, cache: Path) -> tuple[float, float]:
    """Return the seconds until the data set of training is there, and until its first batch is.

    Args:
        folder: of the pairs.
        cache: where the index is kept.
    """
    parser = ConfigParser()
    parser.read_config(str(TRAIN))
    parser.update({"dataset_dir": str(folder), "cache_dir": str(cache), "image_size": 64, "num_workers": 0})
    began = time.perf_counter()
    loader = parser.get_parsed_content("train#dataloader")
    there = time.perf_counter()
    next(iter(loader))
    return there - began, time.perf_counter() - there


def main(argv: list[str] | None = None) -> None:
    """Draw, check twice, and print a line each."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_index", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        folder, cache = Path(work) / "set", Path(work) / "cache"
        folder.mkdir()
        make_pairs(folder, given.pairs)
        for name in ("first time", "seen again"):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            seconds, batch = measure(folder, cache)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(f"{given.pairs} pairs, {name}: {seconds:.1f} s, first batch {batch:.2f} s, {grown:.0f} MB more")


if __name__ == "__main__":
    main()
