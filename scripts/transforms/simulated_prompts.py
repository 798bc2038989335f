# SPDX-License-Identifier: Apache-2.0
"""Prompts that a user might give, drawn from the label."""

import re
import zlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.transforms import RandomizableTransform, Transform

from ..prompts.carried import carried_prompt
from ..prompts.case_id import UNION_OBJECT, read_case
from ..prompts.class_layout import ClassLayout
from ..prompts.form import Prompt, box_prompt, click_prompt, pad_prompts, whole_prompt
from .previous_slice import EXACT, draw_parts, waver
from .recorded_prompts import read_markers

SLOTS = 3  # a click takes one, a box two: one width for all, so that batches collate
KINDS = "click_1, box, box_jittered, box_jittered_N (by N percent), click_box, whole"
PREVIOUS_SLICE, RECORDED = "previous_slice", "recorded"  # of training alone, and of some items


def draw_prompt(kind: str, mask: np.ndarray, rng: np.random.RandomState, jitter: float) -> Prompt:
    """Draw one prompt for a (H, W) mask; an object that was moved out of the picture gets none, only padding.

    Args:
        kind: of prompt, one of :data:`KINDS`.
        mask: (H, W) bool, of the object.
        rng: source of random numbers.
        jitter: of a jittered box, as a share of its side.
    """
    if kind == "whole":
        return whole_prompt(mask.shape)
    if not mask.any():
        return Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    if kind == "click_1":
        return click_prompt(mask, rng)
    if kind == "click_box":
        parts = click_prompt(mask, rng), box_prompt(mask, rng, jitter)
        return Prompt(*(np.concatenate(each) for each in zip(*parts)))
    _, jittered, percent = kind.partition("box_jittered")
    return box_prompt(mask, rng, (int(percent[1:]) / 100 if percent else jitter) if jittered else 0.0)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a kind of prompt that does not exist."""
    for kind in kinds:
        if not re.fullmatch(r"click_1|click_box|whole|box(_jittered(_\d+)?)?", kind):
            raise ValueError(f"a kind of prompt is one of {KINDS}, got {kind!r}")


class RandPromptsd(RandomizableTransform):
    """Draw one prompt for each object, anew at every visit: for training.

    Objects of an item that is ``carried`` are prompted by their masks on the slice beside, exactly or roughly known.

    Args:
        kinds: probability of each kind, such as ``{"click_1": 0.5, "box_jittered": 0.5}``. Where ``data["whole"]`` is
            set, the prompt is the whole image instead. That of ``previous_slice`` is of volumes alone, and drawn by
            :class:`scripts.transforms.RandPreviousSliced`, that of ``recorded`` of items whose list has prompts, see
            :class:`scripts.transforms.RandRecordedPromptsd`; the others share the rest.
        jitter: how far a jittered box's sides move at most, as a share of the box's side.
        layout: of the classes, where the objects are classes: all are asked for by one prompt, drawn for all as one.
        label_key: (Q, H, W) masks, upright, or (2 Q, H, W) of objects and of the slice before, which is taken off. Sets
            ``points`` (Q, N, 2), ``point_labels`` (Q, N) and ``previous`` (Q, H, W) uint8: masks that the network is
            shown with the prompt, empty where it is shown none.
    """

    def __init__(
        self,
        kinds: Mapping[str, float],
        jitter: float = 0.1,
        layout: ClassLayout | None = None,
        label_key: str = "label",
    ) -> None:
        super().__init__()
        drawn = {kind: probability for kind, probability in kinds.items() if kind not in (PREVIOUS_SLICE, RECORDED)}
        check_kinds(list(drawn))
        if not np.isclose(sum(kinds.values()), 1.0):
            raise ValueError(f"the probabilities of the kinds of prompt must add up to 1, got {dict(kinds)}")
        if not sum(drawn.values()):
            raise ValueError(f"some items need a prompt of their own: give a kind beside {', '.join(kinds)}")
        self.kinds = {kind: probability / sum(drawn.values()) for kind, probability in drawn.items()}
        self.jitter = jitter
        self.layout = layout
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, Any]:
        data = dict(data)
        whole, is_carried, marked = data.pop("whole", False), data.pop("carried", False), data.pop("marked", [])
        masks = np.greater(np.asarray(data[self.label_key]), 0.5)
        recorded = read_markers(masks[len(masks) - len(marked) :], marked) if marked else None
        masks = masks[: len(masks) - len(marked)]
        data[self.label_key] = data[self.label_key][: len(masks)]
        if is_carried:
            return self.carry(data, masks[len(masks) // 2 :])
        prompts = [] if recorded is None else [recorded]
        for mask in [] if recorded else masks if self.layout is None else masks.any(0, keepdims=True):
            kind = "whole" if whole else self.R.choice(list(self.kinds), p=list(self.kinds.values()))
            prompts.append(draw_prompt(kind, mask, self.R, self.jitter))
        points, point_labels = pad_prompts(prompts if self.layout is None else self.layout.prompts(*prompts), SLOTS)
        data["points"], data["point_labels"] = torch.from_numpy(points), torch.from_numpy(point_labels)
        data["previous"] = torch.zeros(masks.shape, dtype=torch.uint8)
        return data

    def carry(self, data: dict[Hashable, Any], before: np.ndarray) -> dict[Hashable, Any]:
        """Prompt objects by their masks on the slice before.

        Args:
            data: of the item.
            before: (Q, H, W) bool.
        """
        parts = draw_parts(self.R)
        if self.R.rand() >= EXACT:
            before = np.stack([waver(mask, self.R) for mask in before])
        nothing = Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
        points, labels = pad_prompts([carried_prompt(m, parts) if m.any() else nothing for m in before], SLOTS)
        data["points"], data["point_labels"] = torch.from_numpy(points), torch.from_numpy(labels)
        data["previous"] = torch.from_numpy((before if "mask" in parts else np.zeros_like(before)).astype(np.uint8))
        data[self.label_key] = data[self.label_key][: len(before)]
        return data


class SeededPromptsd(Transform):
    """Draw each kind of prompt for each object, the same at every visit: for validation.

    The random numbers come from the case's own name, so a metric changes only when the weights do.

    Args:
        kinds: of prompt; the item of everything on a slice is asked for by ``whole`` alone, and the others by the rest.
        jitter: how far a jittered box's sides move at most, as a share of the box's side.
        layout: of the classes, where the objects are classes: all are asked for by one prompt, drawn for all as one.
        label_key: (Q, H, W) masks, upright. Sets ``prompts``: for each kind, points (Q, N, 2) and labels (Q, N).
    """

    def __init__(
        self, kinds: Sequence[str], jitter: float = 0.1, layout: ClassLayout | None = None, label_key: str = "label"
    ) -> None:
        check_kinds(kinds)
        self.kinds = list(kinds)
        self.jitter = jitter
        self.layout = layout
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, Any]:
        data = dict(data)
        case = read_case(data["case"])
        masks = np.greater(np.asarray(data[self.label_key]), 0.5)
        data["prompts"] = {}
        for kind in self.kinds:
            if (kind == "whole") != (case["objects"] == [UNION_OBJECT]) and self.layout is None:
                continue
            asked = [("all", masks.any(0))] if self.layout else zip(case["objects"], masks, strict=True)
            drawn = []
            for name, mask in asked:
                seed = zlib.crc32(f"{PurePath(case['image']).name} {case['slice']} {name} {kind}".encode())
                drawn.append(draw_prompt(kind, mask, np.random.RandomState(seed), self.jitter))
            points, point_labels = pad_prompts(self.layout.prompts(*drawn) if self.layout else drawn)
            data["prompts"][kind] = {"points": torch.from_numpy(points), "labels": torch.from_numpy(point_labels)}
        return data
