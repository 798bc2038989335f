# SPDX-License-Identifier: Apache-2.0
"""Masks and prompts drawn on an image, and such pictures side by side.

An image is (H, W, 3) uint8 RGB, upright. Whatever is given as an array may be anything that ``numpy.asarray`` takes,
such as a tensor on the CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ..prompts.form import BACKGROUND, BOTTOM_RIGHT, FOREGROUND, PADDING, SHARED, TOP_LEFT

__all__ = ["drawn_step", "overlay", "panels", "to_uint8"]

# After Okabe and Ito, told apart by colour-blind readers. Blue comes first because neither skin nor grey tissue has it,
# and is purer than theirs because their sky blue over brown turns grey; yellow is left out because boxes are yellow.
PALETTE = np.array([(0, 150, 255), (230, 159, 0), (204, 121, 167), (213, 94, 0), (0, 158, 115)], dtype=np.uint8)
CRISP: dict[str, Any] = {"quality": 92, "subsampling": 0}  # of JPEG, which takes a twentieth of the time of PNG
FILL = 0.4  # share of a mask's colour within the mask: the tissue stays visible
GREEN, RED, YELLOW = (0, 170, 60), (225, 20, 20), (255, 225, 0)


def to_uint8(image: ArrayLike) -> np.ndarray:
    """Turn an image of the network's form into one that can be drawn and saved.

    Args:
        image: (3, H, W) floats; values outside 0..1 are clipped.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: when the image has another shape or holds no floats.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[0] != 3:
        raise ValueError(f"image must be (3, H, W), got {array.shape}.")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"image must hold floats in 0..1, got {array.dtype}.")
    return np.rint(255 * np.clip(array, 0, 1)).astype(np.uint8).transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)


def drawn_step(size: Sequence[int], most: int) -> int:
    """Return the step in pixels at which an image is drawn, so that its longer side has at most so many.

    Args:
        size: (H, W) of the image.
        most: pixels of the longer side.
    """
    return -(-max(size) // most)


def overlay(
    image: ArrayLike,
    labels: ArrayLike | None = None,
    points: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    min_side: int = 512,
) -> np.ndarray:
    """Draw a label map and prompts on an image.

    An object is filled half-transparently and outlined in its own colour. A foreground click is a green star, a
    background click a red star, a box a yellow rectangle.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) ids on the grid of the image, 0 for nothing; or one mask, bool.
        points: (Q, N, 2), (x, y) in pixels of the image; a whole number is the middle of a pixel.
        point_labels: (Q, N) int, -1 padding, 0 background, 1 foreground, 2 and 3 a box's top-left and bottom-right,
            4 a click shared by classes.
        min_side: an image whose shorter side has fewer pixels than this is enlarged to it.

    Returns:
        (H', W', 3) uint8, of the image's own size unless enlarged.

    Raises:
        ValueError: when a shape or type is wrong, a point label is unknown or a box lacks a corner.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8, got {array.shape} {array.dtype}.")
    ids = _check_labels(labels, array.shape[:2])
    points, point_labels = _check_prompts(points, point_labels)

    height, width = array.shape[:2]
    zoom = max(1.0, min(min_side / min(height, width), 4 * min_side / max(height, width)))  # a strip stays a strip
    size = (round(width * zoom), round(height * zoom))
    picture = Image.fromarray(_resize(array, size))
    ids = np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))
    line = max(1, round(min(size) / 200))
    for box in ndimage.find_objects((ids > 0).view(np.uint8)):  # of all that is drawn
        on_part = ids[box]
        share = np.where(on_part > 0, np.uint8(round(255 * FILL)), np.uint8(0))
        share[_outline(on_part, line)] = 255
        colours = Image.fromarray(((on_part - 1) % len(PALETTE)).astype(np.uint8))
        colours.putpalette(PALETTE.tobytes())
        picture.paste(colours.convert("RGB"), (box[1].start, box[0].start), Image.fromarray(share))
    _draw_prompts(picture, (points + 0.5) * zoom - 0.5, point_labels, line)  # middles of pixels, in the enlarged grid
    return np.array(picture)


def panels(images: Sequence[ArrayLike], titles: Sequence[str], columns: int | None = None, gap: int = 8) -> np.ndarray:
    """Set pictures side by side on white, each with its title above.

    Args:
        images: pictures, each (H, W, 3) uint8; all are brought to the height of the tallest.
        titles: one for each picture, in one size of type that lets the longest fit, if that is still readable.
        columns: pictures in a row; None sets all in one row.
        gap: pixels between pictures and around them.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: when there is no picture, a picture has another shape or type, the titles are more or fewer than the
            pictures, or ``columns`` is less than 1.
    """
    arrays = [np.asarray(image) for image in images]
    if not arrays or len(arrays) != len(titles):
        raise ValueError(f"panels needs pictures and a title for each, got {len(arrays)} and {len(titles)} titles.")
    for array in arrays:
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise ValueError(f"each picture must be (H, W, 3) uint8, got {array.shape} {array.dtype}.")
    columns = len(arrays) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")

    height = max(array.shape[0] for array in arrays)
    widths = [round(array.shape[1] * height / array.shape[0]) for array in arrays]
    font = _fitting_font(titles, widths, largest=max(12, height // 20))
    strip = math.ceil(1.6 * getattr(font, "size", 10))
    column_widths = [max(widths[column::columns]) for column in range(min(columns, len(arrays)))]
    rows = math.ceil(len(arrays) / columns)
    sheet = Image.new("RGB", (gap + sum(w + gap for w in column_widths), gap + rows * (strip + height + gap)), "white")
    for index, (array, title, width) in enumerate(zip(arrays, titles, widths)):
        row, column = divmod(index, columns)
        cell = Image.new("RGB", (width, strip + height), "white")  # a title too long ends with its own cell
        ImageDraw.Draw(cell).text((0, strip / 2), title, "black", font, anchor="lm")
        cell.paste(Image.fromarray(array).resize((width, height), Image.Resampling.BICUBIC), (0, strip))
        sheet.paste(cell, (gap + sum(w + gap for w in column_widths[:column]), gap + row * (strip + height + gap)))
    return np.array(sheet)


def _check_labels(labels: ArrayLike | None, grid: tuple[int, int]) -> np.ndarray:
    """Return the label map as (H, W) int32, all 0 for none."""
    array = np.zeros(grid, np.int32) if labels is None else np.asarray(labels)
    if array.shape != grid:
        raise ValueError(f"labels must be ({grid[0]}, {grid[1]}), as the image is, got {array.shape}.")
    if not (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"labels must be ids or bool, got {array.dtype}: threshold logits first.")
    return array.astype(np.int32)


def _check_prompts(points: ArrayLike | None, point_labels: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the points as (Q, N, 2) float and their labels as (Q, N), Q = 0 for none."""
    if (points is None) != (point_labels is None):
        raise ValueError("points and point_labels must be given together.")
    if points is None:
        return np.zeros((0, 0, 2)), np.zeros((0, 0))
    points, point_labels = np.asarray(points, dtype=float), np.asarray(point_labels)
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"points must be (Q, N, 2), got {points.shape}.")
    if point_labels.shape != points.shape[:2]:
        raise ValueError(f"point_labels must be {points.shape[:2]}, one for each point, got {point_labels.shape}.")
    unknown = np.setdiff1d(point_labels, (PADDING, BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT, SHARED))
    if unknown.size:
        raise ValueError(f"point_labels must be -1, 0, 1, 2, 3 or 4, got {unknown.tolist()}.")
    if np.any((point_labels == TOP_LEFT).sum(1) != (point_labels == BOTTOM_RIGHT).sum(1)):
        raise ValueError("point_labels must give each box both corners, one point labelled 2 and one labelled 3.")
    return points, point_labels


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to a size (width, height) as PIL does by its bicubic filter, in a tenth of the time."""
    if image.shape[1::-1] == size:
        return image
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # a copy, which may be written to
    return F.interpolate(pixels, size[::-1], mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()


def _outline(ids: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels, (H, W) bool, that lie within ``width`` steps of another id or the border, of (H, W) ids."""
    ring = np.pad(ids, 1)
    sides = ring[:-2, 1:-1], ring[2:, 1:-1], ring[1:-1, :-2], ring[1:-1, 2:]
    inner = (ids > 0) & np.logical_and.reduce([side == ids for side in sides])
    return (ids > 0) & ~(ndimage.binary_erosion(inner, iterations=width - 1) if width > 1 else inner)


