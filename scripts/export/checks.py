# SPDX-License-Identifier: Apache-2.0
"""Whether files answer as the network that they were written from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..networks import EfficientSAM
from .backends import ExportedNetwork, open_model
from .modules import FRAME, SamDecoder, SamEncoder

TOLERANCE = 1e-4  # of the largest value that the network gives
AGREEMENT = 0.9999  # share of pixels that are on the same side of 0
OBJECTS = (1, 3, 8)


def check_pair(network: EfficientSAM, folder: Path, backend: str, images: Sequence[Tensor]) -> tuple[float, float]:
    """Compare encoder and decoder with the network, with 1, 3 and 8 objects, without and with a mask before.

    Args:
        network: that was written.
        folder: of the files.
        backend: that runs them.
        images: (1, 3, H, W), RGB in 0..1, of any sizes.

    Returns:
        The largest deviation, as a share of the largest value, and the smallest share of pixels that agree.
    """
    exported, found = ExportedNetwork(network, folder, backend), WorstDeviation()
    for image in images:
        size = (image.shape[2], image.shape[3])
        embeddings, given = network.encode_image(image), exported.encode_image(image)
        found.compare(embeddings, given)
        for count in OBJECTS:
            points, labels = clicks(count, size)
            mask = None
            for _ in range(2):
                logits, iou = network.decode_best(embeddings, points, labels, size, mask)
                answer, quality = exported.decode_best(given, points, labels, size, mask)
                found.compare(logits, answer)
                found.compare(iou, quality)
                found.agree(network.upscale(logits, size), exported.upscale(answer, size))
                mask = logits
    return found.result()


def check_whole(network: EfficientSAM, folder: Path, backend: str, images: Sequence[Tensor]) -> tuple[float, float]:
    """Compare the network in one file, as :func:`check_pair` does its halves.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: where the files lie.
        backend: one of :data:`BACKENDS`.
        images: (1, 3, H, W) each, RGB in 0..1.
    """
    run, found = open_model(folder, "model", backend), WorstDeviation()
    for image in images:
        size = (image.shape[2], image.shape[3])
        for count in OBJECTS:
            points, labels = clicks(count, size)
            feed = {"image": image, "points": points, "point_labels": labels}
            masks = torch.from_numpy(run({name: value.numpy() for name, value in feed.items()})[0])
            expected = network(image, points, labels)
            found.compare(expected, masks)
            found.agree(expected, masks)
    return found.result()


def check_sam(network: EfficientSAM, folder: Path, images: Sequence[Tensor], height_first: bool) -> tuple[float, float]:
    """Compare the files that have segment-anything's signature, as a tool for it runs them.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: where the files lie.
        images: (1, 3, H, W) each, RGB in 0..1.
        height_first: whether the pair's clicks are (row, column).
    """
    encode, decode = (open_model(folder, f"sam_{part}", "onnxruntime") for part in ("encoder", "decoder"))
    encoder, decoder, found = SamEncoder(network, height_first), SamDecoder(network), WorstDeviation()
    for image in images:
        size = (image.shape[2], image.shape[3])
        given = 255 * image[0].permute(1, 2, 0) if height_first else image
        embeddings = encoder(given)
        answer = encode({"input_image": given.numpy()})[0]
        found.compare(embeddings, torch.from_numpy(answer))
        points, labels = clicks(1, size)
        prompts = (points[0] * FRAME / max(size), labels[0].float(), torch.zeros(1, 1, 256, 256), torch.zeros(1))
        expected = decoder(embeddings, *prompts, torch.tensor(size).float())
        names = ("point_coords", "point_labels", "mask_input", "has_mask_input")
        feed = {name: value.numpy() for name, value in zip(names, prompts)}
        results = decode({"image_embeddings": answer, **feed, "orig_im_size": np.array(size, np.float32)})
        for one, other in zip(expected, results):
            found.compare(one, torch.from_numpy(other))
        found.agree(expected[0], torch.from_numpy(results[0]))
    return found.result()


def check_torchscript(network: EfficientSAM, folder: Path, images: Sequence[Tensor]) -> tuple[float, float]:
    """Compare the scripted network.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: where the files lie.
        images: (1, 3, H, W) each, RGB in 0..1.
    """
    scripted, found = torch.jit.load(str(folder / "model.ts")), WorstDeviation()
    for image in images:
        for count in OBJECTS:
            prompts = clicks(count, (image.shape[2], image.shape[3]))
            expected, answer = network(image, *prompts), scripted(image, *prompts)
            found.compare(expected, answer)
            found.agree(expected, answer)
    return found.result()


def clicks(count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return a click and a click beside it for each object, and a box for every other one: (1, Q, 2, 2) and labels.

    Args:
        count: of objects.
        size: (H, W) of the image.
    """
    draw = np.random.RandomState(count)
    xy = np.sort(draw.uniform(0.1, 0.9, (1, count, 2, 2)), axis=2) * np.array(size[::-1])
    labels = np.where(np.arange(count)[None, :, None] % 2, [2, 3], [1, 0])
    return torch.from_numpy(np.floor(xy).astype(np.float32)), torch.from_numpy(labels)


class WorstDeviation:
    """The worst of all comparisons."""

    def __init__(self) -> None:
        self.deviation, self.agreement = 0.0, 1.0

    def compare(self, expected: Tensor, answer: Tensor) -> None:
        """Take the largest difference, as a share of the largest value.

        Args:
            expected: of the network.
            answer: of the file.
        """
        self.deviation = max(self.deviation, float((expected - answer).abs().max() / expected.abs().max()))

    def agree(self, expected: Tensor, answer: Tensor) -> None:
        """Take the share of pixels on the same side of the threshold.

        Args:
            expected: logits of the network.
            answer: logits of the file.
        """
        self.agreement = min(self.agreement, float(((expected > 0) == (answer > 0)).float().mean()))

    def result(self) -> tuple[float, float]:
        """Return the largest deviation and the smallest agreement.

        Raises:
            InputError: when they are not what an export may differ by.
        """
        if not self.deviation <= TOLERANCE or self.agreement < AGREEMENT:
            raise InputError(
                f"what was written differs from the network by {self.deviation:.1e} of its largest value and agrees on "
                f"{self.agreement:.4%} of the pixels; it was not kept: report it with the versions of torch and runtime"
            )
        return self.deviation, self.agreement
