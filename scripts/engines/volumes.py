# SPDX-License-Identifier: Apache-2.0
"""Evaluation of whole objects of volumes, with a simulated user who prompts one slice and corrects the worst ones."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn as nn
from monai.data import MetaTensor
from torch import Tensor

from ..inferers.slices import source_state
from ..inferers.spread import SpreadInferer, on_slice
from ..io.axes import upright
from ..networks.promptable import Promptable
from ..prompts.carried import carried_prompt
from ..prompts.form import Prompt
from .evaluation import add_click

FIRST_PROMPTS = ("click", "box", "mask")


class VolumeSimulator(nn.Module):
    """A network, and the user who asks for objects of a volume on their largest slice and mends what spreads wrongly.

    A correction is of the slice where most pixels are wrong. Where the object is not there, the user says so, which
    bounds it. Else up to ``slice_clicks`` clicks, each at the innermost point of the largest error, go on from the mask
    that has spread there; what comes of them stays, and the object spreads anew.

    Args:
        network: that answers.
        inferer: that spreads.
        first_prompts: on the largest slice: ``click`` at the innermost point of the object, its ``box``, its true
            ``mask``.
        corrected_slices: after how many corrected slices to keep the mask, as ``<first prompt>_corrected_<number>``.
        slice_clicks: most clicks of a correction.
        every_slice: prompts on every slice of the object, without spreading: ``click`` or ``box``; kept as
            ``every_slice_<prompt>``.

    Raises:
        ValueError: when a prompt is not known.
    """

    network: Promptable

    def __init__(
        self,
        network: Promptable,
        inferer: SpreadInferer,
        first_prompts: Sequence[str] = FIRST_PROMPTS,
        corrected_slices: Sequence[int] = (1, 3, 5),
        slice_clicks: int = 3,
        every_slice: Sequence[str] = ("click", "box"),
    ) -> None:
        super().__init__()
        if not set(first_prompts) <= set(FIRST_PROMPTS) or not set(every_slice) <= {"click", "box"}:
            raise ValueError(
                f"a prompt is one of {FIRST_PROMPTS}, on every slice click or box, got {list(first_prompts)} and "
                f"{list(every_slice)}"
            )
        self.network = network
        self.inferer = inferer
        self.first_prompts = first_prompts
        self.corrected_slices = corrected_slices
        self.slice_clicks = slice_clicks
        self.every_slice = every_slice

    def forward(self, image: Tensor, label: Tensor) -> dict[str, dict[str, Tensor]]:
        """Ask for the objects of one volume in every way.

        Args:
            image: (1, C, X, Y, Z) with its meta.
            label: (1, Q, X, Y, Z) masks.

        Returns:
            ``masks``: (1, Q, X, Y, Z) bool by the name of what was asked; ``seconds``: (1, Q) from each first prompt to
            the whole object, with each slice encoded anew.

        Raises:
            ValueError: when several volumes come at once.
        """
        if len(image) != 1:
            raise ValueError(f"one volume at a time: got {len(image)}")
        masks: dict[str, list[Tensor]] = {}
        seconds: dict[str, list[float]] = {kind: [] for kind in self.first_prompts}
        for truth in label[0].as_tensor() if isinstance(label, MetaTensor) else label[0]:
            truth = truth > 0.5
            for kind in self.first_prompts:
                self.inferer.kept.pop(self.network, None)
                start = time.perf_counter()
                for number, found in enumerate(self.refine(image, truth, kind)):
                    if number == 0:
                        seconds[kind].append(time.perf_counter() - start)
                        masks.setdefault(kind, []).append(found)
                    elif number in self.corrected_slices:
                        masks.setdefault(f"{kind}_corrected_{number}", []).append(found)
            for kind in self.every_slice:
                found = torch.zeros_like(truth)
                for k in truth.flatten(0, 1).any(0).nonzero().flatten().tolist():
                    upright(found[..., k])[:] = self.first_mask(image, upright(truth[..., k]), k, kind)
                masks.setdefault(f"every_slice_{kind}", []).append(found)
        return {
            "masks": {name: torch.stack(found)[None] for name, found in masks.items()},
            "seconds": {kind: torch.tensor([each]) for kind, each in seconds.items()},
        }

    def refine(self, image: Tensor, truth: Tensor, kind: str) -> Iterator[Tensor]:
        """Spread from the first prompt, and again after each correction.

        Args:
            image: (1, C, X, Y, Z).
            truth: (X, Y, Z) bool.
            kind: of first prompt.

        Returns:
            Masks (X, Y, Z) bool, one after the other.
        """
        largest = int(truth.sum((0, 1)).argmax())
        anchors = {largest: self.first_mask(image, upright(truth[..., largest]), largest, kind)}
        corrected: list[int] = []
        while True:
            labels = torch.zeros(truth.shape, dtype=torch.uint8, device=truth.device)
            for k, mask in anchors.items():
                upright(labels[..., k])[mask] = 1
            self.inferer.spread(image, self.network, {0: anchors}, labels)
            yield labels > 0
            errors = ((labels > 0) ^ truth).sum((0, 1))
            errors[corrected] = 0
            if len(corrected) == max([0, *self.corrected_slices]) or len(corrected) == len(errors):
                return
            worst = int(errors.argmax())
            corrected.append(worst)
            found, wanted = (upright(each[..., worst]) for each in (labels > 0, truth))
            anchors[worst] = self.corrected_mask(image, found, wanted, worst)

    def first_mask(self, image: Tensor, truth: Tensor, k: int, kind: str) -> Tensor:
        """Return the mask (H, W) of a slice by its first prompt.

        Args:
            image: (1, C, X, Y, Z).
            truth: (H, W) bool, not empty.
            k: the slice.
            kind: of prompt.
        """
        if kind == "mask":
            return truth
        return self.answer(image, k, carried_prompt(truth.cpu().numpy(), ["point" if kind == "click" else kind]))

    def corrected_mask(self, image: Tensor, found: Tensor, truth: Tensor, k: int) -> Tensor:
        """Return the mask (H, W) of a slice after clicks that correct it.

        Args:
            image: (1, C, X, Y, Z).
            found: (H, W) bool, so far.
            truth: (H, W) bool.
            k: the slice.
        """
        if not truth.any():
            return torch.zeros_like(truth)
        prompt, mask = Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)), found
        for _ in range(self.slice_clicks):
            clicked = add_click(prompt, mask.cpu().numpy(), truth.cpu().numpy())
            if clicked is prompt:  # nothing is wrong
                break
            prompt, mask = clicked, self.answer(image, k, clicked, mask)
        return mask

    def answer(self, image: Tensor, k: int, prompt: Prompt, previous: Tensor | None = None) -> Tensor:
        """Return the mask (H, W) that a prompt on a slice gives.

        Args:
            image: (1, C, X, Y, Z).
            k: the slice.
            prompt: of one object.
            previous: (H, W) bool that the prompt corrects.
        """
        view, logits, _ = self.inferer.look(image, self.network, k, prompt, previous, source_state(image))
        return on_slice(view, logits, (image.shape[3], image.shape[2]))
