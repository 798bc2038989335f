# SPDX-License-Identifier: Apache-2.0
"""``adapter.safetensors``: what was trained, in half precision, and in its header of which base, how and how well."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...errors import InputError
from .contract import adapter_group

SUFFIX = ".safetensors"
FORMAT = "efficientsam_adapter 1"
PARTS = ("base", "settings", "metrics")  # of what a file says, as JSON; its readers know only text


def write_adapter(path: Path, state: Mapping[str, Any]) -> None:
    """Write what :class:`AdapterWeights` holds.

    Args:
        path: of the file.
        state: its ``state_dict``.
    """
    tensors = {name: halved(value) for name, value in state["adapter"].items()}
    held = sorted({adapter_group(name) or name.split(".")[0] for name in tensors})
    metrics = {name: value for name, value in state["metrics"].items() if math.isfinite(value)}
    about = {"base": state["base"], "settings": state["settings"], "metrics": metrics}
    metadata = {name: json.dumps(value) for name, value in about.items()}
    metadata |= {"format": FORMAT, "holds": ", ".join(held), "sha256": digest(tensors)}
    save_file(tensors, path, metadata)


def read_adapter(path: Path) -> dict[str, Any]:
    """Read what :func:`write_adapter` wrote.

    Args:
        path: of the file.

    Returns:
        ``adapter`` (tensors by name), ``base`` (name and hash), ``settings`` and ``metrics``.

    Raises:
        InputError: when the file is cut short, was changed, or is of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file (cut short, or of another kind)") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is no adapter of this bundle: give the adapter{SUFFIX} of a training")
    try:
        about = {name: json.loads(metadata[name]) for name in PARTS}
        base = {"name": Path(str(about["base"]["name"])).name, "sha256": str(about["base"]["sha256"])}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} does not say what it was trained on: give the file as training wrote it") from error
    if metadata.get("sha256") != digest(tensors):
        raise InputError(f"{path} was changed after it was saved: copy it again")
    return {**about, "base": base, "adapter": tensors}


def halved(value: Tensor) -> Tensor:
    """Return a tensor in half precision, or as it is where that does not hold its numbers.

    Args:
        value: of any shape.
    """
    half = value.detach().cpu().half().contiguous()
    return half if bool(torch.isfinite(half).all()) else value.detach().cpu().contiguous()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype}".encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
