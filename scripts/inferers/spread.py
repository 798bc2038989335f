# SPDX-License-Identifier: Apache-2.0
"""Spread the answers of prompted slices through a volume, slice by slice, to where each object ends.

After micro-sam (Archit et al., "Segment Anything for Microscopy", 2025), which prompts a slice by its neighbour's mask
and stops where the two differ. Two things differ on purpose: slices that a user prompted are never changed, and an
object may also end by its area and by what the network believes of its own mask.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from ..errors import InputError
from ..io.axes import upright
from ..losses.mask_loss import mask_iou
from ..networks.promptable import Promptable
from ..prompts.class_layout import ClassLayout
from ..prompts.corrections import correction_click
from ..prompts.crops import Crop, SmallObjectCropper, mask_box
from ..prompts.form import BOTTOM_RIGHT, TOP_LEFT, Entry, Prompt, read_entries, write_entries
from .prompted_slices import PromptedSliceInferer
from .slices import source_state


@dataclass(frozen=True)
class EndOfObject:
    """Where an object that is followed from slice to slice ends.

    Args:
        iou: least IoU of a mask with that of the slice before, where slices lie as close as pixels.
        area: least area, as a share of that of the slice before, and how much larger it may be, likewise.
        predicted_iou: least IoU that the network predicts of its mask.
    """

    iou: float = 0.75
    area: float = 0.5
    predicted_iou: float = 0.5

    def __call__(self, mask: Tensor, before: Tensor, predicted_iou: float, steps: float = 1.0) -> bool:
        """Return whether a mask is no longer the object's.

        Args:
            mask: (H, W) bool.
            before: (H, W) bool of the slice before.
            predicted_iou: of the mask.
            steps: how often what one step may take off is taken off.
        """
        area, area_before, least_area = int(mask.sum()), int(before.sum()), self.area**steps
        if not area or predicted_iou < self.predicted_iou or not least_area <= area / area_before <= 1 / least_area:
            return True
        return float(mask_iou(mask.float() - 0.5, before.float())) < self.iou**steps


class SpreadInferer(PromptedSliceInferer):
    """Segment whole objects of a volume from prompts on a few of its slices.

    Prompted slices are answered as :class:`PromptedSliceInferer` does, and stay as they are. From each the object is
    followed both ways: a slice is prompted by the mask of its neighbour, by its box and its innermost point. Between
    two prompted slices it is followed from both to the middle; beyond, to where ``end`` says that it ends. A prompted
    slice with an empty answer bounds it. Where objects meet, the larger logit wins.

    Args:
        end: tells where an object ends.
        box_margin: how far the neighbour's box is enlarged on each side, as a share of its side.
        show_mask: whether the network is also shown the neighbour's mask.
        crop: see :class:`PromptedSliceInferer`, as the others.
        mask_feedback: as there.
        to_rgb: as there.
        kept_slices: as there; each slice is encoded once.
        layout: of the classes of a network that has a mask for each, which cannot be spread; it must be nothing.
        merge: whether a label map is asked for, as it must be.

    Raises:
        InputError: when the network answers by classes, or probabilities are asked for.
    """

    def __init__(
        self,
        end: EndOfObject | None = None,
        box_margin: float = 0.0,
        show_mask: bool = True,
        crop: SmallObjectCropper | None = None,
        mask_feedback: bool = True,
        to_rgb: Callable | None = None,
        kept_slices: int = 128,
        layout: ClassLayout | None = None,
        merge: bool = True,
    ) -> None:
        if layout is not None:
            raise InputError("weights with class masks cannot be spread through a volume: give others")
        if not merge:
            raise InputError("spreading gives masks and no probabilities: leave output_probability out")
        super().__init__(crop, None, mask_feedback, to_rgb, kept_slices, merge=True)
        self.end = end or EndOfObject()
        self.box_margin = box_margin
        self.show_mask = show_mask

    def __call__(self, inputs: Tensor, network: Promptable, *args: Any, **kwargs: Any) -> MetaTensor:
        """Answer the prompted slices of a volume, and spread.

        Args:
            inputs: (1, C, X, Y, Z), with its prompts; an image (1, C, X, Y) has nowhere to spread to.
            network: that answers.

        Returns:
            (1, 1, X, Y[, Z]) ids: object q is q + 1. In ``meta["prompts"]`` each prompt says from which slice to which
            its object extends.
        """
        result = super().__call__(inputs, network, *args, **kwargs)
        if inputs.ndim != 5:
            return result
        entries, labels = read_entries(result) or [], result.as_tensor()[0, 0]
        anchors: dict[int, dict[int, Tensor]] = {}  # (H, W) masks of prompted slices, by object
        for entry in entries:
            ids = upright(labels[..., entry["slice"]])
            anchors.setdefault(entry["object"], {})[entry["slice"]] = ids == entry["object"] + 1
        best: dict[int, Tensor] = {}  # the largest logits so far, of each slice that was reached
        prompted = {entry["slice"] for entry in entries}
        extents = {}
        for index, masks in anchors.items():
            reached = {k for k, mask in masks.items() if mask.any()}
            for k, (x0, y0, x1, y1), logits in self.follow(inputs, network, masks):
                ids = upright(labels[..., k])
                largest = best.setdefault(k, torch.zeros(ids.shape, device=logits.device))[y0:y1, x0:x1]
                ids = ids[y0:y1, x0:x1]
                wins = (logits > largest) & ((ids == 0) | (k not in prompted))
                ids[wins], largest[wins] = index + 1, logits[wins]
                reached.add(k)
            extents[index] = [min(reached), max(reached)] if reached else []
        for entry in entries:
            entry["extent"] = extents[entry["object"]]
        write_entries(result, entries)
        return result

    def follow(
        self, inputs: Tensor, network: Promptable, anchors: dict[int, Tensor]
    ) -> Iterator[tuple[int, Crop, Tensor]]:
        """Follow one object through the slices between and beyond those that were prompted.

        Args:
            inputs: (1, C, X, Y, Z).
            network: that answers.
            anchors: (H, W) mask of each prompted slice.

        Returns:
            The slice, the part of it that was looked at and its logits, one after the other.
        """
        volume, source = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs, source_state(inputs)
        depth, known = inputs.shape[4], sorted(anchors)
        # by the whole distance, objects of thick slices run past their ends
        steps_between = slice_distance(inputs) ** 0.5
        walks = [(known[0], -1, known[0], True), (known[-1], 1, depth - 1 - known[-1], True)]
        for low, high in pairwise(known):
            between = high - low - 1
            if anchors[low].any() and anchors[high].any():
                walks += [(low, 1, (between + 1) // 2, False), (high, -1, between // 2, False)]
            else:  # an empty one bounds the other
                walks += [(low, 1, between, True), (high, -1, between, True)]
        for start, step, steps, is_open in walks:
            before = anchors[start]
            for k in range(start + step, start + step * (steps + 1), step):
                if not before.any():
                    break
                image = upright(self.rgb_slice(inputs, volume[..., k]))
                view, logits, iou = self.look(image, network, before, source and (*source, k))
                mask = torch.zeros_like(before)
                mask[view[1] : view[3], view[0] : view[2]] = logits > 0
                if not mask.any() or (is_open and self.end(mask, before, iou, steps_between)):
                    break
                yield k, view, logits
                before = mask

    def look(
        self, image: Tensor, network: Promptable, before: Tensor, place: tuple | None
    ) -> tuple[Crop, Tensor, float]:
        """Predict an object on a slice from its mask on the slice before.

        Args:
            image: (1, 3, H, W) RGB in 0..1, upright.
            network: that answers.
            before: (H, W) bool, not empty.
            place: see :meth:`SliceInferer.answer`.

        Returns:
            The part (x0, y0, x1, y1) that was looked at, its logits (h, w), and the predicted IoU.
        """
        prompt = prompt_of(before.cpu().numpy(), self.box_margin)
        entry: Entry = {"object": 0, "points": prompt.points.tolist(), "labels": prompt.labels.tolist()}
        previous = before.int() if self.show_mask else None
        session = self.segment(image, [entry], network, previous, self.kept_of(network, place))
        view = session.views[0]
        return *session.part(view), view.iou


def slice_distance(image: Tensor) -> float:
    """Return how far apart the slices of a volume (1, C, X, Y, Z) lie, in pixels; 1 where nothing says it."""
    if not isinstance(image, MetaTensor):
        return 1.0
    x, y, z = torch.as_tensor(image.affine).reshape(-1, 4, 4)[0, :3, :3].norm(dim=0).tolist()
    return min(max(z / max((x * y) ** 0.5, 1e-6), 0.25), 4.0)  # a header may be wrong


def prompt_of(mask: np.ndarray, margin: float) -> Prompt:
    """Return the enlarged box and the innermost point of a mask.

    Args:
        mask: (H, W) bool, not empty.
        margin: of the box on each side, as a share of its side.
    """
    click = correction_click(np.zeros_like(mask), mask)
    if click is None:
        raise ValueError("an empty mask says nothing of where the object is on the next slice")
    box = np.reshape(np.array(mask_box(mask), np.float32), (2, 2))
    room = margin * (box[1] - box[0] + 1)
    box = (box + [-room, room]).clip(0, np.array(mask.shape[::-1], np.float32) - 1)
    labels = np.concatenate([[TOP_LEFT, BOTTOM_RIGHT], click.labels])
    return Prompt(np.concatenate([box, click.points]).astype(np.float32), labels)
