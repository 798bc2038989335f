# SPDX-License-Identifier: Apache-2.0
"""Segment the prompted slices of an image or a volume, on its own grid."""

import json
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from ..crops import SmallObjects
from .session import NOTHING, PromptSession


class PromptedSliceInferer(Inferer):
    """Encode each prompted slice once, and decode the objects that are asked for on it.

    Prompts come with the image, in ``meta["prompts"]`` as written by :class:`scripts.transforms.RequestPromptsd`,
    since an inferer gets nothing but the image. This is the one place where inference turns from the readers' axes (x,
    y) to the network's (rows, columns), and back. Each slice is a :class:`scripts.inferers.session.PromptSession`.

    Args:
        image_size: side of the network's image in pixels.
        crop: what small objects are, for the closer look; nothing never crops.
        class_count: how many classes each prompt asks for, of a network that was trained with a mask for each; nothing
            asks for the prompted object alone.
    """

    def __init__(self, image_size: int, crop: SmallObjects | None = None, class_count: int | None = None) -> None:
        super().__init__()
        self.image_size = image_size
        self.crop = crop
        self.class_count = class_count

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> MetaTensor:
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
        written = getattr(inputs, "meta", {}).get("prompts")
        collated = isinstance(written, (list, tuple))
        if collated:
            written = written[0]
        if written is None:
            raise ValueError("no prompts came with the image: put RequestPromptsd before the inferer")
        entries = json.loads(written)
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        is_volume = volume.ndim == 5
        if not is_volume:
            volume = volume.unsqueeze(-1)

        objects, classes = 1 + max(entry["object"] for entry in entries), self.class_count or 1
        logits = torch.full((1, objects * classes, *volume.shape[2:]), NOTHING, device=volume.device)
        for k in sorted({entry["slice"] for entry in entries}):
            on_slice = [entry for entry in entries if entry["slice"] == k]
            masks, iou = self.segment(volume[..., k].transpose(2, 3), on_slice, network)  # (1, 3, X, Y) -> (1, 3, H, W)
            for index, entry in enumerate(on_slice):
                first, asked = entry["object"] * classes, index * classes
                logits[0, first : first + classes, ..., k] = masks[asked : asked + classes].transpose(1, 2)  # to (X, Y)
                entry["predicted_iou"] = round(float(iou[asked]), 4)
        result = MetaTensor(logits if is_volume else logits.squeeze(-1), meta=dict(inputs.meta))
        result.is_batch = inputs.is_batch
        result.meta["prompts"] = [json.dumps(entries)] if collated else json.dumps(entries)
        return result

    def segment(self, image: Tensor, entries: list[dict], network: nn.Module) -> tuple[Tensor, Tensor]:
        """Segment what is asked for on one upright image (1, 3, H, W): logits (Q, H, W) and predicted IoU (Q)."""
        classes = self.class_count or 1
        prompts = [(entry["points"], entry["labels"]) for entry in entries for _ in range(classes)]
        index = None if self.class_count is None else [1 + q % classes for q in range(len(prompts))]
        return PromptSession(network, image, self.image_size, self.crop, mask_index=index).predict(prompts)
