# SPDX-License-Identifier: Apache-2.0
"""Prompts that a user might give, drawn from the label."""

import json
import zlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.transforms import RandomizableTransform, Transform

from ..prompts import Prompt, align_prompts, box_prompt, click_prompt, pad_prompts

SLOTS = 2  # a click takes one, a box two: one width for all, so that batches collate


def draw_prompt(kind: str, mask: np.ndarray, rng: np.random.RandomState, jitter: float) -> Prompt:
    """Draw one prompt for a (H, W) mask; an object that was moved out of the picture gets none, only padding."""
    if not mask.any():
        return np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    if kind == "click_1":
        return click_prompt(mask, rng)
    return box_prompt(mask, rng, jitter if kind == "box_jittered" else 0.0)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a kind of prompt that does not exist."""
    known = ("click_1", "box", "box_jittered")
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"a kind of prompt is one of {', '.join(known)}, got {kind!r}")


def put_prompts(data: dict, prompts: list[Prompt]) -> dict:
    """Store prompts as tensors in the one form: ``points`` (Q, 2, 2) and ``point_labels`` (Q, 2)."""
    points, point_labels = pad_prompts(prompts, SLOTS)
    data["points"], data["point_labels"] = torch.from_numpy(points), torch.from_numpy(point_labels)
    return data


class RandPromptsd(RandomizableTransform):
    """Draw one prompt for each object, anew at every visit: for training.

    Args:
        kinds: probability of each kind, such as ``{"click_1": 0.5, "box_jittered": 0.5}``.
        jitter: how far a jittered box's sides move at most, as a share of the box's side.
        label_key: (Q, H, W) masks, upright.
    """

    def __init__(self, kinds: Mapping[str, float], jitter: float = 0.1, label_key: str = "label") -> None:
        super().__init__()
        check_kinds(list(kinds))
        if not np.isclose(sum(kinds.values()), 1.0):
            raise ValueError(f"the probabilities of the kinds of prompt must add up to 1, got {dict(kinds)}")
        self.kinds = dict(kinds)
        self.jitter = jitter
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, Any]:
        data = dict(data)
        prompts = []
        for mask in np.asarray(data[self.label_key]):
            kind = self.R.choice(list(self.kinds), p=list(self.kinds.values()))
            prompts.append(draw_prompt(kind, mask, self.R, self.jitter))
        return put_prompts(data, prompts)


class CasePromptsd(Transform):
    """Draw each kind of prompt for each object, the same at every visit: for validation.

    The random numbers come from the case's own name, so a metric changes only when the weights do.

    Args:
        kinds: K kinds, in order; the result holds the Q objects of the first kind, then those of the second, and so on.
        jitter: how far a jittered box's sides move at most, as a share of the box's side.
        image_size: side of the network's image, for which points are aligned as :func:`scripts.prompts.align_prompts`
            does; nothing leaves them on whole pixels.
        label_key: (Q, H, W) masks, upright.
    """

    def __init__(
        self, kinds: Sequence[str], jitter: float = 0.1, image_size: int | None = None, label_key: str = "label"
    ) -> None:
        check_kinds(kinds)
        self.kinds = list(kinds)
        self.jitter = jitter
        self.image_size = image_size
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, Any]:
        data = dict(data)
        case = json.loads(data["case"])
        prompts = []
        for kind in self.kinds:
            for name, mask in zip(case["objects"], np.asarray(data[self.label_key]), strict=True):
                seed = zlib.crc32(f"{PurePath(case['image']).name} {case['slice']} {name} {kind}".encode())
                xy, labels = draw_prompt(kind, mask, np.random.RandomState(seed), self.jitter)
                if self.image_size is not None:
                    xy = align_prompts(xy, labels, mask.shape, self.image_size)
                prompts.append((xy, labels))
        return put_prompts(data, prompts)
