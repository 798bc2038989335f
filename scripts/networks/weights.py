# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in: upstream's, this bundle's and Medical-SAM-Adapter's, strictly, and saying what was done."""

import io
import logging
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .adapters import adapter_modules, load_adapter, read_adapter_settings
from .efficient_sam import BACKBONES, EfficientSAM

logger = logging.getLogger(__name__)

STATE_KEYS = ("model", "state_dict", "adapter")  # where upstream and this bundle, MSA, or an adapter keep tensors
MSA_NAMES = (  # names of Medical-SAM-Adapter -> names here
    (re.compile(r"\.mlp\.lin([12])\."), r".mlp.fc\1."),
    (re.compile(r"\.Space_Adapter\.D_fc1\."), ".space_adapter.down."),
    (re.compile(r"\.Space_Adapter\.D_fc2\."), ".space_adapter.up."),
    (re.compile(r"\.MLP_Adapter\.D_fc1\."), ".mlp_adapter.down."),
    (re.compile(r"\.MLP_Adapter\.D_fc2\."), ".mlp_adapter.up."),
)
MODELS = Path(__file__).parents[2] / "models"  # of the bundle, where bases lie
COMPILED = re.compile(r"(?:^|(?<=\.))_orig_mod\.")  # what torch.compile puts before names
NUMPY_NUMBERS: list[Any] = [  # that stand beside weights: the function that makes them, and their types
    np.float64(0).__reduce__()[0],
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLefd"),
]
POSITIONS = "image_encoder.pos_embed"
RELATIVE_POSITION = re.compile(r"\.attn\.rel_[hw]$")


