# SPDX-License-Identifier: Apache-2.0
"""Seconds that training's validation takes for one large picture with a few objects.

python -m tools.benchmark_validation --width 4000 --height 3000
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser
from PIL import Image

TRAIN = Path(__file__).parents[1] / "configs" / "train.yaml"
DISCS = ((0.23, 0.22, 0.08), (0.5, 0.62, 0.13), (0.77, 0.2, 0.1), (0.73, 0.83, 0.07))  # row, column, radius: shares


def draw(folder: Path, width: int, height: int) -> None:
    """Draw a picture with dark discs, and its labels, as the one image of both lists.

    Args:
        folder: to write to.
        width: of the picture in pixels.
        height: of the picture in pixels.
    """
    rows, columns = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    for number, (row, column, radius) in enumerate(DISCS, 1):
        near = (rows - row * height) ** 2 + (columns - column * width) ** 2 < (radius * height) ** 2
        labels[near] = number
    noise = np.random.RandomState(0).randint(90, 150, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    picture = noise.repeat(8, 0).repeat(8, 1)[:height, :width].copy()
    picture[labels > 0] //= 2
    Image.fromarray(picture).save(folder / "image.jpg")
    Image.fromarray(labels).save(folder / "label.png")
    pair = [{"image": "image.jpg", "label": "label.png"}]
    (folder / "datalist.json").write_text(json.dumps({"training": pair, "validation": pair}))


def main(argv: list[str] | None = None) -> None:
    """Draw, validate by the base weights, and print the seconds."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_validation", description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--height", type=int, default=3000)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        draw(Path(work), given.width, given.height)
        config = ConfigParser()
        config.read_config(str(TRAIN))
        places = {"output_dir": f"{work}/eval", "cache_dir": f"{work}/cache", "ckpt_dir": f"{work}/models"}
        config.update({"dataset_dir": work, **places})
        evaluator = config.get_parsed_content("validate#evaluator")
        began = time.perf_counter()
        evaluator.run()
        scores = ", ".join(f"{name} {float(value):.3f}" for name, value in evaluator.state.metrics.items())
        print(f"{time.perf_counter() - began:.1f} s; {scores}")


if __name__ == "__main__":
    main()
