# SPDX-License-Identifier: Apache-2.0
"""Training with a simulated user, who looks at each prediction and clicks where it is wrong."""

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..networks.prefix import FrozenPrefix
from ..networks.promptable import Promptable, given_logits, select_mask
from ..prompts.class_layout import ClassLayout
from ..prompts.corrections import correction_click
from ..prompts.form import PADDING

RoundOutput = tuple[Tensor, Tensor, Tensor, Tensor]  # logits, predicted IoU, points and their labels


class TrainingSimulator(nn.Module):
    """A network and the user who corrects it, as the one module that a trainer trains.

    MONAI's SupervisedTrainer runs it as it would the network, so that mixed precision, accumulation and
    DistributedDataParallel work as they do. (MONAI's ``Interaction`` classes, which do this in the trainer, encode the
    image at every click.) The image is encoded once. Of the rounds, the last ones take gradients; those before are
    simulated and keep no activations.

    Args:
        network: an EfficientSAM; its parameters are this module's.
        rounds: most predictions for an image; each step draws from 1 to this.
        gradient_rounds: how many of them, the last ones, are trained.
        mask_feedback: whether the network is shown its last mask with the clicks that correct it.
        layout: of the classes, where the objects are classes that are each answered by a mask of their own. Then a
            class that is not there is corrected too, where another one is.
        prefix: the frozen part of the image encoder, where images come as what it gave: see
            :class:`scripts.data.CachedViews`.
    """

    network: Promptable

    def __init__(
        self,
        network: Promptable,
        rounds: int = 3,
        gradient_rounds: int = 2,
        mask_feedback: bool = True,
        layout: ClassLayout | None = None,
        prefix: FrozenPrefix | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= gradient_rounds <= rounds:
            raise ValueError(f"1 <= gradient_rounds <= rounds, got {gradient_rounds} of {rounds}")
        self.network = network
        self.rounds = rounds
        self.gradient_rounds = gradient_rounds
        self.mask_feedback = mask_feedback
        self.layout = layout
        self.prefix = prefix

    def forward(
        self, image: Tensor, points: Tensor, point_labels: Tensor, label: Tensor, previous: Tensor | None = None
    ) -> list[RoundOutput]:
        """Predict, be corrected, and predict again.

        Args:
            image: (B, 3, H, W), RGB in 0..1, or what the frozen prefix gave of it.
            points: (B, Q, N, 2), (x, y) in pixels of the image: the first prompt.
            point_labels: (B, Q, N).
            label: (B, Q, H, W), what the user wants.
            previous: (B, Q, H, W) masks that the network is shown with the first prompt, empty where it is shown none.

        Returns:
            For each trained round, logits (B, Q, 4, 4T, 4T) and predicted IoU (B, Q, 4) of all masks, and the points
            (B, Q, N, 2), in 0..1 of the image, and point labels (B, Q, N) that they answer.
        """
        size = (label.shape[2], label.shape[3])
        embeddings = self.network.encode_image(image) if self.prefix is None else self.prefix.finish(image.float())
        rounds = self.draw_rounds()
        rng = np.random.RandomState(int(torch.randint(2**31, ())))
        wanted = (label > 0.5).cpu().numpy()
        asked = (point_labels != PADDING).any(2).cpu().numpy()  # the rest is padding
        if self.layout is not None:
            asked = np.logical_or.reduce(wanted, axis=(2, 3))
            asked = np.broadcast_to(np.logical_or.reduce(asked, axis=1, keepdims=True), asked.shape)
        mask_prompt: Tensor | None = None
        predictions: list[RoundOutput] = []
        for done in range(rounds):
            trained = rounds - done <= self.gradient_rounds
            with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
                seen = embeddings if trained else embeddings.detach()
                if done == 0 and previous is not None:
                    logits, iou = self.decode_first(seen, points, point_labels, size, previous)
                else:
                    logits, iou = self.network.decode_all(seen, points, point_labels, size, mask_prompt)
            if trained:
                predictions.append((logits, iou, (points + 0.5) / points.new_tensor(size[::-1]), point_labels))
            if done + 1 < rounds:
                low = self.answer(logits.detach(), iou.detach())
                predicted = self.network.upscale(low.squeeze(2).float(), size) > 0
                points, point_labels = add_clicks(points, point_labels, predicted.cpu().numpy(), wanted, asked, rng)
                mask_prompt = low if self.mask_feedback else None
        return predictions

    def decode_first(
        self, embeddings: Tensor, points: Tensor, point_labels: Tensor, size: tuple[int, int], previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode the first prompts of images, with masks or without, each as it is in prediction.

        Args:
            embeddings: (B, ...) of the images.
            points: (B, Q, N, 2), (x, y) in pixels of the image.
            point_labels: (B, Q, N).
            size: (H, W) of the images.
            previous: (B, Q, H, W) masks, empty on images that are prompted without.

        Returns:
            Logits (B, Q, 4, M, M) and predicted IoU (B, Q, 4).
        """
        is_shown = (previous > 0).flatten(1).any(1)
        parts = []
        for chosen, masks in ((is_shown, previous[is_shown]), (~is_shown, None)):
            if chosen.any():
                shown = None
                if masks is not None:
                    shown = given_logits(self.network, masks.flatten(0, 1).unsqueeze(1).float())
                    shown = shown.unflatten(0, (len(masks), -1))
                seen, xy, labels = (each[chosen] for each in (embeddings, points, point_labels))
                parts.append(self.network.decode_all(seen, xy, labels, size, shown))
        order = torch.cat([is_shown.nonzero(), (~is_shown).nonzero()]).flatten().argsort()
        logits, iou = (torch.cat(each)[order] for each in zip(*parts))
        return logits, iou

    def draw_rounds(self) -> int:
        """Draw the rounds of a step, from torch's own numbers, which a run seeds: the same again after a stop."""
        return int(torch.randint(1, self.rounds + 1, ()))

    def answer(self, logits: Tensor, iou: Tensor) -> Tensor:
        """Return the mask (B, Q, 1, h, w), of logits (B, Q, 4, h, w), that the user is shown.

        Args:
            logits: (B, Q, 4, h, w) of all masks.
            iou: (B, Q, 4) predicted.
        """
        if self.layout is not None:
            return self.layout.select(logits, iou)[0]
        return select_mask(logits, iou)[0]


def add_clicks(
    points: Tensor,
    point_labels: Tensor,
    predicted: np.ndarray,
    wanted: np.ndarray,
    asked: np.ndarray,
    rng: np.random.RandomState | None = None,
) -> tuple[Tensor, Tensor]:
    """Append one click for each object where its prediction is wrong, and padding where it is not.

    Args:
        points: (B, Q, N, 2), (x, y) in pixels of the image.
        point_labels: (B, Q, N).
        predicted: (B, Q, H, W) bool.
        wanted: (B, Q, H, W) bool.
        asked: (B, Q) bool; the others are padding, and get no click.
        rng: draws the place of each click; without, it is the innermost.

    Returns:
        Points (B, Q, N + 1, 2) and labels (B, Q, N + 1).
    """
    xy, labels = np.full((*wanted.shape[:2], 1, 2), -1, np.float32), np.full((*wanted.shape[:2], 1), PADDING)
    for b, q in np.ndindex(wanted.shape[:2]):
        click = correction_click(predicted[b, q], wanted[b, q], rng) if asked[b, q] else None
        if click is not None:
            xy[b, q], labels[b, q] = click
    return (
        torch.cat([points, torch.from_numpy(xy).to(points)], dim=2),
        torch.cat([point_labels, torch.from_numpy(labels).to(point_labels)], dim=2),
    )
