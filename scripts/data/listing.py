# SPDX-License-Identifier: Apache-2.0
"""What the lists of all layouts share: their form, the kinds of files, names, and the split."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel
from monai.data import partition_dataset
from PIL import Image

from ..errors import InputError
from ..io.dicom import is_dicom, series_files
from ..io.nifti import is_nifti
from ..io.pictures import PICTURE_SUFFIXES

Label = str | list[list[str]]  # a file of ids, or for each class the mask of each rater
Pair = dict[str, Any]  # {"image": str, "label": Label}
Datalist = dict[str, list[Pair]]
IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, ".dcm", ".nii", ".nii.gz", ".seg.nrrd", ".nrrd", ".mha", ".mhd")


def image_suffix(path: Path) -> str | None:
    """Return the suffix of an image file, ``.nii.gz`` being one; hidden and other files have none."""
    name = path.name.lower()
    if name.startswith("."):
        return None
    return next((s for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True) if name.endswith(s)), None)


def list_images(folder: Path) -> list[Path]:
    """List what a folder holds of images: files of a known kind, and folders of one DICOM series or file each."""
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and _is_image(path)]


def _is_image(path: Path) -> bool:
    return bool(series_files(path)) if path.is_dir() else bool(image_suffix(path)) or is_dicom(path)


def existing_folder(path: str | Path) -> Path:
    """Refuse what is not a folder; ``~`` is the user's own."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{path} is not a folder: give the path of a data set")
    return folder


def resolve_relative(folder: Path, path: str) -> str:
    """Find a path that a list in a folder names: relative to it, absolute, or below the user's own folder.

    Args:
        folder: of the list that names the file.
        path: as the list names it.
    """
    return str(folder / Path(path).expanduser())


def short_names(paths: Iterable[str]) -> list[str]:
    """Name files by their path below the folder that all are in."""
    paths = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [Path(path).relative_to(root).as_posix() for path in paths]


def group_names(names: Sequence[str], pattern: str) -> list[str]:
    """Find in each image's name the group that it belongs to, such as its patient.

    Args:
        names: of :func:`short_names`.
        pattern: regular expression that is found in each; its first parenthesis, or all that it matches, is the group.

    Raises:
        InputError: when it is not a regular expression, or is not found in a name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"group_by {pattern!r} is not a regular expression: {error}") from error
    found = [expression.search(name) for name in names]
    if None in found:
        raise InputError(f"group_by {pattern!r} is not found in the name {names[found.index(None)]}")
    return [match[min(expression.groups, 1)] or "" for match in found if match]


def split_pairs(
    pairs: list[Pair],
    val_fraction: float,
    seed: int,
    held: Sequence[Pair] = (),
    group_by: str | None = None,
    test: Sequence[Pair] = (),
) -> Datalist:
    """Validate on what the data set itself holds out, else split at random, with one on each side at least.

    With ``group_by``, each pair gets its ``group``, which is found in its path below the folder that all images of all
    lists are in.

    Args:
        pairs: to train on, and to validate on where nothing is held out.
        val_fraction: share that validates, of images or of groups.
        seed: of the split.
        held: what the data set holds out to validate on.
        group_by: see :func:`group_names`; the images of one group stay together.
        test: what the data set holds out to test on.

    Returns:
        ``training``, ``validation`` and ``test``.

    Raises:
        InputError: when the fraction is out of its range, or the groups cannot be told.
    """
    if group_by:
        every = [*pairs, *held, *test]
        groups = group_names(short_names(pair["image"] for pair in every), group_by)
        every = [{**pair, "group": group} for pair, group in zip(every, groups)]
        pairs, held = every[: len(pairs)], every[len(pairs) : len(pairs) + len(held)]
        test = every[len(pairs) + len(held) :]
    if held:
        return {"training": pairs, "validation": list(held), "test": list(test)}
    if not 0 <= val_fraction < 1:
        raise InputError(f"val_fraction is at least 0 and below 1, got {val_fraction}")
    if val_fraction == 0 or len(pairs) < 2:
        return {"training": pairs, "validation": [], "test": list(test)}
    members: dict[str, list[Pair]] = {}
    for number, pair in enumerate(pairs):
        members.setdefault(pair.get("group", str(number)), []).append(pair)
    if len(members) < 2:
        raise InputError(f"group_by {group_by!r} finds one group, {next(iter(members))!r}: there is nothing to split")
    held_out = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
    shuffled = partition_dataset(list(members.values()), num_partitions=1, shuffle=True, seed=seed)[0]
    shuffled.sort(key=lambda group: not any(map(_can_open, group)))  # broken files are not all that validates
    training, validation = chain(*shuffled[held_out:]), chain(*shuffled[:held_out])
    return {"training": list(training), "validation": list(validation), "test": list(test)}


def _can_open(pair: Pair) -> bool:
    """Return whether the files of a pair are there, and begin as their kind does."""
    label = pair["label"]
    for name in [pair["image"], *([label] if isinstance(label, str) else chain(*label))]:
        path = Path(name)
        try:
            if path.is_file() and path.stat().st_size == 0:
                return False
            if path.name.lower().endswith(PICTURE_SUFFIXES):
                Image.open(path).close()
            elif is_nifti(path):
                nibabel.load(path)
            elif not path.exists():
                return False
        except Exception:  # every reader has its own
            return False
    return True


def pick_split(datalist: Datalist, split: str) -> list[Pair]:
    """Take one of a data set's lists.

    Args:
        datalist: pairs by split.
        split: name of the split.

    Raises:
        InputError: when it has none of that name, or an empty one.
    """
    if not datalist.get(split):
        present = [name for name, pairs in datalist.items() if pairs]
        raise InputError(f"the data set has no labelled images in split {split!r}: it has {', '.join(present)}")
    return datalist[split]
