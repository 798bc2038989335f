# SPDX-License-Identifier: Apache-2.0
"""Segment the prompted slices of an image or a volume, on its own grid."""

from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from ..axes import upright
from ..crops import SmallObjects
from ..networks.promptable import Promptable
from ..prompts import PREVIOUS_KEY, Entry, Prompt, read_entries, write_entries
from .session import NOTHING, PromptSession


class PromptedSliceInferer(Inferer):
    """Encode each prompted slice once, and decode the objects that are asked for on it.

    Prompts come with the image, in ``meta["prompts"]`` as written by :class:`scripts.transforms.RequestPromptsd`,
    since an inferer gets nothing but the image. Each slice is a :class:`scripts.inferers.session.PromptSession`.

    Args:
        crop: what small objects are, for the closer look; nothing never crops.
        class_count: how many classes each prompt asks for, of a network that was trained with a mask for each; nothing
            asks for the prompted object alone.
    """

    def __init__(self, crop: SmallObjects | None = None, class_count: int | None = None) -> None:
        super().__init__()
        self.crop = crop
        self.class_count = class_count

    def __call__(self, inputs: Tensor, network: Promptable, *args: Any, **kwargs: Any) -> MetaTensor:
        """Segment one image.

        Args:
            inputs: (1, 3, X, Y) or (1, 3, X, Y, Z) RGB in 0..1 with its prompts.
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
        objects, classes = 1 + max(entry["object"] for entry in entries), self.class_count or 1
        logits = torch.full((1, objects * classes, *volume.shape[2:]), NOTHING, device=volume.device)
        for k in sorted({entry["slice"] for entry in entries}):
            on_slice = [entry for entry in entries if entry["slice"] == k]
            before = None if previous is None else upright(previous[..., k])
            masks, iou = self.segment(
                upright(volume[..., k]), on_slice, network, before
            )  # (1, 3, X, Y) -> (1, 3, H, W)
            for index, entry in enumerate(on_slice):
                first, asked = entry["object"] * classes, index * classes
                logits[0, first : first + classes, ..., k] = upright(masks[asked : asked + classes])  # to (X, Y)
                entry["predicted_iou"] = round(float(iou[asked]), 4)
        result = MetaTensor(logits if is_volume else logits.squeeze(-1), meta=dict(getattr(inputs, "meta", {})))
        result.is_batch = getattr(inputs, "is_batch", False)
        write_entries(result, entries)
        return result

    def segment(
        self, image: Tensor, entries: list[Entry], network: Promptable, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Segment what is asked for on one upright image (1, 3, H, W): logits (Q, H, W) and predicted IoU (Q).

        Args:
            image: upright.
            entries: of one slice.
            network: that answers.
            previous: label map (H, W) that the prompts correct.
        """
        classes = self.class_count or 1
        prompts = [Prompt.of(entry) for entry in entries for _ in range(classes)]
        index = None if self.class_count is None else [1 + q % classes for q in range(len(prompts))]
        session = PromptSession(network, image, self.crop, mask_index=index)
        if previous is not None:
            # of classes, the map holds 1 to n and inner ones lie on top of outer ones; else object q is q + 1
            ids = [q % classes + 1 if index else entries[q // classes]["object"] + 1 for q in range(len(prompts))]
            session.go_on([previous >= i if index else previous == i for i in ids])
        return session.predict(prompts)
