# SPDX-License-Identifier: Apache-2.0
"""Noise and shapes of drawn pictures.

A shape comes as a small mask and its place, so that drawing costs as much as the object is large. Star-shaped outlines
with harmonics are those of AnyStar (Dey et al., 2024), regions of smooth noise those of SynthSeg (Billot et al., 2023).
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

ANGLES = 256  # of an outline
LEAST = 16  # pixels of an object


class Shape(NamedTuple):
    """A mask (h, w) bool whose top-left pixel lies at (y, x) of the picture, and the part of it in the picture."""

    mask: np.ndarray
    y: int
    x: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Return the rows and columns of the picture."""
        return slice(self.y, self.y + self.mask.shape[0]), slice(self.x, self.x + self.mask.shape[1])


def smooth_noise(rng: np.random.Generator, size: int, cells: float) -> np.ndarray:
    """Return (size, size) float32 noise of mean 0 and deviation 1.

    Args:
        rng: source of random numbers.
        size: height and width in pixels.
        cells: how many bumps there are across it.
    """
    count = max(2, round(cells)) + 3
    coarse = Image.fromarray(rng.standard_normal((count, count), np.float32))
    step = size / (count - 3)
    x, y = rng.uniform(1, 2, 2) * step
    scaled = round(count * step)
    noise = np.asarray(coarse.resize((scaled, scaled), Image.Resampling.BICUBIC))[int(y) :, int(x) :][:size, :size]
    noise = np.pad(noise, [(0, size - n) for n in noise.shape], mode="edge")
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def fractal_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return (size, size) float32 noise of several scales, of deviation 1.

    Args:
        rng: source of random numbers.
        size: height and width in pixels.
    """
    cells, amplitude, decay = 2 ** rng.uniform(1, 3.5), 1.0, rng.uniform(0.3, 0.8)
    noise = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 4)):
        noise += amplitude * smooth_noise(rng, size, min(cells, size / 2))
        amplitude, cells = amplitude * decay, cells * 2
    return noise / (noise.std() + 1e-6)


def draw_shape(rng: np.random.Generator, size: int, centre: np.ndarray, radius: float) -> Shape | None:
    """Draw a connected object, or nothing where too little of it lies in the picture.

    Args:
        rng: source of random numbers.
        size: height and width of the picture in pixels.
        centre: (x, y) in pixels.
        radius: half of its extent, about, in pixels.
    """
    kind = rng.random()
    reach = radius * (2.6 if kind > 0.88 else 2.0)
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, size).astype(int)
    if (high - low < 2).any():
        return None
    dx = np.arange(low[0], high[0], dtype=np.float32)[None] - centre[0]
    dy = np.arange(low[1], high[1], dtype=np.float32)[:, None] - centre[1]
    turn, stretch = rng.uniform(0, math.pi), math.exp(rng.normal(0, 0.35)) ** 0.5
    u = (dx * math.cos(turn) + dy * math.sin(turn)) / stretch
    v = (dy * math.cos(turn) - dx * math.sin(turn)) * stretch
    if kind < 0.6:
        mask = _star(rng, u, v, radius)
    elif kind < 0.76:  # a blob of noise within a disc
        noise = smooth_noise(rng, max(u.shape), rng.uniform(3, 10))[: u.shape[0], : u.shape[1]]
        mask = noise - (u**2 + v**2) / radius**2 * 1.5 + rng.uniform(0.2, 1.2) > 0
    elif kind < 0.88:  # a soft rectangle: a super-ellipse
        power = rng.uniform(1.2, 6)
        mask = (np.abs(u) / radius) ** power + (np.abs(v) / radius) ** power < 1
    else:
        mask = _tube(rng, u.shape, centre - low, radius)
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    if rng.random() < 0.8:
        mask = ndimage.binary_fill_holes(mask)
    return Shape(mask, int(low[1]), int(low[0])) if mask.sum() >= LEAST else None


def _star(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Draw an outline whose distance from the middle is a sum of waves around it."""
    angle = np.arange(ANGLES) * (2 * math.pi / ANGLES)
    outline, strength = np.ones(ANGLES), rng.choice([0.03, 0.08, 0.18, 0.3])
    for wave in range(2, rng.integers(3, 9)):
        outline += strength / wave**0.8 * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * math.pi))
    index = (np.arctan2(v, u) * (ANGLES / 2 / math.pi)).astype(int) % ANGLES
    return np.hypot(u, v) < radius * np.clip(outline, 0.25, 2).astype(np.float32)[index]


def wind(rng: np.random.Generator, steps: int, bend: float) -> np.ndarray:
    """Return a winding line (steps, 2) from the origin, (x, y) in pixels, two of them a step.

    Args:
        rng: source of random numbers.
        steps: of the line.
        bend: deviation of the turn at each step, in radians.
    """
    directions = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, bend, steps))
    return 2 * np.cumsum(np.stack([np.cos(directions), np.sin(directions)], 1), 0)


def pixels_of(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels (n, 2), (x, y), of points that lie in an image.

    Args:
        points: (N, 2), (x, y).
        shape: (H, W) of the image.
    """
    pixels = np.round(points).astype(int)
    return pixels[((pixels >= 0) & (pixels < shape[::-1])).all(1)]


def _tube(rng: np.random.Generator, shape: tuple[int, ...], start: np.ndarray, radius: float) -> np.ndarray:
    """Draw a winding line of one width, from the middle on."""
    path = pixels_of(start + wind(rng, int(1.25 * radius) + 4, 0.15), shape)
    far = np.ones(shape, bool)
    far[path[:, 1], path[:, 0]] = False
    width = max(1.2, radius * rng.uniform(0.08, 0.3))
    return ndimage.distance_transform_edt(far) < width if len(path) > 2 else ~far
