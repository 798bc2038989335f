# SPDX-License-Identifier: Apache-2.0
"""Which objects lie on which slices of images and labels: looked at once, and kept until a file changes."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..errors import InputError
from ..io.file_state import file_state
from ..io.grids import on_grid_of
from ..io.reading import LoadCheckedImaged, label_values, spatial_shape
from .listing import Label, Pair

INDEX_VERSION = 6
MANY = 100  # images whose check is worth a bar, in a terminal
KEPT_AT_ONCE = 10_000
# (slice, pixels of each id on it), of slices with objects and of the last one; None is the whole volume
Slices = list[tuple[int | None, dict[int, float]]]


def find_objects(data: Sequence[Pair], cache_dir: str) -> tuple[list[tuple[Pair, Slices]], list[str]]:
    """Check every pair and find the ids on each slice of its label.

    Args:
        data: pairs of an image and its label.
        cache_dir: where the index is kept, or nothing.

    Returns:
        The usable pairs with their slices, and a sentence for each of the others.
    """
    signature = json.dumps([INDEX_VERSION, [[_signature(p["image"]), _signature(p["label"])] for p in data]])
    index = Path(cache_dir) / "objects" / f"{hashlib.sha256(signature.encode()).hexdigest()[:24]}.json"
    # None of a pair that could not be used: a share may be back, a package installed, and its file the same
    known = json.loads(index.read_text()) if index.is_file() else [None] * len(data)
    unknown = [i for i, result in enumerate(known) if result is None]
    results = list(known)
    check = partial(_check_pair, LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        with tqdm(total=len(unknown), desc="checking images", disable=None if len(unknown) > MANY else True) as bar:
            for start in range(0, len(unknown), KEPT_AT_ONCE):  # so that a check that was stopped goes on
                part = unknown[start : start + KEPT_AT_ONCE]
                for i, result in zip(part, pool.map(check, [data[i] for i in part])):
                    results[i] = result
                    bar.update()
                _keep(index, results, known)
    found: list[tuple[Pair, Slices]] = [
        (pair, [(k, {int(i): n for i, n in pixels}) for k, pixels in result])
        for pair, result in zip(data, results)
        if isinstance(result, list)
    ]
    return found, [result for result in results if isinstance(result, str)]


def _keep(index: Path, results: Sequence, known: Sequence) -> None:
    """Keep what is known of the pairs that can be used."""
    usable = [result if isinstance(result, list) else None for result in results]
    if usable != known:
        index.parent.mkdir(parents=True, exist_ok=True)
        unfinished = index.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(usable))
        unfinished.replace(index)


def _check_pair(load_image: LoadCheckedImaged, load_label: LoadCheckedImaged, pair: Pair) -> list | str:
    """Return the ids and their pixels on each slice of a label, or a sentence that says what is wrong with the pair."""
    try:
        image = load_image({"image": pair["image"]})["image"]
        label = on_grid_of(label_values(load_label({"label": pair["label"]})["label"]), image)
    except InputError as error:
        return str(error)
    if spatial_shape(image) != spatial_shape(label):
        return (
            f"{pair['image']} is {_size(image)} but its label {_name(pair['label'])} is {_size(label)}: "
            "an image and its label have the same size"
        )
    slices = label.as_tensor().unsqueeze(-1) if label.ndim == 3 else label.as_tensor()  # (C, X, Y, Z)
    depth = slices.shape[-1]
    found = [(k, pixels) for k in range(depth) if (pixels := _count_pixels(slices[..., k]))]
    if not found:
        return f"{_name(pair['label'])} is empty: it has no object to train on or to score"
    return found if found[-1][0] == depth - 1 else [*found, (depth - 1, [])]


def _count_pixels(label: torch.Tensor) -> list[tuple[int, int]]:
    """Count the pixels of each id on a slice: (1, X, Y) ids, or (C, X, Y) means of raters."""
    if label.is_floating_point():
        counts = zip(range(1, len(label) + 1), (label > 0.5).flatten(1).sum(1).tolist())
    else:
        counts = zip(*(t.tolist() for t in label.unique(return_counts=True)))
    return [(i, n) for i, n in counts if i > 0 and n > 0]


def _name(label: Label) -> str:
    """Name a label, or the first of its masks."""
    return label if isinstance(label, str) else f"{label[0][0]} (the mean of its raters)"


def _size(image: torch.Tensor) -> str:
    return " x ".join(str(n) for n in spatial_shape(image))


def _signature(path: Label | list[str]) -> list:
    """Return the state of a file, or of lists of them, without reading it."""
    if not isinstance(path, str):
        return [_signature(one) for one in path]
    try:
        return list(file_state(path))
    except OSError:
        return [os.path.abspath(path), None]


def count_voxels(slices: Slices) -> dict[int, float]:
    """Count the voxels of each id of a volume, from the pixels on its slices."""
    total: Counter[int] = Counter()
    for _, pixels in slices:
        total.update(pixels)
    return dict(total)
