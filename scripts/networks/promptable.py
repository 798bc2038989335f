# SPDX-License-Identifier: Apache-2.0
"""What inferers, engines and exports know of a network, and nothing more."""

from typing import Optional, Protocol  # TorchScript does not read the bar of PEP 604 in signatures

import torch
from torch import Tensor

GIVEN_MASK_LOGIT = 10.0  # logit of a mask that is known


class Promptable(Protocol):
    """A network that encodes an image once and decodes each prompt; see :class:`scripts.networks.EfficientSAM`.

    It owns its geometry: how an image of any shape comes onto its own square grid, and masks back from it. Logits have
    their threshold at 0.
    """

    image_size: int  # side S of its own square image in pixels
    mask_size: int  # side M of its low-resolution masks in cells
    num_slots: int  # points that it pads a prompt to: prompts with more are decoded apart from the others

    def encode_image(self, image: Tensor) -> Tensor:
        """Encode images: the costly half, once per image.

        Args:
            image: (B, 3, H, W), RGB in 0..1, of any size, or (B, 3, S, S) of :meth:`resize`.

        Returns:
            (B, ...) embeddings.
        """
        ...

    def resize(self, image: Tensor) -> Tensor:
        """Bring images onto the network's own grid, so that several can be encoded together.

        Args:
            image: (B, C, H, W) in 0..1, of any number of channels.

        Returns:
            (B, C, S, S).
        """
        ...

    def to_network(self, points: Tensor, point_labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring points to the network's own image, where they were placed.

        Args:
            points: (..., 2), (x, y) in pixels of an image of ``size``.
            point_labels: (...) integers: see :mod:`scripts.prompts.form`.
            size: (H, W) of the image.

        Returns:
            (..., 2), (x, y) in pixels of :meth:`resize`'s result; padding is (-1, -1).
        """
        ...

    def decode_all(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode all masks of each object.

        Args:
            embeddings: (B, ...) of :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``, for Q objects.
            point_labels: (B, Q, N) integers.
            size: (H, W) of the image that the points are pixels of.
            mask_prompt: (B, Q, 1, M, M) logits of the round before, which these points correct.

        Returns:
            Logits (B, Q, 4, M, M), that of the mask for a clear prompt first, and predicted IoU (B, Q, 4).
        """
        ...

    def decode_best(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Tensor | None = None,
        mask_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode one mask of each object, as :func:`select_mask` selects it from :meth:`decode_all`.

        Args:
            embeddings: (B, ...) of :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, Q, N) integers.
            size: (H, W) of the image that the points are pixels of.
            mask_prompt: (B, Q, 1, M, M) logits of the round before.
            mask_index: (B, Q) integers, the mask to take where each has a meaning of its own.

        Returns:
            Logits (B, Q, 1, M, M) and predicted IoU (B, Q).
        """
        ...

    def shrink(self, masks: Tensor) -> Tensor:
        """Bring masks of an image to the grid of a mask prompt.

        Args:
            masks: (B, 1, H, W) in 0..1.

        Returns:
            (B, 1, M, M) in 0..1, the share of each cell.
        """
        ...

    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring logits (..., M, M) back to an image of ``size`` (H, W), as (..., H, W).

        Args:
            logits: (..., M, M) low-resolution logits.
            size: (H, W) of the image.
        """
        ...


class Exportable(Promptable, Protocol):
    """A network whose halves can be written as files: the same with a size that is a tensor, which exporters follow."""

    def __call__(self, image: Tensor, points: Tensor, point_labels: Tensor) -> Tensor:
        """Segment Q objects of images (B, 3, H, W) at once: logits (B, Q, H, W) of the best mask of each."""
        ...

    def decode_traced(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: Tensor,
        mask_prompt: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode all masks of each object, as :meth:`decode_all` does.

        Args:
            embeddings: (B, ...) of :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of the image.
            point_labels: (B, Q, N) int64.
            size: (2) float32, height and width of the image.
            mask_prompt: (B, Q, 1, M, M) logits of the round before.
            has_mask: (1) float32: 1 where there was one, 0 where ``mask_prompt`` says nothing.

        Returns:
            Logits (B, Q, 4, M, M) and predicted IoU (B, Q, 4).
        """
        ...

    def upscale_traced(self, logits: Tensor, size: Tensor) -> Tensor:
        """Bring logits (B, C, M, M) back to an image whose size is a tensor (2), bilinearly, as (B, C, H, W).

        Args:
            logits: (..., M, M) low-resolution logits.
            size: (2) integers, height and width.
        """
        ...


def select_mask(logits: Tensor, iou: Tensor, mask_index: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
    """Select one mask of each object: the one that the network believes to be best.

    Args:
        logits: (B, Q, M, h, w).
        iou: (B, Q, M), what the network predicts of them.
        mask_index: (B, Q) integers, which to take instead.

    Returns:
        (B, Q, 1, h, w) and its predicted IoU (B, Q).
    """
    index = iou.argmax(dim=2) if mask_index is None else mask_index
    quality = iou.gather(2, index.unsqueeze(2)).squeeze(2)
    index = index[:, :, None, None, None].expand(-1, -1, 1, logits.shape[-2], logits.shape[-1])
    return torch.gather(logits, 2, index), quality


def given_logits(network: Promptable, masks: Tensor) -> Tensor:
    """Turn masks that are known into what a network is shown of a round before.

    Args:
        network: of whose size they become.
        masks: (B, 1, H, W) in 0..1.

    Returns:
        (B, 1, M, M) logits.
    """
    return GIVEN_MASK_LOGIT * (2 * network.shrink(masks) - 1)


class DecodesBest:
    """The ``decode_best`` of every network that has ``decode_all``; see :class:`Promptable`."""

    @torch.jit.export
    def decode_best(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Optional[Tensor] = None,
        mask_index: Optional[Tensor] = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode one mask of each object: the one that the network believes to be best, or the one asked for.

        Args:
            embeddings: (B, ...) of :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, Q, N) integers: see :mod:`scripts.prompts.form`.
            size: (H, W) of the image.
            mask_prompt: (B, Q, 1, M, M) logits of the round before, or nothing.
            mask_index: (Q) which mask answers each object; nothing takes the best by the predicted IoU.
        """
        logits, iou = self.decode_all(embeddings, points, point_labels, size, mask_prompt)  # type: ignore[attr-defined]
        return select_mask(logits, iou, mask_index)
