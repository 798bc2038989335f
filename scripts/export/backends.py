# SPDX-License-Identifier: Apache-2.0
"""A network that is run from its files by ONNX Runtime or OpenVINO, in place of torch."""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..networks import EfficientSAM
from ..networks.promptable import DecodesBest, Promptable
from .writers import SETTINGS, require_package, sizes_of, write_pair

AUTO = "auto"  # OpenVINO, which is faster on a CPU, where it is installed; else torch
BACKENDS = ("torch", "onnxruntime", "openvino", AUTO)
FORMAT = 2  # of what is kept; another one is written anew
Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


class ExportedNetwork(DecodesBest, nn.Module):
    """Encode and decode by files, where the network that they were written from does by itself.

    Args:
        network: whose geometry is kept.
        folder: with what :func:`scripts.export.writers.write_pair` wrote, or OpenVINO's form of it.
        backend: ``"onnxruntime"`` or ``"openvino"``; both run on the CPU, with as many threads as torch has.

    Raises:
        InputError: when a file or the package is missing, or the files are of another network.
    """

    def __init__(self, network: Promptable, folder: str | Path, backend: str) -> None:
        super().__init__()
        folder = Path(folder)
        if not (folder / SETTINGS).is_file():
            raise InputError(f"{folder} holds no exported network: write one by python -m scripts.export onnx")
        known = json.loads((folder / SETTINGS).read_text())
        if known != sizes_of(network):
            raise InputError(f"{folder} is of a network of {known}, and the weights are of {sizes_of(network)}")
        self.image_size, self.mask_size, self.num_slots = network.image_size, network.mask_size, network.num_slots
        self.resize, self.shrink, self.to_network = network.resize, network.shrink, network.to_network
        self.upscale = network.upscale
        self.encoder, self.decoder = (open_model(folder, part, backend) for part in ("encoder", "decoder"))

    def encode_image(self, image: Tensor) -> Tensor:
        image = self.resize(image)
        # one after the other: a runtime that has planned for one image plans anew for another number
        found = [self.encoder({"image": each[None].contiguous().cpu().numpy()})[0] for each in image]
        return torch.from_numpy(np.concatenate(found)).to(image.device)

    def decode_all(
        self,
        embeddings: Tensor,
        points: Tensor,
        point_labels: Tensor,
        size: tuple[int, int],
        mask_prompt: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode all masks of each object; see :meth:`scripts.networks.promptable.Promptable.decode_all`.

        Args:
            embeddings: (B, ...) of :meth:`encode_image`.
            points: (B, Q, N, 2), (x, y) in pixels of an image of ``size``.
            point_labels: (B, Q, N) integers: see :mod:`scripts.prompts.form`.
            size: (H, W) of the image.
            mask_prompt: (B, Q, 1, M, M) logits of the round before, or nothing.
        """
        mask, shown = mask_prompt, torch.tensor([float(mask_prompt is not None)])
        if mask is None:
            mask = torch.zeros(*points.shape[:2], 1, self.mask_size, self.mask_size)
        feed = {"embeddings": embeddings, "points": points.float(), "point_labels": point_labels.long()}
        feed |= {"size": torch.tensor(size).float(), "mask_prompt": mask, "has_mask": shown}
        logits, iou = self.decoder({name: value.contiguous().cpu().numpy() for name, value in feed.items()})
        return torch.from_numpy(logits).to(embeddings.device), torch.from_numpy(iou).to(embeddings.device)


def choose_backend(backend: str, device: str | torch.device) -> str:
    """Return which backend answers: the one that is given, or for ``"auto"`` the fastest that is installed.

    Args:
        backend: one of :data:`BACKENDS`.
        device: on which torch would answer.

    Raises:
        InputError: when there is no such backend.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend is one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend != AUTO:
        return backend
    there = all(importlib.util.find_spec(name) for name in ("openvino", "onnx", "onnxscript"))
    return "openvino" if there and torch.device(device).type == "cpu" else "torch"


def use_backend(network: EfficientSAM, backend: str, cache_dir: str, folder: str | None = None) -> nn.Module:
    """Return a network that answers by another backend; torch's is the network itself.

    Args:
        network: with its weights.
        backend: one of :data:`BACKENDS`.
        cache_dir: where its files are kept, written when its weights are first seen.
        folder: files to use instead, such as those of 8 bits.

    Raises:
        InputError: when there is no such backend, or what it takes is missing.
    """
    backend = choose_backend(backend, next(iter(network.parameters()), torch.empty(0)).device)
    if backend == "torch":
        return network
    if folder is not None:
        return ExportedNetwork(network, folder, backend)
    kept = Path(cache_dir) / "exported" / fingerprint(network)
    if not (kept / SETTINGS).is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=kept.parent))
        device = next(network.parameters()).device
        write_pair(network.cpu().eval(), work)
        network.to(device)
        if kept.is_dir() and not (kept / SETTINGS).is_file():  # somebody took files away
            shutil.rmtree(kept, ignore_errors=True)
        try:
            work.rename(kept)
        except OSError:  # another process was first: its files are the same, and it may be reading them
            shutil.rmtree(work)
    return ExportedNetwork(network, kept, backend)


def fingerprint(network: EfficientSAM) -> str:
    """Return a name that tells weights and settings from all others."""
    state = hashlib.sha256(f"{FORMAT} {type(network).__name__} {network.extra_repr()}".encode())
    for name, tensor in network.state_dict().items():
        state.update(name.encode() + tensor.cpu().numpy().tobytes())
    return state.hexdigest()[:24]


def open_model(folder: Path, part: str, backend: str) -> Run:
    """Open one file for a backend: OpenVINO's own where there is one, else ONNX.

    Args:
        folder: where the files lie.
        part: name of the file, without its suffix.
        backend: one of :data:`BACKENDS`.
    """
    package = require_package(backend)
    path, threads = folder / f"{part}.onnx", torch.get_num_threads()
    if backend == "openvino" and (folder / f"{part}.xml").is_file():
        path = folder / f"{part}.xml"
    if not path.is_file():
        raise InputError(f"{path} does not exist: write it by python -m scripts.export onnx")
    if backend == "onnxruntime":
        options = package.SessionOptions()
        options.intra_op_num_threads = threads
        session = package.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda feed: session.run(None, dict(feed))
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = package.Core().compile_model(path, "CPU", settings)
    return lambda feed: [result.copy() for result in model(dict(feed)).values()]
