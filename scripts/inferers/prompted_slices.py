# SPDX-License-Identifier: Apache-2.0
"""Segment the prompted slices of an image or a volume, on its own grid."""

import json
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from ..prompts import align_prompts, pad_prompts

NOTHING = -100.0  # logit where nothing was asked


class PromptedSliceInferer(Inferer):
    """Encode each prompted slice once, and decode the objects that are asked for on it.

    Prompts come with the image, in ``meta["prompts"]`` as written by :class:`scripts.transforms.RequestPromptsd`,
    since an inferer gets nothing but the image. This is the one place where inference turns from the readers' axes (x,
    y) to the network's (rows, columns), and back. The network needs ``encode_image``, ``decode`` and ``upscale``.

    Args:
        image_size: side of the network's image, for which points are aligned as :func:`scripts.prompts.align_prompts`
            does; nothing leaves them as upstream takes them.
    """

    def __init__(self, image_size: int | None = None) -> None:
        super().__init__()
        self.image_size = image_size

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> MetaTensor:
        """Segment one image.

        Args:
            inputs: (1, 3, X, Y) or (1, 3, X, Y, Z) RGB in 0..1 with its prompts.
            network: an EfficientSAM.

        Returns:
            (1, Q, X, Y[, Z]) logits, -100 on slices without a prompt, with the predicted IoU of each entry of the
            prompts in ``meta["prompts"]``.

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

        objects = 1 + max(entry["object"] for entry in entries)
        logits = torch.full((1, objects, *volume.shape[2:]), NOTHING, device=volume.device)
        for k in sorted({entry["slice"] for entry in entries}):
            on_slice = [entry for entry in entries if entry["slice"] == k]
            masks, iou = self.segment(volume[..., k].transpose(2, 3), on_slice, network)  # (1, 3, X, Y) -> (1, 3, H, W)
            for entry, mask, quality in zip(on_slice, masks, iou):
                logits[0, entry["object"], ..., k] = mask.transpose(0, 1)  # (H, W) -> (X, Y)
                entry["predicted_iou"] = round(float(quality), 4)
        result = MetaTensor(logits if is_volume else logits.squeeze(-1), meta=dict(inputs.meta))
        result.is_batch = inputs.is_batch
        result.meta["prompts"] = [json.dumps(entries)] if collated else json.dumps(entries)
        return result

    def segment(self, image: Tensor, entries: list[dict], network: nn.Module) -> tuple[Tensor, Tensor]:
        """Segment Q objects of one upright image (1, 3, H, W): logits (Q, H, W) and predicted IoU (Q)."""
        points, point_labels = pad_prompts([(entry["points"], entry["labels"]) for entry in entries])
        size = (image.shape[2], image.shape[3])
        if self.image_size is not None:
            points = align_prompts(points, point_labels, size, self.image_size)
        logits, iou = network.decode(
            network.encode_image(image),
            torch.from_numpy(points)[None].to(image.device),
            torch.from_numpy(point_labels)[None].to(image.device),
            size,
        )
        best = iou[0].argmax(1)  # (Q)
        rows = torch.arange(len(best), device=best.device)
        return network.upscale(logits[0, rows, best], size), iou[0, rows, best]
