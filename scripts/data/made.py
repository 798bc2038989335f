# SPDX-License-Identifier: Apache-2.0
"""Drawn pictures with objects of all kinds, made while training runs: breadth that no set of files has.

After ScribblePrompt (Wong et al., 2024) and AnyStar (Dey et al., 2024), which gain on kinds of images that they never
saw by training on drawn ones. Values are in 0..1, (H, W, C), C = 1 or 3, until the end.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from .made_effects import image_it
from .made_shapes import LEAST, Shape, draw_shape, fractal_noise

SIZE = 256  # of the pictures in pixels
ANEW = 10_000_019  # added to the index where a picture came out empty


@dataclass(frozen=True)
class MadePicture:
    """A drawn picture, or its label, in the place of a path: called, it gives what a reader would.

    Args:
        seed: of a set of pictures.
        index: of the picture in it; the same seed and index give the same picture.
        label: whether it is the label that is given.
    """

    seed: int
    index: int
    label: bool = False

    def __str__(self) -> str:
        return f"made/{self.seed}/{self.index:06d}"

    def __call__(self) -> MetaTensor:
        """Return the picture (C, X, Y) uint8 of 0..255, or its ids (1, X, Y) int32."""
        image, ids = draw_picture(self.seed, self.index)
        array = ids[None].astype(np.int32) if self.label else image.transpose(2, 0, 1)
        return MetaTensor(torch.from_numpy(array.swapaxes(1, 2).copy()), meta={"filename_or_obj": str(self)})


@lru_cache(maxsize=2)  # a picture is asked for, then its label
def draw_picture(seed: int, index: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture with one to forty objects of any size, contrast and texture.

    Args:
        seed: of a set of pictures.
        index: of the picture in it.
        size: height and width in pixels.

    Returns:
        (H, W, C) uint8, C = 1 or 3, and (H, W) uint16 ids of its objects, 0 for none.
    """
    rng = np.random.default_rng((seed, index))
    channels = 3 if rng.random() < 0.45 else 1
    image, ids = _draw_tissue(rng, size, channels)
    textures = [fractal_noise(rng, size) for _ in range(2)]
    mode = rng.random()
    count = 1 if mode < 0.25 else int(rng.integers(2, 8)) if mode < 0.65 else int(rng.integers(8, 41))
    smallest, largest = (25, 100) if count == 1 else (10, 60) if count < 8 else (4, 22)
    style = _Style.draw(rng, channels)
    for _ in range(count):
        radius = math.exp(rng.uniform(math.log(smallest), math.log(largest))) * size / SIZE
        shape = draw_shape(rng, size, rng.uniform(0.05, 0.95, 2) * size, radius)
        if shape is None:
            continue
        if not style.shared:
            style = _Style.draw(rng, channels, shared=False)
        _paint(rng, image, shape, style, textures)
        ids[shape.window][shape.mask] = ids.max() + 1
        if radius > 14 and rng.random() < 0.15:
            _nest(rng, image, ids, shape, radius)
    image, view = image_it(rng, image)
    ids[~view] = 0
    counts = np.bincount(ids.ravel())
    kept = 1 + np.flatnonzero(counts[1:] >= LEAST)
    if not len(kept):
        return draw_picture(seed, index + ANEW, size)
    renumbered = np.zeros(len(counts), np.uint16)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return (255 * image).round().astype(np.uint8), renumbered[ids]


@dataclass(frozen=True)
class _Style:
    """How objects differ from what is around them."""

    tone: np.ndarray  # (C), the direction of the contrast
    contrast: float
    texture: float  # deviation of it
    edge: float  # sigma of the border in pixels
    rim: float  # how much lighter the border is
    tint: bool  # whether what lies below is seen through it
    shared: bool  # whether all objects of the picture have it

    @classmethod
    def draw(cls, rng: np.random.Generator, channels: int, shared: bool | None = None) -> "_Style":
        """Draw a style."""
        tone = rng.normal() + rng.choice([0.2, 0.7, 1.5]) * rng.normal(0, 1, channels)
        return cls(
            tone=(tone / (np.abs(tone).max() + 1e-6)).astype(np.float32),
            contrast=math.exp(rng.uniform(math.log(0.06), math.log(0.6))),
            texture=rng.choice([0, 0.02, 0.06, 0.12]),
            edge=rng.choice([0, 0.7, 1.5, 3]),
            rim=rng.normal(0, 0.2) if rng.random() < 0.3 else 0.0,
            tint=rng.random() < 0.3,
            shared=rng.random() < 0.6 if shared is None else shared,
        )


