# SPDX-License-Identifier: Apache-2.0
"""What the lists of all layouts share: their form, the kinds of files, and the split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.data import partition_dataset

from ..errors import InputError
from ..transforms.reading import PICTURE_SUFFIXES

Label = str | list[list[str]]  # a file of ids, or for each class the mask of each rater
Pair = dict[str, Any]  # {"image": str, "label": Label}
Datalist = dict[str, list[Pair]]
IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, ".dcm", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def image_suffix(path: Path) -> str | None:
    """Give the suffix of an image file, ``.nii.gz`` being one; hidden and other files have none."""
    name = path.name.lower()
    if name.startswith("."):
        return None
    return next((s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if name.endswith(s)), None)


def existing_folder(path: str | Path) -> Path:
    """Refuse what is not a folder."""
    if not Path(path).is_dir():
        raise InputError(f"{path} is not a folder: give the path of a data set")
    return Path(path)


def split_pairs(pairs: list[Pair], val_fraction: float, seed: int, held: Sequence[Pair] = ()) -> Datalist:
    """Validate on what the data set itself holds out, else split at random, with one on each side at least."""
    if held:
        return {"training": pairs, "validation": list(held)}
    if not 0 <= val_fraction < 1:
        raise InputError(f"val_fraction is at least 0 and below 1, got {val_fraction}")
    if val_fraction == 0 or len(pairs) < 2:
        return {"training": pairs, "validation": []}
    count = min(max(round(val_fraction * len(pairs)), 1), len(pairs) - 1)
    shuffled = partition_dataset(pairs, num_partitions=1, shuffle=True, seed=seed)[0]
    return {"training": shuffled[count:], "validation": shuffled[:count]}
