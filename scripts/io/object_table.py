# SPDX-License-Identifier: Apache-2.0
"""A table of what was found: a row for each object on each slice."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..prompts.form import Entry

COLUMNS = ("id", "name", "slice", "pixels", "centre_x", "centre_y", "x0", "y0", "x1", "y1", "predicted_iou")


def list_objects(
    labels: np.ndarray, entries: Sequence[Entry], k: int, names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """List the objects of one slice.

    Args:
        labels: (H, W) ids.
        entries: what was asked for; object q is id q + 1.
        k: index of the slice.
        names: of ids 1, 2, ..., where these are classes and not objects.

    Returns:
        Rows under :data:`COLUMNS`: the middle of the object's pixels, and its first and last pixel, (x, y) in pixels of
        the image.
    """
    iou = {e["object"] + 1: e.get("predicted_iou") for e in entries if e["slice"] == k and names is None}
    rows = []
    for i, window in enumerate(ndimage.find_objects(labels), 1):
        if window is None:
            continue
        ys, xs = np.nonzero(labels[window] == i)
        y0, x0 = window[0].start, window[1].start
        middle = {"centre_x": round(float(xs.mean()) + x0, 2), "centre_y": round(float(ys.mean()) + y0, 2)}
        box = {"x0": x0, "y0": y0, "x1": window[1].stop - 1, "y1": window[0].stop - 1}
        name = names[i - 1] if names else ""
        rows.append(
            {"id": i, "name": name, "slice": k, "pixels": len(ys), **middle, **box, "predicted_iou": iou.get(i)}
        )
    return rows


def write_objects(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows as CSV, the columns' names alone where nothing was found.

    Args:
        path: of the file.
        rows: an object each.
    """
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