def _draw_tissue(rng: np.random.Generator, size: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw regions of noise, now and then as objects: the picture and its ids."""
    ids = np.zeros((size, size), np.int32)
    count = int(rng.integers(1, 6))
    region = np.argmax([fractal_noise(rng, size) for _ in range(count)], 0) if count > 1 else ids.copy()
    base = np.clip(rng.uniform(0.1, 0.9) + rng.normal(0, rng.choice([0.04, 0.12, 0.25]), channels), 0.03, 0.97)
    spread = rng.choice([0.05, 0.12, 0.25])
    tones = base + spread * (rng.normal(size=(count, 1)) + rng.choice([0.2, 0.6]) * rng.normal(size=(count, channels)))
    image = np.clip(tones, 0.02, 0.98).astype(np.float32)[region]
    if rng.random() < 0.7:
        image = ndimage.gaussian_filter(image, (*(rng.uniform(0, 4),) * 2, 0))
    grain = rng.choice([0.01, 0.03, 0.08]) * fractal_noise(rng, size)
    image += grain[..., None] * rng.uniform(0.6, 1.2, channels).astype(np.float32)
    if count > 1 and rng.random() < 0.5:
        parts = [ndimage.label(region == j)[0] for j in range(count)]
        for part in parts:
            areas = np.bincount(part.ravel())
            for i in np.flatnonzero((areas > 300) & (areas < size**2 / 2)):
                if i > 0 and rng.random() < 0.6:
                    ids[part == i] = ids.max() + 1
    return image, ids


def _paint(
    rng: np.random.Generator, image: np.ndarray, shape: Shape, style: _Style, textures: list[np.ndarray]
) -> None:
    """Paint an object into a picture."""
    below = image[shape.window]
    mean = below[shape.mask].mean(0)
    change = style.tone * style.contrast * (1 if style.shared else rng.choice([-1, 1]))
    if ((mean + change > 1) | (mean + change < 0)).any():
        change = -change
    cover = shape.mask.astype(np.float32)
    cover = ndimage.gaussian_filter(cover, style.edge)[..., None] if style.edge else cover[..., None]
    texture = style.texture * textures[rng.integers(len(textures))][shape.window][..., None]
    fill = below + change if style.tint else mean + change + texture
    if rng.random() < 0.25:  # shading
        height, width = shape.mask.shape
        across, down = rng.normal(0, 0.003, 2)
        fill = (
            fill
            + (across * (np.arange(width) - width / 2) + down * (np.arange(height) - height / 2)[:, None])[..., None]
        )
    below[:] = below * (1 - cover) + fill * cover
    if style.rim:
        border = shape.mask ^ ndimage.binary_erosion(shape.mask, iterations=int(rng.integers(1, 4)))
        below += style.rim * ndimage.gaussian_filter(border.astype(np.float32), 0.7)[..., None]


def _nest(rng: np.random.Generator, image: np.ndarray, ids: np.ndarray, outer: Shape, radius: float) -> None:
    """Paint one more object inside of another."""
    rows, columns = np.nonzero(outer.mask)
    centre = np.array([outer.x + columns.mean(), outer.y + rows.mean()]) + rng.normal(0, radius / 5, 2)
    inner = draw_shape(rng, len(image), centre, radius * rng.uniform(0.25, 0.6))
    if inner is None:
        return
    inside = np.zeros(ids.shape, bool)
    inside[outer.window] = ndimage.binary_erosion(outer.mask, iterations=2)
    mask = inner.mask & inside[inner.window]
    if mask.sum() > LEAST:
        image[inner.window][mask] += rng.normal(0, rng.choice([0.08, 0.2, 0.4]), image.shape[2])
        ids[inner.window][mask] = ids.max() + 1
