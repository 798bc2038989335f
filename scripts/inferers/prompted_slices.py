# SPDX-License-Identifier: Apache-2.0
"""Segment the prompted slices of an image or a volume, on its own grid."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..io.axes import upright
from ..networks.promptable import Promptable
from ..prompts.class_layout import ClassLayout
from ..prompts.crops import Crop, SmallObjectCropper
from ..prompts.form import PREVIOUS_KEY, Entry, Prompt, asks, read_entries
from .session import OUTSIDE_LOGIT, PromptSession
from .slices import SliceInferer

MOST_CROPS = 32  # whose embeddings are kept of a slice


class PromptedSliceInferer(SliceInferer):
    """Encode each prompted slice once, and decode the objects that are asked for on it.

    Prompts come with the image, in ``meta["prompts"]`` as written by :class:`scripts.transforms.RequestPromptsd`, since
    MONAI Label gives an inferer nothing but the image. Each slice is a :class:`scripts.inferers.session.PromptSession`.

    The answer of one image is, merged, (1, 1, X, Y[, Z]) uint8 (int32 above 255 objects): 0 is background, q + 1 is
    object q, and where objects overlap the largest logit wins; of classes, c + 1 is class c, and the inner one wins.
    Else it is (1, Q, X, Y[, Z]) logits, or (1, Q * classes, X, Y[, Z]), -100 where nothing was asked. The predicted IoU
    of each entry of the prompts goes into ``meta["prompts"]`` (of classes, the first one's).

    Args:
        crop: what small objects are, for the closer look; nothing never crops.
        layout: of the classes that each prompt asks for, of a network that was trained with a mask for each; nothing
            asks for the prompted object alone.
        mask_feedback: whether the network is shown the mask that prompts correct.
        to_rgb: turns a slice (C, X, Y) into RGB in 0..1; nothing takes the image to be that already.
        kept_slices: how many slices keep their embeddings in memory, so that a second click costs only the decoder.
            They are of one file's state and one network's weights, and go with the network.
        merge: give one label map, made object by object, so that memory does not grow with their number; else the
            logits of each object.
        half_precision: keep embeddings in half of the bytes. Answers are of what is kept, the first one too.
    """

    def __init__(
        self,
        crop: SmallObjectCropper | None = None,
        layout: ClassLayout | None = None,
        mask_feedback: bool = True,
        to_rgb: Callable | None = None,
        kept_slices: int = 16,
        merge: bool = False,
        half_precision: bool = False,
    ) -> None:
        super().__init__(to_rgb)
        self.half_precision = half_precision
        self.merge = merge
        self.mask_feedback = mask_feedback
        self.kept_slices = kept_slices
        self.kept: WeakKeyDictionary[Any, OrderedDict[tuple, dict]] = WeakKeyDictionary()
        self.lock = Lock()
        self.crop = crop
        self.layout = layout

    def list_entries(self, inputs: Tensor, depth: int) -> list[Entry]:
        """List the prompts that came with an image.

        Raises:
            ValueError: when none did.
        """
        entries = read_entries(inputs)
        if entries is None:
            raise ValueError("no prompts came with the image: put RequestPromptsd before the inferer")
        for entry in entries:
            entry["predicted_iou"] = 0.0
        return entries

    def allocate(self, volume: Tensor, entries: Sequence[Entry]) -> Tensor:
        """Make a label map, or logits of each object, or of each object's classes."""
        objects, classes = 1 + max((entry["object"] for entry in entries), default=0), len(self.layout or [0])
        # a slice lies together in memory, as files and viewers have it: what is done with masks later is faster
        shape = tuple(reversed(volume.shape[2:]))
        if self.merge:
            dtype = torch.uint8 if max(objects, classes) < 256 else torch.int32
            across = torch.zeros((1, 1, *shape), dtype=dtype, device=volume.device)
        else:
            across = torch.full((1, objects * classes, *shape), OUTSIDE_LOGIT, device=volume.device)
        return across.permute(0, 1, 4, 3, 2)

    def asked(self, inputs: Tensor, entries: list[Entry]) -> list[Entry]:
        """Leave out prompts that say nothing of an object, unless there is a mask that they correct."""
        has_mask = self.previous_mask(inputs) is not None
        return [entry for entry in entries if has_mask or asks(entry)]

    def previous_mask(self, inputs: Tensor) -> Tensor | None:
        """Return the label map (X, Y, Z) that came with an image and that prompts correct, or nothing."""
        previous = getattr(inputs, "meta", {}).get(PREVIOUS_KEY)  # (X, Y[, Z]), with an axis of its batch
        return None if previous is None else previous.reshape(*inputs.shape[2:4], -1)

    def answer(
        self,
        inputs: Tensor,
        image: Tensor,
        entries: list[Entry],
        network: Promptable,
        output: Tensor,
        place: tuple | None,
    ) -> Sequence[Entry]:
        """Decode the objects that are asked for, and note what the network thinks of its answers in their entries."""
        classes = len(self.layout or [0])
        previous = self.previous_mask(inputs)
        if previous is not None:
            previous = upright(previous[..., entries[0]["slice"]])
        session = self.segment(image, entries, network, previous, self.kept_of(network, place))
        if self.merge:
            merge_looks(session, [entry["object"] for entry in entries for _ in range(classes)], self.layout, output[0])
        for index, entry in enumerate(entries):
            views = session.views[index * classes : (index + 1) * classes]
            entry["predicted_iou"] = round(views[0].iou, 4)
            if not self.merge:
                first = entry["object"] * classes
                output[first : first + classes] = torch.stack([*map(session.paste, views)])
        return entries

    def report(self, entries: list[Entry], found: list[Entry]) -> list[Entry]:
        """Say of every prompt what came of it, in their order."""
        return entries

    def kept_of(self, network: Promptable, key: tuple | None) -> dict:
        """Return what is kept of a slice: embeddings by crop, which its session fills.

        Args:
            network: a :class:`scripts.networks.promptable.Promptable`.
            key: tells the slice and its file from others.
        """
        make = HalfPrecision if self.half_precision else dict
        if key is None or torch.is_grad_enabled():
            return make()
        key = (*key, weights_state(network))
        with self.lock:
            slices = self.kept.setdefault(network, OrderedDict())
            if len(slices.get(key, ())) > MOST_CROPS:
                del slices[key]  # not emptied: another thread may be decoding from it
            kept = slices.setdefault(key, make())
            slices.move_to_end(key)
            while len(slices) > self.kept_slices:
                slices.popitem(last=False)
            return kept

    def segment(
        self,
        image: Tensor,
        entries: list[Entry],
        network: Promptable,
        previous: Tensor | None = None,
        kept: dict | None = None,
    ) -> PromptSession:
        """Segment what is asked for on one upright image (1, 3, H, W); the session holds the answers.

        Args:
            image: upright.
            entries: of one slice.
            network: that answers.
            previous: label map (H, W) that the prompts correct.
            kept: embeddings of the image.
        """
        prompts, index = [Prompt.of(entry) for entry in entries], None
        before = [] if previous is None else [previous == entry["object"] + 1 for entry in entries]
        if self.layout is not None:
            index = self.layout.mask_index * len(entries)
            prompts = [each for prompt in prompts for each in self.layout.prompts(prompt)]
            before = [] if previous is None else self.layout.split(previous) * len(entries)
        session = PromptSession(network, image, self.crop, self.mask_feedback, index, kept)
        session.start_from_masks(before)
        session.run(prompts)
        return session


class HalfPrecision(dict):
    """Embeddings by crop, kept in half of the bytes."""

    def __setitem__(self, crop: Crop | None, embeddings: Tensor) -> None:
        super().__setitem__(crop, embeddings.half())

    def __getitem__(self, crop: Crop | None) -> Tensor:
        return super().__getitem__(crop).float()

    def update(self, embeddings: Iterable[tuple[Crop | None, Tensor]]) -> None:  # type: ignore[override]
        for crop, each in embeddings:
            self[crop] = each


def merge_looks(session: PromptSession, owners: Sequence[int], layout: ClassLayout | None, labels: Tensor) -> None:
    """Merge the answers of a session into one label map, one after the other.

    Args:
        session: that has run.
        owners: the object that each of its answers is of.
        layout: of the classes that each object's answers are of; nothing has one answer for each object.
        labels: (H, W) zeros, changed in place.
    """
    # of one answer there is nothing to compare, and the image may be large
    best = torch.zeros(session.size if len(owners) > 1 else (1, 1), device=session.image.device).expand(session.size)
    for index, (owner, view) in enumerate(zip(owners, session.views)):
        (x0, y0, x1, y1), logits = session.part(view)
        own, largest = labels[y0:y1, x0:x1], best[y0:y1, x0:x1]
        if layout is None:
            wins = logits > largest
            own[wins] = owner + 1
            if len(owners) > 1:
                largest[wins] = logits[wins]
        else:
            layout.draw(index % len(layout), logits > 0, own)


def weights_state(network: Any) -> tuple:
    """Return what tells weights from others that were loaded into the same network since."""
    parameters = network.parameters() if hasattr(network, "parameters") else ()
    return tuple((id(p), p.data_ptr(), -1 if p.is_inference() else p._version) for p in parameters)
