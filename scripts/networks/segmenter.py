# SPDX-License-Identifier: Apache-2.0
"""What SAM (Kirillov et al., 2023) and EfficientSAM (Xiong et al., 2023) share: how their three parts are used."""

from typing import (
    TYPE_CHECKING,
    Any,
    Optional,
    Union,
)  # TorchScript reads Optional and Union, not the bar of PEP 604, in signatures

import torch
import torch.nn as nn
from torch import Tensor

from ..prompts.form import alignment
from .adapters.places import AFTER, BESIDE
from .geometry import StretchedSquare
from .promptable import DecodesBest

if TYPE_CHECKING:
    from .settings import Settings


class Segmenter(StretchedSquare, DecodesBest, nn.Module):
    """An image encoder, a prompt encoder and a mask decoder; see :class:`scripts.networks.promptable.Promptable`.

    A subclass makes the three parts, and sets ``image_size``, ``mask_size`` and ``num_slots``.
    """

    adapter_places = {  # where Medical-SAM-Adapter has them, and their like in the decoder
        "image_encoder.blocks.*.attn": AFTER,
        "image_encoder.blocks.*.mlp": BESIDE,
        "mask_decoder.transformer.layers.*.cross_attn_*": AFTER,
        "mask_decoder.transformer.layers.*.mlp": BESIDE,
    }
    if TYPE_CHECKING:  # TorchScript would read it
        settings: "Settings"  # that it was built from, by scripts.networks.build_network
        image_encoder: Any
        prompt_encoder: Any
        mask_decoder: Any
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.register_load_state_dict_pre_hook(_unwrap)

    def preprocess(self, image: Tensor) -> Tensor:
        """Resize (B, 3, H, W) in 0..1 to (B, 3, S, S) and normalise it by the ImageNet mean and deviation."""
        return (self.resize(image) - self.pixel_mean) / self.pixel_std

    @torch.jit.export
    def encode_image(self, image: Tensor) -> Tensor:
        """Encode images: the costly half, once per image.

        Args:
            image: (B, 3, H, W), RGB in 0..1.

        Returns:
            (B, 256, T, T) embeddings, T = S / 16.
        """
        return self.image_encoder(self.preprocess(image))

    def decode_all(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Optional[Tensor] = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode all four masks of each object: logits (B, Q, 4, 4T, 4T) and IoU (B, Q, 4), mask 0 first.

        Args:
            embeddings: (B, 256, T, T) from :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, Q, N) integers: see :mod:`scripts.prompts.form`.
            size: (H, W) of the image.
            mask_prompt: (B, Q, 1, 4T, 4T) low-resolution logits of the round before, or nothing.
        """
        _check_prompts(embeddings, points, point_labels, mask_prompt)
        batch, queries = points.shape[0], points.shape[1]
        points, point_labels = points.flatten(0, 1), point_labels.flatten(0, 1)
        frame = self.frame(size)
        tokens = self.prompt_encoder(points, point_labels, frame)  # (B*Q, N, 256)
        masks = None if mask_prompt is None else mask_prompt.flatten(0, 1)
        dense = self.prompt_encoder.embed_mask(masks, points, point_labels, frame)
        embeddings = embeddings.repeat_interleave(queries, dim=0) + dense  # (B, 256, T, T) -> (B*Q, 256, T, T)
        logits, iou = self.predict_masks(embeddings, tokens, point_labels)
        return logits.unflatten(0, (batch, queries)), iou.unflatten(0, (batch, queries))

    def predict_masks(self, embeddings: Tensor, tokens: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the masks of each prompt.

        Args:
            embeddings: (B, 256, T, T), with the dense embedding of the prompt.
            tokens: (B, N, 256) of the prompt.
            point_labels: (B, N) integers.

        Returns:
            Logits (B, 4, 4T, 4T) and predicted IoU (B, 4).
        """
        return self.mask_decoder(embeddings, self.prompt_encoder.dense_pe(), tokens)

    @torch.jit.export
    def decode(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Optional[Tensor] = None,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Decode masks from embeddings: the cheap half, once per click.

        Args:
            embeddings: (B, 256, T, T) from :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``, for Q objects.
            point_labels: (B, Q, N) integers: -1 padding, 0 background, 1 foreground, 2 and 3 a box's top-left and
                bottom-right corner.
            size: (H, W) of the image that the points are pixels of.
            mask_prompt: (B, Q, 1, 4T, 4T) low-resolution logits of the round before, which these points correct.
            multimask: three masks for an ambiguous prompt, else the one for a clear prompt.

        Returns:
            Low-resolution logits (B, Q, M, 4T, 4T), threshold 0, and predicted IoU (B, Q, M), M = 3 or 1.

        Raises:
            ValueError: when points, labels and embeddings do not fit each other.
        """
        logits, iou = self.decode_all(embeddings, points, point_labels, size, mask_prompt)
        if multimask:
            return logits[:, :, 1:], iou[:, :, 1:]
        return logits[:, :, :1], iou[:, :, :1]

    def decode_traced(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: Tensor,
        mask_prompt: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode all four masks of each object, for exporters; see :class:`scripts.networks.promptable.Exportable`.

        Args:
            embeddings: (B, 256, T, T) from :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, Q, N) integers: see :mod:`scripts.prompts.form`.
            size: (2) integers, height and width of the image.
            mask_prompt: (B, Q, 1, 4T, 4T) logits.
            has_mask: a number: 1 where ``mask_prompt`` counts, else 0.
        """
        batch, queries = points.shape[:2]
        encoder, side = self.prompt_encoder, self.image_size
        across = self.frame_traced(size).flip(0)  # (W, H)
        if encoder.align_points:
            points = points + alignment(point_labels).unsqueeze(-1) * (1 - (across / side).clamp(max=1))
        points = points * (side / across)
        points = torch.where(points >= 0, points, torch.full_like(points, -1.0)).flatten(0, 1)  # (B*Q, N, 2)
        points, labels = encoder.fill_slots(points, point_labels.flatten(0, 1))
        tokens = encoder(points, labels, (side, side))
        shown = encoder.embed_mask(mask_prompt.flatten(0, 1), points, labels, (side, side))
        dense = has_mask * shown + (1 - has_mask) * encoder.embed_mask(None, points, labels, (side, side))
        embeddings = embeddings.unsqueeze(1).expand(-1, queries, -1, -1, -1).flatten(0, 1) + dense
        logits, iou = self.predict_masks(embeddings, tokens, labels)
        return logits.unflatten(0, (batch, queries)), iou.unflatten(0, (batch, queries))

    def forward(
        self, image: Tensor, points: Optional[Tensor] = None, point_labels: Optional[Tensor] = None
    ) -> Union[Tensor, tuple[Tensor, Tensor]]:
        """Segment Q objects of each image.

        Args:
            image: (B, 3, H, W), RGB in 0..1.
            points: (B, Q, N, 2) or, for one object, (B, N, 2): (x, y) in pixels of ``image``. Without points the box of
                the whole image stands in.
            point_labels: (B, Q, N) or (B, N): -1 padding, 0 background, 1 foreground, 2 and 3 a box's corners.

        Returns:
            In evaluation, logits (B, Q, H, W) of the mask with the best predicted IoU among all four. In training,
            what the loss needs: low-resolution logits (B, Q, 4, 4T, 4T) and predicted IoU (B, Q, 4) of all masks, mask
            0 first.

        Raises:
            ValueError: when only one of points and labels is given, or they or the image have a wrong shape or type.
        """
        if not image.is_floating_point():
            raise ValueError("the image holds RGB in 0..1 as floating-point numbers, not integers")
        if (points is None) != (point_labels is None):
            raise ValueError("points and point_labels go together: give both or neither")
        size = (image.shape[-2], image.shape[-1])
        if points is None or point_labels is None:
            corners = torch.tensor([[0.0, 0.0], [size[1] - 1.0, size[0] - 1.0]], device=image.device)
            points = corners.expand(image.shape[0], 1, 2, 2)
            point_labels = torch.tensor([2, 3], device=image.device).expand(image.shape[0], 1, 2)
        if points.dim() == 3:
            points, point_labels = points.unsqueeze(1), point_labels.unsqueeze(1)
        embeddings = self.encode_image(image)
        if self.training:
            return self.decode_all(embeddings, points, point_labels, size)
        return self.upscale(self.decode_best(embeddings, points, point_labels, size, None, None)[0].squeeze(2), size)


def init_linear(module: nn.Module) -> None:
    """Start linear layers from a truncated normal of deviation 0.02 and zero bias (ViT, as in timm)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _check_prompts(
    embeddings: Tensor, points: Tensor, point_labels: Tensor, mask_prompt: Optional[Tensor] = None
) -> None:
    """Refuse prompts that would be broadcast or repeated to something that nobody asked for."""
    if points.dim() != 4 or points.shape[3] != 2 or points.shape[:3] != point_labels.shape:
        raise ValueError(
            f"points are (B, Q, N, 2) with labels (B, Q, N), got {list(points.shape)} and {list(point_labels.shape)}"
        )
    if points.shape[0] != embeddings.shape[0]:
        raise ValueError(f"there are {embeddings.shape[0]} images but prompts for {points.shape[0]}")
    if mask_prompt is not None:
        side = 4 * embeddings.shape[3]
        expected = [points.shape[0], points.shape[1], 1, side, side]
        if list(mask_prompt.shape) != expected:
            raise ValueError(f"mask_prompt holds low-resolution logits {expected}, got {list(mask_prompt.shape)}")


def _unwrap(module: nn.Module, state: dict, prefix: str, *args: object) -> None:
    """Take the tensors out of a whole checkpoint, which MONAI's export commands give as it is."""
    if not prefix and isinstance(state.get("model"), dict):
        tensors = state["model"]
        state.clear()
        state.update(tensors)
