# SPDX-License-Identifier: Apache-2.0
"""Predictions and targets of one kind of prompt, object by object, for MONAI's metric handlers."""

from collections.abc import Mapping, Sequence

from torch import Tensor


class OfPrompt:
    """Pick one kind of prompt from an evaluator's output.

    In validation, one image is asked for each of its Q objects by each of K kinds of prompt, in one pass: the
    prediction is (K * Q, H, W) and the label (Q, H, W). A metric gets one kind, each object as a case of its own.

    Args:
        kind: name of the kind of prompt.
        kinds: all kinds, in the order in which they were asked.
        key: of the prediction.
    """

    def __init__(self, kind: str, kinds: Sequence[str], key: str = "pred") -> None:
        self.index = list(kinds).index(kind)
        self.count = len(kinds)
        self.key = key

    def __call__(self, output: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn a decollated batch into lists of (1, H, W) predictions and labels."""
        predictions, labels = [], []
        for item in output:
            of_kinds = item[self.key].unflatten(0, (self.count, -1))  # (K * Q, H, W) -> (K, Q, H, W)
            predictions += list(of_kinds[self.index].unsqueeze(1))
            labels += list(item["label"].unsqueeze(1))
        return predictions, labels
