# SPDX-License-Identifier: Apache-2.0
"""Evaluation with a simulated user: every kind of first prompt, and clicks where the prediction is wrong."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..inferers.session import PromptSession
from ..networks.promptable import Promptable
from ..prompts.class_layout import ClassLayout
from ..prompts.corrections import correction_click
from ..prompts.crops import SmallObjectCropper
from ..prompts.form import BACKGROUND, Prompt


class EvaluationSimulator(nn.Module):
    """A network and the user who asks for objects and corrects what comes: what an evaluator evaluates.

    Args:
        network: an EfficientSAM.
        clicks: after how many clicks to keep the mask; the first is the prompt ``click_1``, each further one lies at
            the innermost point of the largest error.
        box_clicks: how many clicks follow the prompt ``box``; the mask after them is kept as ``box_N_clicks``.
        random_clicks: whether further clicks lie anywhere in the largest error, which is harder; drawn from the object
            itself, so the same each time.
        crop: what small objects are, for the closer look; nothing never crops.
        mask_feedback: whether the network is shown its last mask with the clicks that correct it.
        layout: of the classes, where the objects are classes that are each answered by a mask of their own.
    """

    network: Promptable

    def __init__(
        self,
        network: Promptable,
        clicks: Sequence[int] = (1,),
        box_clicks: int = 0,
        random_clicks: bool = False,
        crop: SmallObjectCropper | None = None,
        mask_feedback: bool = True,
        layout: ClassLayout | None = None,
    ) -> None:
        super().__init__()
        if 1 not in clicks or min(clicks) < 1:
            raise ValueError(f"clicks counts from 1, which is one of them, got {list(clicks)}")
        self.network = network
        self.clicks = sorted(clicks)
        self.box_clicks = box_clicks
        self.random_clicks = random_clicks
        self.crop = crop
        self.mask_feedback = mask_feedback
        self.layout = layout

    def forward(self, image: Tensor, label: Tensor, prompts: Mapping[str, Mapping[str, Tensor]]) -> dict:
        """Ask for the objects of one image in every way.

        Args:
            image: (1, 3, H, W), RGB in 0..1.
            label: (1, Q, H, W) masks.
            prompts: for each kind, ``points`` (1, Q, N, 2) and ``labels`` (1, Q, N).

        Returns:
            ``masks``: logits (1, Q, H, W) by kind; ``iou``: what the network predicts of each, (1, Q); ``points``,
            (1, Q, N, 2), and ``labels``, (1, Q, N): the first prompts by kind; and, where there is a click, ``trace``:
            the true IoU after each click (1, Q, clicks), and ``flips``: for each click (1, Q, clicks) whether it was a
            background click whose pixel is now background (1) or still is not (0); -1 else; and, where clicks follow a
            box, ``box_trace``: the true IoU after each (1, Q, box_clicks).
        """
        if len(image) != 1:
            raise ValueError(f"one image at a time: got {len(image)}")
        first_prompts = {key: {kind: prompt[key] for kind, prompt in prompts.items()} for key in ("points", "labels")}
        result: dict = {"masks": {}, "iou": {}, **first_prompts}
        kept: dict = {}  # embeddings, the same for every kind
        for kind, prompt in prompts.items():
            index = None if self.layout is None else self.layout.mask_index
            session = PromptSession(self.network, image, self.crop, self.mask_feedback, index, kept)
            first = list(map(Prompt, prompt["points"][0].cpu().numpy(), prompt["labels"][0].cpu().numpy()))
            if kind == "click_1":
                names = {count: f"click_{count}" for count in self.clicks}
                result["trace"], result["flips"] = self.refine(session, first, label[0] > 0.5, names, result)
            elif kind == "box" and self.box_clicks:
                names = {1: kind, 1 + self.box_clicks: f"box_{self.box_clicks}_clicks"}
                trace, _ = self.refine(session, first, label[0] > 0.5, names, result)
                result["box_trace"] = trace[:, :, 1:]
            else:
                logits, iou = session.predict(first)
                result["masks"][kind], result["iou"][kind] = logits[None], iou[None]
        return result

    def refine(
        self, session: PromptSession, prompts: list[Prompt], wanted: Tensor, names: Mapping[int, str], result: dict
    ) -> tuple[Tensor, Tensor]:
        """Ask, look, and click where it is wrong.

        Args:
            session: of one image.
            prompts: the first of each object.
            wanted: (Q, H, W) bool.
            names: after which rounds to keep masks and predicted IoU in ``result``, and under which name.
            result: gets them.

        Returns:
            Trace and flips (1, Q, rounds).
        """
        truth = wanted.cpu().numpy()
        draws = [np.random.RandomState(zlib.crc32(mask.tobytes())) if self.random_clicks else None for mask in truth]
        trace, flips = [], []
        before = [0] * len(prompts)  # points of each object in the round before
        for count in range(1, max(names) + 1):
            logits, iou = session.predict(prompts)
            predicted = (logits > 0).cpu().numpy()
            flips.append([flipped(*prompt, mask, points) for prompt, mask, points in zip(prompts, predicted, before)])
            before = [len(labels) for _, labels in prompts]
            trace.append([bool_iou(*pair) for pair in zip(predicted, truth)])
            if count in names:
                result["masks"][names[count]], result["iou"][names[count]] = logits[None], iou[None]
            if count < max(names):
                prompts = [add_click(*each) for each in zip(prompts, predicted, truth, draws)]
        device = wanted.device  # where several processes gather them
        return torch.tensor(trace, device=device).T[None], torch.tensor(flips, device=device).T[None]


def add_click(
    prompt: Prompt, predicted: np.ndarray, truth: np.ndarray, rng: np.random.RandomState | None = None
) -> Prompt:
    """Append the click that a prediction asks for, or none where it is right.

    Args:
        prompt: so far.
        predicted: (H, W) bool.
        truth: (H, W) bool.
        rng: chooses the place; nothing takes the innermost point of the largest error.
    """
    click = correction_click(predicted, truth, rng)
    if click is None:
        return prompt
    return Prompt(*(np.concatenate(parts) for parts in zip(prompt, click)))


def bool_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the IoU of two masks, 1 where both are empty.

    Args:
        predicted: (H, W) bool.
        truth: (H, W) bool.
    """
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def flipped(xy: np.ndarray, labels: np.ndarray, mask: np.ndarray, before: int) -> int:
    """Return whether the last point is a new background click that did its work (1) or not (0), or is none (-1).

    Args:
        xy: (N, 2) points of the prompt.
        labels: (N) of the points.
        mask: (H, W) bool that they gave.
        before: points in the round before.
    """
    if len(labels) == before or labels[-1] != BACKGROUND:
        return -1
    x, y = xy[-1].astype(int)
    return int(not mask[y, x])
