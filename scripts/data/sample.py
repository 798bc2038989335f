# SPDX-License-Identifier: Apache-2.0
"""The built-in sample data set: drawn pictures that look like dermoscopy, for a first run without any data.

What is labelled is a lesion with the reddened skin around it. A click does not say that the faint border is meant too,
so that weights which know lesions find the dark part alone, and training shows what it is good for.

Colour follows Beer-Lambert: light falls through layers of pigment, so each layer adds to an optical density and the
picture is ``exp(-density)``. Lengths are fractions of the picture's side; fields are (H, W) float32.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InputError

__all__ = ["make_sample"]

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it whenever the pictures change, so that older caches are made anew
MIN_SIZE = 32  # below this the smallest lesions are only a few pixels

# Optical density in red, green, blue.
SKIN_TONES = np.array(
    [
        [0.20, 0.27, 0.29],  # pale
        [0.22, 0.36, 0.50],  # beige
        [0.18, 0.48, 0.44],  # reddened
        [0.42, 0.62, 0.76],  # brown
        [0.50, 0.30, 0.13],  # any skin under a lamp of cold light
    ],
    dtype=np.float32,
)
BROWN = np.array([0.50, 0.95, 1.30], dtype=np.float32)  # melanin near the surface
SLATE = np.array([0.95, 1.05, 0.98], dtype=np.float32)  # melanin deep in the skin
PINK = np.array([0.18, 0.78, 0.68], dtype=np.float32)  # blood
HAIR = np.array([1.70, 1.90, 2.00], dtype=np.float32)
INK = np.array([1.00, 0.95, 0.40], dtype=np.float32)  # a surgeon's violet marker


def make_sample(folder: str | Path, count: int = 60, size: int = 256, seed: int = 0) -> Path:
    """Make the sample data set in a folder, unless the same one is there already.

    The folder gets ``images/lesion_000.png`` (RGB), ``labels/lesion_000.png`` (8 bits, 0 background, 255 lesion) and so
    on, and a ``datalist.json`` in the layout of the Medical Segmentation Decathlon whose last fifth is ``validation``.
    It appears all at once, so a killed run leaves no half of it, and processes that call at once all succeed.

    Args:
        folder: where to put it; its parents are created.
        count: number of pictures, at least 2.
        size: height and width of each picture in pixels, at least 32.
        seed: another seed gives other pictures; the same seed gives the same arrays.

    Returns:
        The absolute path of the folder.

    Raises:
        ValueError: when ``count`` or ``size`` is too small.
        InputError: when the folder holds anything that this function did not write.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, one picture to train on and one to validate, got {count}.")
    if size < MIN_SIZE:
        raise ValueError(f"size must be at least {MIN_SIZE} pixels, got {size}.")
    folder = Path(folder).expanduser().resolve()
    recipe = {"format": FORMAT, "count": count, "size": size, "seed": seed}
    if _is_complete(folder, recipe):
        return folder
    _refuse_foreign(folder)

    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True) as work:
        made = Path(work, "made")
        _write(made, recipe)
        _install(made, folder, recipe, Path(work))
    logger.info("Made a sample data set of %d drawn skin lesions in %s.", count, folder)
    return folder


