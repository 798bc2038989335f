# SPDX-License-Identifier: Apache-2.0
"""Segment the prompted slices of an image or a volume, on its own grid."""

import os
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from ..axes import upright
from ..crops import SmallObjects
from ..networks.promptable import Promptable
from ..prompts import PREVIOUS_KEY, Entry, Prompt, read_entries, write_entries
from .session import NOTHING, PromptSession

MOST_CROPS = 32  # whose embeddings are kept of a slice


class PromptedSliceInferer(Inferer):
    """Encode each prompted slice once, and decode the objects that are asked for on it.

    Prompts come with the image, in ``meta["prompts"]`` as written by :class:`scripts.transforms.RequestPromptsd`,
    since an inferer gets nothing but the image. Each slice is a :class:`scripts.inferers.session.PromptSession`.

    Args:
        crop: what small objects are, for the closer look; nothing never crops.
        class_count: how many classes each prompt asks for, of a network that was trained with a mask for each; nothing
            asks for the prompted object alone.
        mask_feedback: whether the network is shown the mask that prompts correct.
        to_rgb: turns a slice (C, X, Y) into RGB in 0..1; nothing takes the image to be that already.
        kept_slices: how many slices keep their embeddings in memory, so that a second click costs only the decoder.
            They are of one file's state and one network's weights, and go with the network.
    """

    def __init__(
        self,
        crop: SmallObjects | None = None,
        class_count: int | None = None,
        mask_feedback: bool = True,
        to_rgb: Callable | None = None,
        kept_slices: int = 16,
    ) -> None:
        super().__init__()
        self.mask_feedback = mask_feedback
        self.to_rgb = to_rgb
        self.kept_slices = kept_slices
        self.kept: WeakKeyDictionary[Any, OrderedDict[tuple, dict]] = WeakKeyDictionary()
        self.lock = Lock()
        self.crop = crop
        self.class_count = class_count

    def __call__(self, inputs: Tensor, network: Promptable, *args: Any, **kwargs: Any) -> MetaTensor:
        """Segment one image.

        Args:
            inputs: (1, C, X, Y) or (1, C, X, Y, Z), with C = 3 RGB in 0..1 unless ``to_rgb`` makes it, and its prompts.
            network: an EfficientSAM.

        Returns:
            (1, Q, X, Y[, Z]) logits, or (1, Q * classes, X, Y[, Z]), -100 where nothing was asked, with the predicted
            IoU of each entry of the prompts in ``meta["prompts"]`` (of classes, the first one's).

        Raises:
            ValueError: when several images come at once, or no prompts come with the image.
        """
        if inputs.shape[0] != 1:
            raise ValueError(f"one image at a time: got a batch of {inputs.shape[0]}; images differ in size")
        entries = read_entries(inputs)
        if entries is None:
            raise ValueError("no prompts came with the image: put RequestPromptsd before the inferer")
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        is_volume = volume.ndim == 5
        if not is_volume:
            volume = volume.unsqueeze(-1)

        previous = getattr(inputs, "meta", {}).get(PREVIOUS_KEY)  # (X, Y[, Z]) ids, with an axis of its batch
        if previous is not None:
            previous = previous.reshape(volume.shape[2:])
        objects, classes = 1 + max((entry["object"] for entry in entries), default=0), self.class_count or 1
        source = file_state(inputs)
        # a slice lies together in memory, as files and viewers have it: what is done with masks later is faster
        across = torch.full((1, objects * classes, *reversed(volume.shape[2:])), NOTHING, device=volume.device)
        logits = across.permute(0, 1, 4, 3, 2)
        for k in sorted({entry["slice"] for entry in entries}):
            on_slice = [entry for entry in entries if entry["slice"] == k]
            before = None if previous is None else upright(previous[..., k])
            image = upright(self.rgb_slice(inputs, volume[..., k]))  # (1, C, X, Y) -> (1, 3, H, W)
            masks, iou = self.segment(image, on_slice, network, before, self.kept_of(network, source and (*source, k)))
            for index, entry in enumerate(on_slice):
                first, asked = entry["object"] * classes, index * classes
                logits[0, first : first + classes, ..., k] = upright(masks[asked : asked + classes])  # to (X, Y)
                entry["predicted_iou"] = round(float(iou[asked]), 4)
        result = MetaTensor(logits if is_volume else logits.squeeze(-1), meta=dict(getattr(inputs, "meta", {})))
        result.is_batch = getattr(inputs, "is_batch", False)
        write_entries(result, entries)
        return result

    def rgb_slice(self, inputs: Tensor, image: Tensor) -> Tensor:
        """Turn one slice (1, C, X, Y) into RGB, scaled as the whole volume is."""
        if self.to_rgb is None:
            return image
        meta = getattr(inputs, "meta", {})
        meta = {key: meta[key] for key in ("percentiles",) if key in meta}
        return self.to_rgb(MetaTensor(image[0], meta=meta)).as_tensor()[None]

    def kept_of(self, network: Promptable, key: tuple | None) -> dict:
        """Give what is kept of a slice: embeddings by crop, which its session fills."""
        if key is None or torch.is_grad_enabled():
            return {}
        key = (*key, weights_state(network))
        with self.lock:
            slices = self.kept.setdefault(network, OrderedDict())
            if len(slices.get(key, ())) > MOST_CROPS:
                del slices[key]  # not emptied: another thread may be decoding from it
            kept = slices.setdefault(key, {})
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
    ) -> tuple[Tensor, Tensor]:
        """Segment what is asked for on one upright image (1, 3, H, W): logits (Q, H, W) and predicted IoU (Q).

        Args:
            image: upright.
            entries: of one slice.
            network: that answers.
            previous: label map (H, W) that the prompts correct.
            kept: embeddings of the image.
        """
        classes = self.class_count or 1
        prompts = [Prompt.of(entry) for entry in entries for _ in range(classes)]
        index = None if self.class_count is None else [1 + q % classes for q in range(len(prompts))]
        session = PromptSession(network, image, self.crop, self.mask_feedback, index, kept)
        if previous is not None:
            # of classes, the map holds 1 to n and inner ones lie on top of outer ones; else object q is q + 1
            ids = [q % classes + 1 if index else entries[q // classes]["object"] + 1 for q in range(len(prompts))]
            session.go_on([previous >= i if index else previous == i for i in ids])
        return session.predict(prompts)


def file_state(image: Tensor) -> tuple | None:
    """Tell the file that a batch of one image comes from, and its state; None where there is no such file."""
    path = getattr(image, "meta", {}).get("filename_or_obj")
    path = path[0] if isinstance(path, (list, tuple)) else path
    try:
        stat = os.stat(str(path))
    except (OSError, ValueError):
        return None
    return str(path), stat.st_size, stat.st_mtime_ns


def weights_state(network: Any) -> tuple:
    """Tell weights from others that were loaded into the same network since."""
    parameters = network.parameters() if hasattr(network, "parameters") else ()
    return tuple((id(p), p.data_ptr(), -1 if p.is_inference() else p._version) for p in parameters)
