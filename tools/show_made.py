# SPDX-License-Identifier: Apache-2.0
"""Drawn pictures beside their objects, as one sheet: python -m tools.show_made docs/images/made.jpg"""

import argparse

import numpy as np
from PIL import Image

from scripts.data.made import draw_picture


def draw_sheet(seed: int, rows: int, columns: int, side: int = 112) -> np.ndarray:
    """Draw the first pictures of a seed, each beside its objects in random colours.

    Args:
        seed: of the set of pictures.
        rows: of the sheet.
        columns: of the sheet, a picture and its objects each.
        side: of a picture on it, in pixels.

    Returns:
        (H, W, 3) uint8.
    """
    colours = np.random.default_rng(seed).integers(60, 256, (2**16, 3), np.uint8)
    colours[0] = 0
    tiles = []
    for index in range(rows * columns):
        image, ids = draw_picture(seed, index)
        pair = np.concatenate([np.broadcast_to(image, (*ids.shape, 3)), colours[ids]], axis=1)
        tiles.append(np.asarray(Image.fromarray(pair).resize((2 * side, side), Image.Resampling.LANCZOS)))
    return np.concatenate([np.concatenate(tiles[r * columns :][:columns], axis=1) for r in range(rows)])


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", type=int, default=5)
    parser.add_argument("--columns", type=int, default=6)
    given = parser.parse_args()
    Image.fromarray(draw_sheet(given.seed, given.rows, given.columns)).save(given.path, quality=80)


if __name__ == "__main__":
    main()
