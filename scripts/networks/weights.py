# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in: upstream's, this bundle's and Medical-SAM-Adapter's, strictly, and saying what was done."""

import io
import logging
import re
import zipfile
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from ..errors import InputError
from .efficient_sam import BACKBONES, EfficientSAM

logger = logging.getLogger(__name__)

STATE_KEYS = ("model", "state_dict")  # where upstream and this bundle, or Medical-SAM-Adapter, keep the tensors
MSA_NAMES = (  # names of Medical-SAM-Adapter -> names here
    (re.compile(r"\.mlp\.lin([12])\."), r".mlp.fc\1."),
    (re.compile(r"\.Space_Adapter\.D_fc1\."), ".space_adapter.down."),
    (re.compile(r"\.Space_Adapter\.D_fc2\."), ".space_adapter.up."),
    (re.compile(r"\.MLP_Adapter\.D_fc1\."), ".mlp_adapter.down."),
    (re.compile(r"\.MLP_Adapter\.D_fc2\."), ".mlp_adapter.up."),
)
ADDED_PARTS = {  # what upstream has not: the parameters' names, and which of them are zero until the part is trained
    "adapters": (re.compile(r"^image_encoder\..*_adapter\."), re.compile(r"\.up\.weight$")),
    "decoder adapters": (re.compile(r"^mask_decoder\..*_adapter\."), re.compile(r"\.up\.weight$")),
    "background clicks and mask feedback": (
        re.compile(r"^prompt_encoder\.(background_embeddings|mask_downscaling|no_mask_embed)\."),
        re.compile(r"(_embeddings|_embed)\.weight$|mask_downscaling\.6\."),
    ),
}
RELATIVE_POSITION = re.compile(r"\.attn\.rel_[hw]$")


