# SPDX-License-Identifier: Apache-2.0
"""Masks that many clicks found, and how they become the instances of one label map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.box_utils import non_max_suppression
from scipy import ndimage, sparse
from torch import Tensor

from ..prompts.form import Entry, Prompt

STABILITY_OFFSET = 1.0  # of logits, to both sides of the threshold (SAM's default)


@dataclass(frozen=True, eq=False)
class MaskCandidate:
    """A mask that a click found."""

    click: Prompt
    pixels: np.ndarray  # flat indices into the grid that it was found on: many masks, but few pixels each
    predicted_iou: float
    stability: float

    @property
    def score(self) -> float:
        """Return what masks compete by: of the two, neither alone tells the true IoU as well as their product."""
        return self.predicted_iou * self.stability


def stability_score(logits: Tensor) -> Tensor:
    """Return how little masks change with the threshold: the IoU at a higher and a lower one (SAM, appendix B).

    Args:
        logits: (Q, h, w), threshold 0.

    Returns:
        (Q) in 0..1; 0 where nothing is above the lower threshold.
    """
    high, low = ((logits > offset).flatten(1).sum(1) for offset in (STABILITY_OFFSET, -STABILITY_OFFSET))
    return high / low.clamp(min=1)


def suppress(found: Sequence[MaskCandidate], threshold: float) -> list[MaskCandidate]:
    """Drop the masks that a better one covers, by IoU of masks, and give the rest, the best score first.

    Args:
        found: masks with a box and a quality.
        threshold: IoU of two boxes above which the worse one goes.
    """
    if not found:
        return []
    overlap = torch.from_numpy(pairwise_iou([each.pixels for each in found]))
    # MONAI's function passes rows to the metric unseen, so that they may be numbers of masks in place of boxes
    rows = torch.arange(len(found), dtype=torch.float64).unsqueeze(1)
    scores = torch.tensor([each.score for each in found], dtype=torch.float64)
    kept = non_max_suppression(
        rows, scores, threshold, box_overlap_metric=lambda some, one: overlap[some.long(), one.long()]
    )
    return [found[index] for index in kept.tolist()]


def pairwise_iou(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the IoU (N, N) of each mask with each, given their flat indices into one grid."""
    areas = np.array([len(pixels) for pixels in masks])
    ones = np.ones(areas.sum(), np.int32)
    rows = sparse.csr_array((ones, np.concatenate(masks), np.concatenate([[0], areas.cumsum()])))
    intersection = (rows @ rows.T).toarray()
    return intersection / (areas[:, None] + areas - intersection)


def number_instances(
    found: Sequence[MaskCandidate], size: tuple[int, int], min_area: int
) -> tuple[np.ndarray, list[Entry]]:
    """Lay masks into one label map, better ones on top.

    Args:
        found: masks on a grid of ``size``, the best first.
        size: (H, W) of the image.
        min_area: the fewest pixels that must be left of a mask under the better ones.

    Returns:
        (H, W) int32 with instances 1 to n in the order of ``found``, and the description of each.
    """
    labels = np.zeros(size[0] * size[1], np.int32)
    kept = []
    for each in found:
        free = each.pixels[labels[each.pixels] == 0]
        if len(free) >= min_area:
            kept.append((each, len(free)))
            labels[free] = len(kept)
    labels = labels.reshape(size)
    entries: list[Entry] = []
    for (each, area), (rows, columns) in zip(kept, ndimage.find_objects(labels)):
        entries.append(
            {
                "points": [],
                "labels": [],
                "box": [columns.start, rows.start, columns.stop - 1, rows.stop - 1],
                "area": area,
                "predicted_iou": round(each.predicted_iou, 4),
                "stability": round(each.stability, 4),
            }
        )
    return labels, entries