def _read_datalist(folder: Path) -> dict:
    """Return the content of the folder's datalist, or an empty dict when there is none that can be read."""
    try:
        datalist = json.loads((folder / "datalist.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return datalist if isinstance(datalist, dict) else {}


def _is_complete(folder: Path, recipe: dict) -> bool:
    """Return whether the folder holds every file of the sample that this recipe makes."""
    datalist = _read_datalist(folder)
    if datalist.get("recipe") != recipe:
        return False
    pairs = datalist["training"] + datalist["validation"]
    return all((folder / path).is_file() for pair in pairs for path in pair.values())


def _refuse_foreign(folder: Path) -> None:
    """Refuse when replacing the folder would delete what somebody else put there."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the sample data set.")
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        drawn = path.is_dir() or re.fullmatch(r"(images|labels)/lesion_\d+\.png", name)
        if not drawn and not (name == "datalist.json" and "recipe" in _read_datalist(folder)):
            raise InputError(f"{folder} holds {name}, which is not of the sample data set: name another folder.")


def _write(folder: Path, recipe: dict) -> None:
    """Write the pictures, the labels and the datalist of a recipe into a new folder."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    pairs = []
    for index in range(recipe["count"]):
        # Seeded one by one: a longer sample begins with the pictures of a shorter one.
        image, label = _draw_case(np.random.default_rng([recipe["seed"], index]), recipe["size"])
        pair = {"image": f"images/lesion_{index:03d}.png", "label": f"labels/lesion_{index:03d}.png"}
        Image.fromarray(image).save(folder / pair["image"])
        Image.fromarray(label).save(folder / pair["label"])
        pairs.append(pair)
    train_count = len(pairs) - max(1, len(pairs) // 5)
    datalist = {
        "name": "sample",
        "description": "drawn pictures that look like dermoscopy of skin lesions; not patient data",
        "labels": {"0": "background", "255": "lesion with its reddened border"},
        "recipe": recipe,
        "training": pairs[:train_count],
        "validation": pairs[train_count:],
    }
    (folder / "datalist.json").write_text(json.dumps(datalist, indent=1) + "\n", encoding="utf-8")


def _install(made: Path, folder: Path, recipe: dict, work: Path) -> None:
    """Move a finished sample into place; whoever comes second at the same place leaves the first one's there."""
    for attempt in range(10):  # each round may be lost to another process
        with contextlib.suppress(OSError):
            os.rename(made, folder)  # refused when the folder holds files
            return
        if _is_complete(folder, recipe):
            return
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, work / f"stale{attempt}")
    os.rename(made, folder)


def _draw_case(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture, (H, W, 3) uint8, and its label, (H, W) uint8 of 0 and 255."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    radius = rng.triangular(0.08, 0.14, 0.22)
    centre = rng.uniform(0.32, 0.68, 2)
    if rng.random() < 0.12:  # cut by the border of the picture
        centre[rng.integers(2)] = rng.choice([0.4 * radius, 1 - 0.4 * radius])
    dark = _outline(rng, x, y, centre, radius)
    lesion = dark - radius * rng.uniform(0.7, 1.0) + 0.05 * radius * _noise(rng, size, 8)  # with its reddened border

    density = _skin(rng, size) + _pigment(rng, dark, rng.triangular(0.4, 0.8, 2.0))
    redness = rng.uniform(0.18, 0.28) * np.exp(0.15 * _noise(rng, size, 12))
    density += (redness * _sigmoid(-lesion / rng.uniform(0.004, 0.012)))[..., None] * PINK
    if rng.random() < 0.25:
        opposite = 0.5 + rng.uniform(0.34, 0.44) * np.where(centre > 0.5, -1, 1)
        nevus = _outline(rng, x, y, opposite, rng.uniform(0.04, 0.09))
        nevus = np.maximum(nevus, 0.04 - lesion)  # never over the lesion, which would then look larger than its label
        density += _pigment(rng, nevus, rng.uniform(1.2, 1.9))
    if rng.random() < 0.2:
        edge = rng.uniform(0.03, 0.12) if centre[0] > 0.5 else rng.uniform(0.88, 0.97)
        strokes = _strokes(rng, size, int(rng.integers(1, 5)), 0.02, (edge, rng.uniform(0.2, 0.8)), 0.3)
        patchy = np.clip(0.5 + 0.3 * _noise(rng, size, 40), 0, 1)
        density += (strokes * patchy * (lesion > 0.03))[..., None] * INK
    if rng.random() < 0.5:
        length = rng.uniform(0.4, 1.2)
        hairs = _strokes(rng, size, int(rng.integers(2, 14)), rng.uniform(0.002, 0.0045), (0.5, 0.5), length)
        density += rng.uniform(0.3, 0.9) * hairs[..., None] * HAIR

    away = np.hypot(x - 0.5, y - 0.5)
    light = 1 + rng.normal(0, 0.14) * (x - 0.5) + rng.normal(0, 0.14) * (y - 0.5) - rng.uniform(0.1, 0.7) * away**3
    if away[lesion < 0].max() < 0.5 and rng.random() < 0.4:  # the black surround of a contact lens, clear of the lesion
        light *= _sigmoid((rng.uniform(0.53, 0.66) - away) / 0.012)
    picture = np.exp(-density) * light[..., None] + rng.normal(0, rng.uniform(0.006, 0.014), (size, size, 3))
    image = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    return image, np.where(lesion < 0, 255, 0).astype(np.uint8)


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(value / 2)


def _noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 3) -> np.ndarray:
    """Return smooth noise, mean 0 and deviation 1, whose largest blotches are 1/cells of the side."""
    field = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        side = min(cells << octave, size)
        grid = Image.fromarray(rng.standard_normal((side, side), dtype=np.float32))
        field += 0.6**octave * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
    return (field - field.mean()) / field.std()


def _outline(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Return about the distance to a random closed outline: an ellipse with Fourier waves, negative inside."""
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(1.0, 1.35)
    dx, dy = x - centre[0], y - centre[1]
    u = (dx * np.cos(turn) + dy * np.sin(turn)) / squeeze
    v = (dy * np.cos(turn) - dx * np.sin(turn)) * squeeze
    waves = np.arange(2, 14)
    height = rng.uniform(0.06, 0.28) * rng.standard_normal(12) / waves**0.9
    angle = np.arctan2(v, u)[..., None] * waves + rng.uniform(0, 2 * np.pi, 12)
    reach = radius * np.clip(1 + (height * np.cos(angle)).sum(-1), 0.4, 1.6)
    return (np.hypot(u, v) - reach).astype(np.float32)


def _skin(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return the optical density of bare skin, (H, W, 3), with redness, pigment and pores."""
    tone = rng.dirichlet(np.full(len(SKIN_TONES), 0.4)) @ SKIN_TONES
    flush = rng.uniform(0.02, 0.06) * _noise(rng, size, 4) + rng.uniform(0.01, 0.03) * _noise(rng, size, 48, 2)
    melanin = rng.uniform(0.01, 0.04) * _noise(rng, size, 3)
    return tone + flush[..., None] * PINK + melanin[..., None] * BROWN


def _pigment(rng: np.random.Generator, distance: np.ndarray, strength: float) -> np.ndarray:
    """Return the optical density that a lesion adds, (H, W, 3), given the distance to its outline."""
    size = len(distance)
    fringe = rng.uniform(0.004, 0.02) * _noise(rng, size, 24)
    depth = -(distance + fringe)
    inside = _sigmoid(depth / rng.uniform(0.005, 0.016)) * (1 + rng.uniform(0, 0.4) * np.tanh((depth - 0.05) / 0.05))
    blotches = np.exp(rng.uniform(0.1, 0.4) * _noise(rng, size, 6) + rng.uniform(0.05, 0.25) * _noise(rng, size, 40, 2))
    deep = np.clip(rng.uniform(-0.6, 0.5) + 0.4 * _noise(rng, size, 4), 0, 1)[..., None]
    surface = BROWN + rng.choice([0, 0, 0, 0.8]) * (PINK - BROWN)  # a quarter hold more blood than melanin
    return (strength * inside * blotches)[..., None] * (surface + deep * (SLATE - surface))


def _strokes(
    rng: np.random.Generator, size: int, count: int, width: float, about: tuple[float, float], length: float
) -> np.ndarray:
    """Return the cover, 0 to 1, of curved strokes of one rough direction scattered about a place."""
    fine = 4 * size  # drawn large and shrunk, for smooth edges
    canvas = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(canvas)
    main = rng.uniform(0, 2 * np.pi)
    t = np.linspace(0, 1, 24)[:, None]
    for _ in range(count):
        turn = main + rng.normal(0, 0.5)
        along = np.array([np.cos(turn), np.sin(turn)]) * length * rng.uniform(0.5, 1)
        middle = np.array(about) + rng.uniform(-0.5, 0.5, 2) * length
        bend = middle + rng.normal(0, 0.25 * length, 2)
        curve = (1 - t) ** 2 * (middle - along / 2) + 2 * t * (1 - t) * bend + t**2 * (middle + along / 2)
        pen.line([tuple(point) for point in (curve * fine).tolist()], 255, max(1, round(width * fine)), joint="curve")
    return np.asarray(canvas.reduce(4), dtype=np.float32) / 255