def find_weights(folder: str | Path, backbone: str | None = None, names: tuple[str, ...] | list[str] = ()) -> str:
    """Pick the best weights present: the given names first, then upstream's, then the ones shipped with the bundle.

    Args:
        folder: where weights lie.
        backbone: ``"vitt"`` (also for nothing) or ``"vits"``.
        names: file names to prefer, best first.

    Returns:
        The path of the first that exists.

    Raises:
        InputError: when none does.
    """
    backbone = backbone or "vitt"
    for name in (*names, f"efficient_sam_{backbone}.pth", f"efficient_sam_{backbone}_base.pth"):
        path = Path(folder) / name
        if path.is_file():
            return str(path)
    raise InputError(
        f"there are no weights of {backbone} in {folder}: give a checkpoint, fetch upstream's by python -m "
        "monai.bundle download_large_files --bundle_path . or, to train from nothing, --pretrained none"
    )


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name (our names), and what it says of its network."""

    state: dict[str, Tensor]
    settings: dict[str, Any] | None
    image_size: int | None  # that older checkpoints of this bundle note, without other settings
    notes: list[str]  # what was left out
    whole: Mapping[str, Any]  # the file


@dataclass(frozen=True)
class AddedPart:
    """A part of the network that upstream has not, and that a checkpoint may lack as a whole: it starts at zero."""

    name: str
    tensors: list[str]
    is_fresh: bool


def added_parts(network: EfficientSAM) -> list[AddedPart]:
    """List the parts of a network that upstream has not."""
    parts = []
    for name, half in (("adapters", "image_encoder"), ("decoder adapters", "mask_decoder")):
        modules = {f"{half}.{key}": m for key, m in adapter_modules(network.get_submodule(half)).items()}
        tensors = [f"{key}.{own}" for key, module in modules.items() for own in module.adapter_parameters()]
        if modules:
            parts.append(AddedPart(name, tensors, all(module.is_fresh() for module in modules.values())))
    encoder = network.prompt_encoder
    corrections = [
        f"prompt_encoder.{part}.{key}" for part in encoder.CORRECTIONS for key in getattr(encoder, part).state_dict()
    ]
    return [*parts, AddedPart("background clicks and mask feedback", corrections, encoder.is_uncorrected())]


def load_weights(network: EfficientSAM, path: str | Path, from_nothing: bool = False) -> EfficientSAM:
    """Load a checkpoint strictly, and log what was loaded.

    Args:
        network: an :class:`EfficientSAM`, with or without adapters; changed in place.
        path: an upstream checkpoint (``.pt``, or zipped as upstream ships S), one of this bundle (an ``adapter.pth``
            finds its base beside it or among the bundle's), or one of Medical-SAM-Adapter; ``"none"`` keeps the network
            as it is.
        from_nothing: whether there may be no weights, which only training can begin from.

    Returns:
        The same network.

    Raises:
        InputError: when the file is missing, unreadable, of another backbone or model, holds what is no number, or does
            not fit exactly. Only what upstream has not may be missing, a whole part at a time: it starts at zero, which
            changes nothing.
    """
    if str(path) == "none":
        if not from_nothing:
            raise InputError("without weights the network would answer by random numbers: give a checkpoint")
        logger.warning("no pretrained weights: the network starts from random numbers")
        return network
    path = Path(path)
    checkpoint = read_checkpoint(path)
    if "adapter" in checkpoint.whole:
        name = checkpoint.whole["base"]["name"]
        base = next((p for p in (path.parent / name, MODELS / name) if p.is_file()), path.parent / name)
        logger.info(f"{path} is put on {base}")
        return load_adapter(load_weights(network, base), checkpoint.whole, path)

    state, notes, image_size = checkpoint.state, checkpoint.notes, checkpoint.image_size
    _check_backbone(network, state, path)
    if image_size not in (None, network.image_size):
        logger.warning(
            f"{path} was saved at image_size {image_size} and is used at {network.image_size}: expect other results, "
            f"or set image_size to {image_size}"
        )
    own = network.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    parts = added_parts(network)
    held = read_adapter_settings(state) or {}
    for name, is_held in (("adapters", bool(held)), ("decoder adapters", held.get("decoder", False))):
        if is_held and name not in [part.name for part in parts]:
            raise InputError(f"{path} holds {name} but the network has none: add {name} to the network before loading")
    for part in parts:
        if not any(key in state for key in part.tensors):
            if not part.is_fresh:
                raise InputError(f"{path} has no {part.name} but the network's are trained: load it into a new network")
            notes.append(f"{len(part.tensors)} tensors of {part.name} are not in it and start at zero")
            missing = [k for k in missing if k not in part.tensors]
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
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{path} is broken: {key} holds NaN or infinity; give the weights of an earlier epoch")
    network.load_state_dict({**own, **state}, strict=True)
    logger.info("; ".join([f"loaded {len(state)} tensors from {path}", *notes]))
    return network


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or the one checkpoint inside a zip.

    Raises:
        InputError: when the file is missing, cut short, or holds no tensors by name.
    """
    if not path.is_file():
        raise InputError(
            f"no weights at {path}: give a file that exists, or fetch upstream's by "
            "python -m monai.bundle download_large_files --bundle_path ."
        )
    source = _unzip(path)
    try:
        broken = zipfile.ZipFile(source).testzip() if zipfile.is_zipfile(source) else None
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        broken = "its index"
    if broken is not None:  # torch writes a checksum of each part, and does not look at it
        raise InputError(f"{path} was changed after it was saved ({broken} is broken): copy it again")
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            whole = torch.load(_rewound(source), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a bad file
        raise InputError(f"{path} is not a readable PyTorch checkpoint (cut short, or of another kind)") from error
    tensors = whole
    for key in STATE_KEYS:
        if isinstance(whole, dict) and isinstance(whole.get(key), dict):
            tensors = whole[key]
            break
    if (
        not isinstance(tensors, dict)
        or not tensors
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items())
    ):
        raise InputError(f"{path} holds no network weights: expected tensors by name, alone or under 'model'")
    settings = whole.get("settings")
    noted = getattr(tensors, "_metadata", {}).get("", {}).get("image_size") if settings is None else None
    state, notes = _rename(
        {COMPILED.sub("", key.removeprefix("module.")): value for key, value in tensors.items()}, path
    )
    return Checkpoint(state, settings, noted, notes, whole)


def _rewound(source: Path | io.BytesIO) -> Path | io.BytesIO:
    """Go back to the start of a file that was read."""
    if isinstance(source, io.BytesIO):
        source.seek(0)
    return source


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


def _check_backbone(network: EfficientSAM, state: dict[str, Tensor], path: Path) -> None:
    """Refuse weights of another backbone by name, before shapes are compared one by one."""
    if POSITIONS not in state:
        raise InputError(f"{path} is not an EfficientSAM checkpoint: it has no {POSITIONS}")
    if state[POSITIONS].dim() != 3:
        return
    width, own = state[POSITIONS].shape[2], BACKBONES[network.backbone]["dim"]
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
