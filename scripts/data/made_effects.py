# SPDX-License-Identifier: Apache-2.0
"""What an imaging device does to a drawn picture: bias fields, blur, speckle, noise, hairs, highlights, its view."""

import numpy as np
from scipy import ndimage

from .made_shapes import pixels_of, smooth_noise, wind


def image_it(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take a picture of a picture.

    Args:
        rng: source of random numbers.
        image: (H, W, C) float32 in about 0..1, H = W.

    Returns:
        (H, W, C) float32 in 0..1, and (H, W) bool: what of it the device sees.
    """
    size, channels = len(image), image.shape[2]
    if rng.random() < 0.5:  # a bias field
        image = image * np.exp(rng.uniform(0.05, 0.4) * smooth_noise(rng, size, 2))[..., None]
    if rng.random() < 0.3:
        image = ndimage.gaussian_filter(image, (*(rng.uniform(0.3, 2.2),) * 2, 0))
    if rng.random() < 0.3:  # speckle, wider across than along
        grain = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), rng.uniform(0.3, (1.2, 2.0)))
        image = image * (1 + rng.uniform(0.1, 0.9) * grain)[..., None]
    if rng.random() < 0.6:
        image = image + rng.uniform(0.005, 0.08) * rng.standard_normal((size, size, channels), np.float32)
    if rng.random() < 0.12:
        image = _draw_hairs(rng, image)
    if rng.random() < 0.12:
        image = _draw_highlights(rng, image)
    view = np.ones((size, size), bool)
    if rng.random() < 0.25:
        view = _draw_view(rng, size)
        image = np.where(view[..., None], image, rng.choice([0, 0.02, 0.9], p=[0.7, 0.2, 0.1]))
    image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.6)
    if rng.random() < 0.15:
        image = 1 - image
    if rng.random() < 0.5:
        low, high = np.percentile(image[::2, ::2], [0.5, 99.5])
        image = np.clip((image - low) / (high - low + 1e-6), 0, 1)
    return image.astype(np.float32), view


def _draw_hairs(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Draw a few dark winding lines over a picture."""
    size = len(image)
    lines = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 8)):
        line = wind(rng, 120, 0.05)
        path = pixels_of(rng.uniform(0, size, 2) + line, lines.shape)
        lines[path[:, 1], path[:, 0]] = 1
    cover = np.clip(ndimage.gaussian_filter(lines, 1) * 4, 0, 1)[..., None]
    return image * (1 - cover) + cover * rng.uniform(0, 0.3)


def _draw_highlights(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Draw small round reflections of a lamp."""
    size = len(image)
    axis = np.arange(size, dtype=np.float32)
    for _ in range(rng.integers(1, 12)):
        (x, y), width = rng.uniform(0, size, 2), rng.uniform(1, 5)
        rows, columns = (np.exp(-((axis - centre) ** 2) / (2 * width**2)) for centre in (y, x))
        cover = (rows[:, None] * columns)[..., None]
        image = image * (1 - cover) + cover
    return image


def _draw_view(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the disc or the sector that a device sees, (H, W) bool."""
    axis = np.arange(size, dtype=np.float32) - size / 2
    x, y = axis + rng.normal(0, size / 25), (axis + rng.normal(0, size / 25))[:, None]
    if rng.random() < 0.7:
        return np.hypot(x, y) < rng.uniform(0.42, 0.68) * size
    return np.abs(np.arctan2(axis, axis[:, None] + size / 2 + rng.uniform(5, 60))) < rng.uniform(0.5, 0.8)