def _draw_prompts(picture: Image.Image, points: np.ndarray, point_labels: np.ndarray, line: int) -> None:
    """Draw boxes, then clicks above them; points are (Q, N, 2) in pixels of the picture, lines ``line`` pixels wide."""
    pen = ImageDraw.Draw(picture)
    for query, labels in zip(points, point_labels):
        for corners in zip(query[labels == TOP_LEFT], query[labels == BOTTOM_RIGHT]):
            left, top, right, bottom = np.rint([np.min(corners, axis=0), np.max(corners, axis=0)]).ravel().tolist()
            # A dark rim on both sides keeps the yellow readable on pale skin.
            pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(40, 40, 40), width=line + 2)
            pen.rectangle((left, top, right, bottom), outline=YELLOW, width=line)
    for label, colour in ((BACKGROUND, RED), (FOREGROUND, GREEN), (SHARED, GREEN)):
        star = _star(max(6, round(min(picture.size) / 36)), colour)
        for x, y in np.rint(points[point_labels == label]).astype(int).tolist():
            picture.paste(star, (x - star.width // 2, y - star.height // 2), star)


@functools.lru_cache
def _star(radius: int, colour: tuple[int, int, int]) -> Image.Image:
    """Return a five-pointed star with a white rim, RGBA, of 2 * radius + 1 pixels each way."""
    scale, side = 8, 2 * radius + 1  # drawn large and shrunk, for smooth edges
    star = Image.new("RGBA", (scale * side, scale * side), (255, 255, 255, 0))
    pen = ImageDraw.Draw(star)
    turns = np.arange(10) * math.pi / 5
    for outer, fill in ((1.0, (255, 255, 255)), (0.7, colour)):
        reach = outer * scale * radius * np.where(np.arange(10) % 2, 0.5, 1.0)
        corners = scale * side / 2 + np.stack([reach * np.sin(turns), -reach * np.cos(turns)], axis=1)
        pen.polygon([tuple(corner) for corner in corners.tolist()], fill=fill)
    return star.reduce(scale)


def _fitting_font(
    titles: Sequence[str], widths: Sequence[int], largest: int
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of the largest size at which every title is as narrow as its picture, but readable."""
    font = ImageFont.load_default(largest)
    fit = min(width / max(1.0, font.getlength(title)) for title, width in zip(titles, widths))
    return ImageFont.load_default(max(10, min(largest, math.floor(largest * fit))))