def find_weights(folder: str | Path, backbone: str, names: tuple[str, ...] | list[str] = ()) -> str:
    """Pick the best weights present: the given names first, then upstream's, then the ones shipped with the bundle.

    Args:
        folder: where weights lie.
        backbone: ``"vitt"`` or ``"vits"``.
        names: file names to prefer, best first.

    Returns:
        The path of the first that exists, or ``"none"``.
    """
    for name in (*names, f"efficient_sam_{backbone}.pth", f"efficient_sam_{backbone}_base.pth"):
        path = Path(folder) / name
        if path.is_file():
            return str(path)
    return "none"


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a checkpoint strictly, and log what was loaded.

    Args:
        network: an :class:`EfficientSAM`, with or without adapters; changed in place.
        path: an upstream checkpoint (``.pt``, or zipped as upstream ships S), one of this bundle, or one of
            Medical-SAM-Adapter; ``"none"`` keeps the network as it is.

    Returns:
        The same network.

    Raises:
        InputError: when the file is missing, unreadable, of another backbone or model, or does not fit exactly. Only
            what upstream has not may be missing, a whole part at a time: it starts at zero, which changes nothing.
    """
    if str(path) == "none":
        logger.warning("no pretrained weights: the network starts from random numbers")
        return network
    path = Path(path)
    state, image_size = read_state_dict(path)
    state, notes = _rename(state, path)
    _check_backbone(network, state, path)
    if image_size not in (None, getattr(network, "image_size", image_size)):
        logger.warning(
            f"{path} was saved at image_size {image_size} and is used at {network.image_size}: expect other results, "
            f"or set image_size to {image_size}"
        )

    own = network.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    for part, (names, zero) in ADDED_PARTS.items():
        held, built = ([k for k in keys if names.search(k)] for keys in (state, own))
        if built and not held:
            if any(own[k].any() for k in built if zero.search(k)):
                raise InputError(f"{path} has no {part} but the network's are trained: load it into a new network")
            notes.append(f"{len(built)} tensors of {part} are not in it and start at zero")
            missing = [k for k in missing if k not in built]
        elif held and not built:
            raise InputError(f"{path} holds {part} but the network has none: add {part} to the network before loading")
    if missing or unexpected:
        raise InputError(
            f"{path} does not fit the network: {_listing('missing', missing)}, {_listing('unexpected', unexpected)}; "
            "give a checkpoint of the same model and kind of fine-tuning"
        )
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise InputError(
                f"{path} does not fit the network: {key} is {tuple(value.shape)} in the file and "
                f"{tuple(own[key].shape)} in the network; give the same settings as it was trained with"
            )
    network.load_state_dict({**own, **state}, strict=True)
    logger.info("; ".join([f"loaded {len(state)} tensors from {path}", *notes]))
    return network


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], int | None]:
    """Read the tensors of a checkpoint, or of the one checkpoint inside a zip.

    Returns:
        Tensors by name, and the image size that this bundle notes in what it saves.

    Raises:
        InputError: when the file is missing, cut short, or holds no tensors by name.
    """
    if not path.is_file():
        raise InputError(
            f"no weights at {path}: give a file that exists, or fetch upstream's by "
            "python -m monai.bundle download_large_files --bundle_path ."
        )
    try:
        checkpoint = torch.load(_unzip(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a bad file
        raise InputError(f"{path} is not a readable PyTorch checkpoint (cut short, or of another kind)") from error
    for key in STATE_KEYS:
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if (
        not isinstance(checkpoint, dict)
        or not checkpoint
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in checkpoint.items())
    ):
        raise InputError(f"{path} holds no network weights: expected tensors by name, alone or under 'model'")
    noted = getattr(checkpoint, "_metadata", {}).get("", {}).get("image_size")
    return {key.removeprefix("module."): value for key, value in checkpoint.items()}, noted


def _unzip(path: Path) -> Path | io.BytesIO:
    """Give the checkpoint inside a plain zip (upstream's S); torch's own files, zips too, stay as they are."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        inner = [n for n in archive.namelist() if n.endswith((".pt", ".pth")) and not n.startswith("__MACOSX")]
        if len(inner) != 1:
            return path
        return io.BytesIO(archive.read(inner[0]))


def _rename(state: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Bring Medical-SAM-Adapter's names to ours, and leave out what has no effect there; say so in notes."""
    renamed, notes = {}, []
    left_out = {"relative position": 0, "depth adapter": 0}
    for key, value in state.items():
        if RELATIVE_POSITION.search(key):
            if value.count_nonzero():
                raise InputError(f"{path} holds trained relative positions ({key}), which EfficientSAM has not")
            left_out["relative position"] += 1
            continue
        if ".Depth_Adapter." in key:
            left_out["depth adapter"] += 1
            continue
        for pattern, name in MSA_NAMES:
            key = pattern.sub(name, key)
        renamed[key] = value
    if left_out["relative position"]:
        notes.append(f"left out {left_out['relative position']} relative-position tables, all zero")
    if left_out["depth adapter"]:
        notes.append(
            f"left out {left_out['depth adapter']} depth-adapter tensors, which single images never use: a model "
            "trained on volumes (-thd) will differ"
        )
    return renamed, notes


def _check_backbone(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Refuse weights of another backbone by name, before shapes are compared one by one."""
    key = "image_encoder.pos_embed"
    if key not in state:
        raise InputError(f"{path} is not an EfficientSAM checkpoint: it has no {key}")
    if not isinstance(network, EfficientSAM) or state[key].dim() != 3:
        return
    width, own = state[key].shape[2], BACKBONES[network.backbone]["dim"]
    if width != own:
        names = {kind["dim"]: name for name, kind in BACKBONES.items()}
        seen = f"backbone {names[width]}" if width in names else "another backbone"
        raise InputError(
            f"{path} holds {seen} (embedding width {width}) but the network is {network.backbone} ({own}): "
            f"set the backbone to the file's, or give weights of {network.backbone}"
        )


def _listing(word: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
    return f"{len(keys)} tensors {word} ({shown})" if keys else f"none {word}"
