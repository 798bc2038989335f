# SPDX-License-Identifier: Apache-2.0
"""Spread the answers of prompted slices through a volume, slice by slice, to where each object ends.

After micro-sam (Archit et al., "Segment Anything for Microscopy", 2025), which prompts a slice by its neighbour's mask
and stops where the two differ. Two things differ on purpose: slices that a user prompted are never changed, and an
object may also end by its area and by what the network believes of its own mask.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..io.axes import upright
from ..networks.promptable import Promptable
from ..prompts.carried import CHOSEN, PARTS, carried_prompt
from ..prompts.class_layout import ClassLayout
from ..prompts.crops import Crop, SmallObjectCropper
from ..prompts.form import Entry, Prompt, asks, read_entries, write_entries
from .end_of_object import EndOfObject, slice_distance
from .prompted_slices import PromptedSliceInferer
from .slices import note_seconds, source_state

Anchors = Mapping[int, Mapping[int, Tensor]]  # (H, W) bool masks that stay as they are, by object and slice


class SpreadInferer(PromptedSliceInferer):
    """Segment whole objects of a volume from prompts on a few of its slices.

    Prompted slices are answered as :class:`PromptedSliceInferer` does, and stay as they are. From each the object is
    followed both ways: a slice is prompted by the mask of its neighbour. Between two prompted slices it is followed
    from both to the middle; beyond, to where ``end`` says that it ends. A prompted slice with an empty answer bounds
    it, so a background click alone says "stop here". Where objects meet, the larger logit wins.

    A label map that comes with the image (:class:`scripts.transforms.PreviousMaskd`) is of slices that are right: an
    object is followed from each slice of it, as from prompted ones. Clicks on such a slice correct it first.

    Args:
        end: tells where an object ends.
        parts: what of the neighbour's mask prompts a slice, of :data:`scripts.prompts.carried.PARTS`.
        box_margin: how far the neighbour's box is enlarged on each side, as a share of its side.
        progress: whether a bar counts the slices, in a terminal.
        crop: see :class:`PromptedSliceInferer`, as the others.
        mask_feedback: as there.
        to_rgb: as there.
        kept_slices: as there, in half precision; each slice is encoded once.
        layout: of the classes of a network that has a mask for each, which cannot be spread; it must be nothing.
        merge: whether a label map is asked for, as it must be.

    Raises:
        InputError: when the network answers by classes, probabilities are asked for, or a part is not known.
    """

    def __init__(
        self,
        end: EndOfObject | None = None,
        parts: Collection[str] = CHOSEN,
        box_margin: float = 0.0,
        progress: bool = False,
        crop: SmallObjectCropper | None = None,
        mask_feedback: bool = True,
        to_rgb: Callable | None = None,
        kept_slices: int = 512,
        layout: ClassLayout | None = None,
        merge: bool = True,
    ) -> None:
        if layout is not None:
            raise InputError("weights with class masks cannot be spread through a volume: give others")
        if not merge:
            raise InputError("spreading gives masks and no probabilities: leave output_probability out")
        if not set(parts) <= set(PARTS) or not {"box", "point"} & set(parts):
            raise InputError(
                f"the parts of a mask that prompt the next slice are some of {PARTS}, a box or a point of them, got "
                f"{list(parts)}"
            )
        super().__init__(crop, None, mask_feedback, to_rgb, kept_slices, merge=True, half_precision=True)
        self.end = end or EndOfObject()
        self.parts = tuple(parts)
        self.box_margin = box_margin
        self.progress = progress

    def __call__(self, inputs: Tensor, network: Promptable, *args: Any, **kwargs: Any) -> MetaTensor:
        """Answer the prompted slices of a volume, and spread.

        Args:
            inputs: (1, C, X, Y, Z), with its prompts; an image (1, C, X, Y) has nowhere to spread to.
            network: that answers.

        Returns:
            (1, 1, X, Y[, Z]) ids: object q is q + 1. In ``meta["prompts"]`` each prompt says from which slice to which
            its object extends; ``meta["seconds"]`` is the time that it took.
        """
        start = time.perf_counter()
        result = super().__call__(inputs, network, *args, **kwargs)
        if inputs.ndim != 5:
            return result
        entries, labels = read_entries(result) or [], result.as_tensor()[0, 0]
        given = self.previous_mask(inputs)
        for entry in entries:
            if given is not None and not entry["labels"]:
                slice_ids = labels[..., entry["slice"]]
                slice_ids[given[..., entry["slice"]] == entry["object"] + 1] = entry["object"] + 1
        anchors: dict[int, dict[int, Tensor]] = {}
        for entry in entries:
            ids = upright(labels[..., entry["slice"]])
            anchors.setdefault(entry["object"], {})[entry["slice"]] = ids == entry["object"] + 1
        extents = self.spread(inputs, network, anchors, labels)
        for entry in entries:
            entry["extent"] = extents[entry["object"]]
        write_entries(result, entries)
        note_seconds(result, start)
        return result

    def list_entries(self, inputs: Tensor, depth: int) -> list[Entry]:
        """List the prompts that came with an image, and one without points for each object on a slice of its mask."""
        entries = super().list_entries(inputs, depth)
        given = self.previous_mask(inputs)
        if given is None or inputs.ndim != 5:
            return entries
        asked = {(entry["object"], entry["slice"]) for entry in entries}
        for k in given.flatten(0, 1).any(0).nonzero().flatten().tolist():
            for i in given[..., k].unique().tolist():
                if i > 0 and (i - 1, k) not in asked:
                    entries.append({"object": i - 1, "slice": k, "points": [], "labels": [], "predicted_iou": 1.0})
        return entries

    def asked(self, inputs: Tensor, entries: list[Entry]) -> list[Entry]:
        """Leave out what has no points, and background clicks where there is no mask that they correct."""
        given = self.previous_mask(inputs)

        def is_corrected(entry: Entry) -> bool:
            return given is not None and bool((given[..., entry["slice"]] == entry["object"] + 1).any())

        return [entry for entry in entries if entry["labels"] and (asks(entry) or is_corrected(entry))]

    def spread(self, inputs: Tensor, network: Promptable, anchors: Anchors, labels: Tensor) -> dict[int, list[int]]:
        """Follow each object from its masks on some slices, which stay as they are.

        Args:
            inputs: (1, C, X, Y, Z) with its meta.
            network: that answers.
            anchors: what stays; an empty mask bounds its object.
            labels: (X, Y, Z) ids with the anchors drawn, object q as q + 1; changed in place.

        Returns:
            The first and the last slice of each object; nothing of one that is nowhere.
        """
        best: dict[int, Tensor] = {}  # the largest logits so far, of each slice that was reached
        kept = {k for masks in anchors.values() for k in masks}
        extents = {}
        with tqdm(desc="slices", disable=None if self.progress else True, leave=False) as bar:
            for index, masks in anchors.items():
                reached = {k for k, mask in masks.items() if mask.any()}
                for k, (x0, y0, x1, y1), logits in self.follow(inputs, network, masks):
                    ids = upright(labels[..., k])
                    if k not in best:
                        best[k] = torch.zeros(ids.shape if len(anchors) > 1 else (1, 1), device=logits.device)
                    largest, ids = best[k].expand(ids.shape)[y0:y1, x0:x1], ids[y0:y1, x0:x1]
                    wins = (logits > largest) & ((ids == 0) | (k not in kept))
                    ids[wins] = index + 1
                    if len(anchors) > 1:  # of one object there is nothing to compare
                        largest[wins] = logits[wins]
                    reached.add(k)
                    bar.update()
                extents[index] = [min(reached), max(reached)] if reached else []
        return extents

    def follow(
        self, inputs: Tensor, network: Promptable, anchors: Mapping[int, Tensor], source: tuple | None = None
    ) -> Iterator[tuple[int, Crop, Tensor]]:
        """Follow one object through the slices between and beyond those whose masks are known, the nearest first.

        Args:
            inputs: (1, C, X, Y, Z).
            network: that answers.
            anchors: (H, W) mask of each such slice.
            source: by which embeddings are kept; nothing takes that of :func:`scripts.inferers.slices.source_state`.

        Returns:
            The slice, the part of it that was looked at and its logits, one after the other.
        """
        source = source or source_state(inputs)  # looked at once: a series has many files
        walks = list_walks(anchors, inputs.shape[4])
        # in turn, so that who stops early has as much of each side
        for steps in zip_longest(*(self.walk(inputs, network, anchors[each.start], each, source) for each in walks)):
            yield from filter(None, steps)

    def walk(
        self, inputs: Tensor, network: Promptable, before: Tensor, walk: "Walk", source: tuple | None
    ) -> Iterator[tuple[int, Crop, Tensor]]:
        """Follow one object one way, from a slice whose mask is known.

        Args:
            inputs: (1, C, X, Y, Z).
            network: that answers.
            before: (H, W) bool mask of that slice.
            walk: the slices.
            source: by which embeddings are kept.

        Returns:
            As :meth:`follow`.
        """
        # by the whole distance, objects of thick slices run past their ends
        steps_between = slice_distance(inputs) ** 0.5
        for k in walk.slices:
            if not before.any():
                break
            prompt = carried_prompt(before.cpu().numpy(), self.parts, self.box_margin)
            view, logits, iou = self.look(inputs, network, k, prompt, before if "mask" in self.parts else None, source)
            mask = on_slice(view, logits, before.shape)
            if not mask.any() or (walk.is_open and self.end(mask, before, iou, steps_between)):
                break
            yield k, view, logits
            before = mask

    def look(
        self,
        inputs: Tensor,
        network: Promptable,
        k: int,
        prompt: Prompt,
        previous: Tensor | None = None,
        source: tuple | None = None,
    ) -> tuple[Crop, Tensor, float]:
        """Predict one object on a slice.

        Args:
            inputs: (1, C, X, Y, Z) with its meta.
            network: that answers.
            k: the slice.
            prompt: of the object.
            previous: (H, W) bool mask that the network is shown, too.
            source: of :func:`scripts.inferers.slices.source_state`, by which embeddings are kept; nothing keeps none.

        Returns:
            The part (x0, y0, x1, y1) that was looked at, its logits (h, w), and the predicted IoU.
        """
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        image = upright(self.rgb_slice(inputs, volume[..., k]))
        entry: Entry = {"object": 0, "points": prompt.points.tolist(), "labels": prompt.labels.tolist()}
        kept = self.kept_of(network, source and (*source, k))
        session = self.segment(image, [entry], network, None if previous is None else previous.int(), kept)
        view = session.views[0]
        return *session.part(view), view.iou


def on_slice(view: Crop, logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return the mask (H, W) bool of a slice.

    Args:
        view: (x0, y0, x1, y1), the part that was looked at.
        logits: (h, w) of that part.
        size: (H, W) of the slice.
    """
    x0, y0, x1, y1 = view
    mask = torch.zeros(tuple(size), dtype=torch.bool, device=logits.device)
    mask[y0:y1, x0:x1] = logits > 0
    return mask


class Walk(NamedTuple):
    """Slices through which an object is followed, one after the other."""

    start: int  # whose mask is known
    slices: range
    is_open: bool  # whether the object may end on them


def list_walks(anchors: Mapping[int, Tensor], depth: int) -> list[Walk]:
    """List the walks from the known slices of one object, outwards and to the middle between two.

    Args:
        anchors: (H, W) bool mask of each known slice; an empty one bounds what comes from the next.
        depth: number of slices.
    """
    known = sorted(anchors)
    walks = [Walk(known[0], range(known[0] - 1, -1, -1), True), Walk(known[-1], range(known[-1] + 1, depth), True)]
    for low, high in pairwise(known):
        if anchors[low].any() and anchors[high].any():
            middle = low + 1 + (high - low) // 2
            walks += [Walk(low, range(low + 1, middle), False), Walk(high, range(high - 1, middle - 1, -1), False)]
        else:
            walks += [Walk(low, range(low + 1, high), True), Walk(high, range(high - 1, low, -1), True)]
    return walks
