# SPDX-License-Identifier: Apache-2.0
"""Segment everything on an image: a grid of clicks, and of their masks those that are sure, stable and not the same.

After the automatic mask generation of Kirillov et al., "Segment Anything" (2023), appendix B. Where SAM looks again at
crops laid out over the image, this looks again at a crop around each small object that the first look found, because
what the network predicts of its masks tells little while an object is a few cells of its grid.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from ..errors import InputError
from ..networks.promptable import Promptable
from ..prompts.class_layout import ClassLayout
from ..prompts.crops import SmallObjectCropper
from ..prompts.form import FOREGROUND, Entry, Prompt, pad_prompts
from .instances import MaskCandidate, number_instances, stability_score, suppress
from .session import CHUNK, PromptSession
from .slices import SliceInferer, note_seconds

SAME_IOU = 0.9  # of two masks of the first look that one closer look is enough for; less loses half of dense nuclei


class EverythingInferer(SliceInferer):
    """Click all over one image, and keep the instances that are found.

    The image is encoded once for the whole grid of clicks, and once more around each small object, with the same click.

    The answer of one image is (1, 1, X, Y[, Z]) int32: 0 is background, 1 to n are instances, the best score first.
    ``meta["prompts"]`` has an entry for each, without points but with ``box`` [x0, y0, x1, y1] (first and last pixel
    inside), ``area`` in pixels, ``predicted_iou`` and ``stability``.

    Args:
        points_per_side: of the grid of clicks; an object that lies between its points is missed.
        iou_threshold: the least IoU that the network predicts of a mask.
        stability_threshold: the least stability of a mask, see :func:`scripts.inferers.instances.stability_score`.
        first_look: share of both thresholds that a mask must reach to be looked at again, where there is a crop.
        nms_threshold: of two masks with a larger IoU than this, the one with the lower score is dropped.
        min_area: the fewest pixels of the image that an instance has.
        max_area: the largest share of the image that an instance covers; what covers more is background.
        crop: what small objects are, for the closer look; nothing never crops.
        slice_index: the slice of a volume to segment.
        layout: of the classes that the network answers for, which must be none.

    Raises:
        InputError: when there is no click, or the network answers with a mask for each class.
    """

    def __init__(
        self,
        points_per_side: int = 32,
        iou_threshold: float = 0.5,
        stability_threshold: float = 0.5,
        first_look: float = 0.8,
        nms_threshold: float = 0.3,
        min_area: int = 16,
        max_area: float = 0.5,
        crop: SmallObjectCropper | None = None,
        slice_index: int | None = None,
        layout: ClassLayout | None = None,
    ) -> None:
        super().__init__()
        if points_per_side < 1:
            raise InputError(f"points_per_side is at least 1, got {points_per_side}")
        if layout is not None:
            raise InputError(
                "these weights answer any click with the same masks, one for each class, so there are no instances to "
                "find: run configs/inference.yaml without points, or give weights without class_masks"
            )
        self.points_per_side = points_per_side
        self.iou_threshold = iou_threshold
        self.stability_threshold = stability_threshold
        self.first_look = first_look
        self.nms_threshold = nms_threshold
        self.min_area = min_area
        self.max_area = max_area
        self.crop = crop
        self.slice_index = slice_index

    def __call__(self, inputs: Tensor, network: Promptable, *args: Any, **kwargs: Any) -> MetaTensor:
        """Segment one image, and note in ``meta["seconds"]`` the time that it took; see :class:`SliceInferer`.

        Raises:
            InputError: when a volume comes and the slice is not given or does not exist.
        """
        start = time.perf_counter()
        result = super().__call__(inputs, network)
        note_seconds(result, start)
        return result

    def list_entries(self, inputs: Tensor, depth: int) -> list[Entry]:
        """Name the slice of which everything is asked."""
        return [{"slice": self.choose_slice(depth)}]

    def allocate(self, volume: Tensor, entries: Sequence[Entry]) -> Tensor:
        """Make a label map."""
        return torch.zeros((1, 1, *volume.shape[2:]), dtype=torch.int32, device=volume.device)

    def answer(
        self,
        inputs: Tensor,
        image: Tensor,
        entries: list[Entry],
        network: Promptable,
        output: Tensor,
        place: tuple | None,
    ) -> list[Entry]:
        """Find the instances of a slice, and lay them into its label map."""
        with torch.no_grad():
            found = self.find(image, network)
        instances, described = number_instances(found, (image.shape[2], image.shape[3]), self.min_area)
        output[0] = torch.from_numpy(instances).to(output.device)
        return [{"object": q, "slice": entries[0]["slice"], **entry} for q, entry in enumerate(described)]

    def choose_slice(self, depth: int) -> int:
        """Choose the slice of a volume of so many."""
        k = 0 if depth == 1 and self.slice_index is None else self.slice_index
        if k is None or not 0 <= k < depth:
            raise InputError(f"slice {k} of a volume of {depth}: set slice to the one to segment, 0 to {depth - 1}")
        return k

    def find(self, image: Tensor, network: Promptable) -> list[MaskCandidate]:
        """Find the instances of one upright image (1, 3, H, W), the best score first.

        Args:
            image: (1, 3, H, W), RGB in 0..1, upright.
            network: a :class:`scripts.networks.promptable.Promptable`.
        """
        session = PromptSession(network, image)
        embeddings = network.encode_image(image)
        clicks = grid_of_clicks(session.size, self.points_per_side)
        if self.crop is None:
            found = self.look_closer(image, embeddings, network, clicks)
        else:
            first = self.look(session, embeddings, clicks)
            found = self.look_closer(image, embeddings, network, [each.click for each in first])
        return suppress(found, self.nms_threshold)

    def look(self, session: PromptSession, embeddings: Tensor, clicks: Sequence[Prompt]) -> list[MaskCandidate]:
        """Find masks on the network's low-resolution grid, by less than the thresholds.

        Args:
            session: of the image.
            embeddings: of the whole image.
            clicks: a prompt of one point each.
        """
        found = []
        for start in range(0, len(clicks), CHUNK):
            part = clicks[start : start + CHUNK]
            points, labels = pad_prompts(part)
            low, iou = session.network.decode_best(
                embeddings,
                torch.from_numpy(points)[None].to(embeddings.device),
                torch.from_numpy(labels)[None].to(embeddings.device),
                session.size,
            )
            found += self.select(part, low[0, :, 0], iou[0], share=self.first_look, min_area=1)
        return suppress(found, SAME_IOU)

    def look_closer(
        self, image: Tensor, embeddings: Tensor, network: Promptable, clicks: Sequence[Prompt]
    ) -> list[MaskCandidate]:
        """Find masks on the image's grid, those of small objects on a crop.

        Args:
            image: (1, 3, H, W), RGB in 0..1, upright.
            embeddings: of the whole image.
            network: a :class:`scripts.networks.promptable.Promptable`.
            clicks: a prompt of one point each.
        """
        found = []
        for start in range(0, len(clicks), CHUNK):
            part = clicks[start : start + CHUNK]
            session = PromptSession(network, image, self.crop, embedding_cache={None: embeddings})
            logits, iou = session.predict(part)  # (CHUNK, H, W)
            found += self.select(part, logits, iou, share=1.0, min_area=self.min_area)
        return found

    def select(
        self, clicks: Sequence[Prompt], logits: Tensor, iou: Tensor, share: float, min_area: int
    ) -> list[MaskCandidate]:
        """Keep of Q masks, logits (Q, h, w), those that reach a share of the thresholds and have a fitting area.

        Args:
            clicks: a prompt of one point each.
            logits: (Q, h, w).
            iou: (Q) predicted.
            share: of the thresholds that a mask must reach.
            min_area: in pixels.
        """
        stability, area = stability_score(logits), (logits > 0).flatten(1).sum(1)
        kept = (iou >= share * self.iou_threshold) & (stability >= share * self.stability_threshold)
        kept &= (area >= min_area) & (area <= self.max_area * logits[0].numel())
        return [
            MaskCandidate(clicks[q], np.flatnonzero((logits[q] > 0).cpu().numpy()), float(iou[q]), float(stability[q]))
            for q in kept.nonzero().flatten().tolist()
        ]


def grid_of_clicks(size: Sequence[int], points_per_side: int) -> list[Prompt]:
    """Lay a foreground click into the middle of each cell of a grid over an image of ``size`` (H, W).

    Args:
        size: (H, W) of the image.
        points_per_side: of the grid.
    """
    middles = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(np.floor(middles * size[1]), np.floor(middles * size[0]))
    return [Prompt(np.array([xy], np.float32), np.array([FOREGROUND])) for xy in zip(x.ravel(), y.ravel())]
