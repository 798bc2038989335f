# SPDX-License-Identifier: Apache-2.0
"""A tiny data set in the layout of REFUGE: made fundus photographs whose disc and cup raters draw a pixel apart."""

import numpy as np

from tests.files import write_picture

WIDTH, HEIGHT = 96, 80
CLASSES = ("disc", "cup")


def drawn(part, rater=2, index=0):
    """One rater's mask (H, W): an oval right of the middle whose lower right is cut off, so that no turn fits it.

    Raters 1, 2 and 3 draw it wider each by a pixel, 4 draws as 1 does, and so on; 2 is the majority of the first three.
    """
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x, y = 60 - index % 5, 30 + index % 5
    radius = {"disc": 16, "cup": 8}[part] + (rater - 1) % 3 - 1
    oval = ((columns - x) / 1.3) ** 2 + (rows - y) ** 2 < radius**2
    return oval & ~((columns > x) & (rows > y + radius / 2))


def photograph(index=0):
    """An RGB picture (H, W, 3): a red retina on black, a bright disc in it, a brighter cup in that."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    retina = (columns - WIDTH / 2) ** 2 + (rows - HEIGHT / 2) ** 2 < 39**2
    light = 0.5 * retina + 0.25 * drawn("disc", index=index) + 0.25 * drawn("cup", index=index)
    noise = np.random.default_rng(index).normal(0, 4, (HEIGHT, WIDTH, 3))
    return np.clip(light[..., None] * (255, 150, 80) + noise, 0, 255).astype(np.uint8)


def make_case(folder, name, raters=3, index=0, classes=CLASSES):
    """Write one image and the masks of its raters, 0 and 255."""
    write_picture(folder / name / f"{name}.jpg", photograph(index), quality=95)
    for part in classes:
        for rater in range(1, raters + 1):
            mask = drawn(part, rater, index).astype(np.uint8) * 255
            write_picture(folder / name / f"{name}_seg_{part}_{rater}.png", mask)
    return folder / name


def make_refuge(root, training=4, test=2, validation=0, raters=3):
    """Write the folders of the release with so many images each."""
    for part, letter, count in (("Training", "g", training), ("Test", "t", test), ("Validation", "v", validation)):
        for index in range(count):
            make_case(root / f"{part}-400", f"{letter}{index + 1:04d}", raters, index)
    return root
