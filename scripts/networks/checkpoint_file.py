# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint file holds: upstream's, this bundle's or Medical-SAM-Adapter's, under the names used here."""

import io
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
from .adapters.files import SUFFIX, read_adapter

STATE_KEYS = ("model", "state_dict", "adapter")  # where upstream and this bundle, MSA, or an adapter keep tensors
MSA_NAMES = (  # names of Medical-SAM-Adapter -> names here
    (re.compile(r"\.mlp\.lin([12])\."), r".mlp.fc\1."),
    (re.compile(r"\.(Space|MLP)_Adapter\.D_fc1\."), lambda found: f".{found[1].lower()}_adapter.down."),
    (re.compile(r"\.(Space|MLP)_Adapter\.D_fc2\."), lambda found: f".{found[1].lower()}_adapter.up."),
)
OLD_NAMES = {  # of this bundle's adapters, up to 0.2 -> names here
    "space_adapter": "attn.bottleneck",
    "mlp_adapter": "mlp.bottleneck",
    "token_adapter": "cross_attn_token_to_image.bottleneck",
    "image_adapter": "cross_attn_image_to_token.bottleneck",
}
OLD_NAME = re.compile(rf"\.({'|'.join(OLD_NAMES)})\.(?=down|up)")
COMPILED = re.compile(r"(?:^|(?<=\.))_orig_mod\.")  # what torch.compile puts before names
NUMPY_NUMBERS: list[Any] = [  # that stand beside weights: the function that makes them, and their types
    np.float64(0).__reduce__()[0],
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLefd"),
]
RELATIVE_POSITION = re.compile(r"\.attn\.rel_[hw]$")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name (our names), and what it says of its network."""

    state: dict[str, Tensor]
    settings: dict[str, Any] | None
    image_size: int | None  # that older checkpoints of this bundle note, without other settings
    notes: list[str]  # what was left out
    whole: Mapping[str, Any]  # the file

    @property
    def is_adapter(self) -> bool:
        """Return whether it holds only what was trained, which belongs on a base."""
        return "adapter" in self.whole


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
    if path.suffix == SUFFIX:
        whole = read_adapter(path)
        return Checkpoint(whole["adapter"], whole["settings"], None, [], whole)
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


def upgrade_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of any version of this bundle under the names of this one.

    Args:
        state: tensors by name.
    """
    return {OLD_NAME.sub(lambda found: f".{OLD_NAMES[found[1]]}.", name): value for name, value in state.items()}


def _rewound(source: Path | io.BytesIO) -> Path | io.BytesIO:
    """Go back to the start of a file that was read."""
    if isinstance(source, io.BytesIO):
        source.seek(0)
    return source


def _unzip(path: Path) -> Path | io.BytesIO:
    """Return the checkpoint inside a plain zip (upstream's S); torch's own files, zips too, stay as they are."""
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
    renamed = upgrade_names(renamed)
    if left_out["relative position"]:
        notes.append(f"left out {left_out['relative position']} relative-position tables, all zero")
    if left_out["depth adapter"]:
        notes.append(
            f"left out {left_out['depth adapter']} depth-adapter tensors, which single images never use: a model "
            "trained on volumes (-thd) will differ"
        )
    return renamed, notes
