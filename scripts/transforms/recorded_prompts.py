# SPDX-License-Identifier: Apache-2.0
"""Ask for an object by the prompts that a person gave, which a list of images and labels may hold."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from scipy import ndimage

from ..prompts.form import BACKGROUND, BOTTOM_RIGHT, INSIDE, TOP_LEFT, Prompt

MOST_POINTS = 3  # as many as a drawn prompt has; what comes after them, training's own user says
RADIUS = 0.01  # of the disc that marks a click, as a share of the image's longer side: it outlasts being made smaller


class RandRecordedPromptsd(Randomizable, Transform):
    """Choose whether an item is prompted as a person did, by the first prompts that were recorded on its slice.

    A point does not go through transforms of images, and a mask does. So each click becomes a disc and a box what is
    inside of it: sets ``data["markers"]`` (N, H, W) uint8 and their labels ``data["marked"]``, which
    :class:`scripts.transforms.RandObjectMasksd` and :class:`scripts.transforms.RandPromptsd` take up.

    Args:
        prob: of doing so, where something was recorded.
        label_key: (1, H, W), of whose size the markers become.
    """

    def __init__(self, prob: float = 0.0, label_key: str = "label") -> None:
        self.prob = prob
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        points = [(x, y, label) for x, y, k, label in data.pop("recorded", ()) if k == data["slice"]]
        if not points or "before" in data or self.R.rand() >= self.prob:
            return data
        shape = tuple(data[self.label_key].shape[-2:])
        corners = [(x, y) for x, y, label in points if label in (TOP_LEFT, BOTTOM_RIGHT)][:2]
        clicks = [point for point in points if point[2] not in (TOP_LEFT, BOTTOM_RIGHT)]
        room = MOST_POINTS - len(corners)
        clicks = clicks[: self.R.randint(0 if corners else 1, min(room, len(clicks)) + 1)] if clicks else []
        if not corners and not any(label in INSIDE for _, _, label in clicks):
            return data  # which says nothing of an object
        markers, marked = [], []
        if len(corners) == 2:
            (x0, y0), (x1, y1) = corners
            box = np.zeros(shape, np.uint8)
            box[round(y0) : round(y1) + 1, round(x0) : round(x1) + 1] = 1
            markers, marked = [box], [TOP_LEFT]
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        for x, y, label in clicks:
            markers.append(((columns - x) ** 2 + (rows - y) ** 2 <= max(RADIUS * max(shape), 1) ** 2).astype(np.uint8))
            marked.append(label)
        data["markers"], data["marked"] = torch.from_numpy(np.stack(markers)), marked
        return data


def read_markers(markers: np.ndarray, marked: list[int]) -> Prompt | None:
    """Return the prompt that markers stand for; None where nothing of it is left that asks for an object.

    Args:
        markers: (N, H, W) bool, as transforms left them.
        marked: label of each; that of a box is of its first corner.
    """
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    for marker, label in zip(markers, marked, strict=True):
        if not marker.any():
            continue  # moved out of the picture
        if label == TOP_LEFT:
            rows, columns = ndimage.find_objects(marker.astype(np.uint8))[0]
            points += [(columns.start, rows.start), (columns.stop - 1, rows.stop - 1)]
            labels += [TOP_LEFT, BOTTOM_RIGHT]
        else:
            y, x = ndimage.center_of_mass(marker)
            points.append((round(x), round(y)))
            labels.append(label)
    if all(label == BACKGROUND for label in labels):
        return None
    return Prompt(np.array(points, np.float32), np.array(labels))
