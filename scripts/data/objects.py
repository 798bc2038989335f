# SPDX-License-Identifier: Apache-2.0
"""A data set whose items are objects: what a prompt asks for, on one image or on one slice of a volume."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from monai.data import CacheDataset

from ..errors import InputError
from .reading import LoadFiled, label_values, spatial_shape

logger = logging.getLogger(__name__)

INDEX_VERSION = 1
Slices = list[tuple[int, list[int]]]  # (slice, ids on it)


class ObjectDataset(CacheDataset):
    """List the objects of images and labels, checked once, and load them one item at a time.

    Pairs that cannot be used (missing, unreadable, of different size, empty label, NaN) are reported by name and left
    out. What the check found is kept in ``cache_dir`` until a file changes.

    Args:
        data: ``{"image": path, "label": path}`` for each image or volume.
        transform: gets ``{"image", "label", "slice", "objects", "case"}``: objects is a list of lists of label ids,
            case a JSON text with the image's name, the slice and the objects' names.
        classes: label ids of each object by name, such as ``{"cell": [1, 2], "nucleus": [2]}``; without, each id of a
            label is an object of its own.
        objects_per_item: how many objects of one slice may share an item.
        cache_dir: where the check's result is kept.
        cache_rate: share of the items whose deterministic transforms are kept in memory.

    Raises:
        InputError: when there is data but nothing of it can be used.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, str]],
        transform: Callable,
        classes: Mapping[str, Sequence[int]] | None = None,
        objects_per_item: int = 1,
        cache_dir: str = ".cache",
        cache_rate: float = 0.0,
    ) -> None:
        found, problems = find_objects(data, cache_dir)
        for problem in problems:
            logger.warning(f"left out: {problem}")
        items = [
            item
            for name, (pair, slices) in zip(_short_names([pair["image"] for pair, _ in found]), found)
            for item in list_items(pair, name, slices, classes, objects_per_item)
        ]
        if data and not items:
            wanted = f" of the classes {dict(classes)}" if classes and not problems else ""
            raise InputError(
                problems[0] if len(data) == 1 and problems else f"no usable object{wanted} in {len(data)} images"
            )
        count = sum(len(item["objects"]) for item in items)
        left_out = f", {len(problems)} images left out" if problems else ""
        logger.info(f"{count} objects on {len(items)} items of {len(found)} images{left_out}")
        super().__init__(items, transform, cache_rate=cache_rate, progress=False, copy_cache=True)


def list_items(
    pair: Mapping[str, str],
    name: str,
    slices: Slices,
    classes: Mapping[str, Sequence[int]] | None,
    objects_per_item: int,
) -> list[dict]:
    """List the items of one image or volume, called by a name."""
    items = []
    for k, ids in slices:
        if classes is None:
            objects = {str(i): [i] for i in ids}
        else:
            objects = {key: list(wanted) for key, wanted in classes.items() if set(wanted) & set(ids)}
        names = list(objects)
        for start in range(0, len(names), objects_per_item):
            chosen = names[start : start + objects_per_item]
            case = {"image": name, "slice": k, "objects": chosen}
            items.append({**pair, "slice": k, "objects": [objects[n] for n in chosen], "case": json.dumps(case)})
    return items


def find_objects(
    data: Sequence[Mapping[str, str]], cache_dir: str
) -> tuple[list[tuple[Mapping[str, str], Slices]], list[str]]:
    """Check every pair and find the ids on each slice of its label.

    Returns:
        The usable pairs with their slices, and a sentence for each of the others.
    """
    signature = json.dumps([INDEX_VERSION, [[_signature(p["image"]), _signature(p["label"])] for p in data]])
    index = Path(cache_dir) / "objects" / f"{hashlib.sha256(signature.encode()).hexdigest()[:24]}.json"
    if index.is_file():
        results = json.loads(index.read_text())
    else:
        if len(data) > 100:
            logger.info(f"checking {len(data)} images and labels")
        check = partial(_check_pair, LoadFiled("image"), LoadFiled("label", label=True))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            results = list(pool.map(check, data))
        index.parent.mkdir(parents=True, exist_ok=True)
        unfinished = index.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(results))
        unfinished.replace(index)
    found = [(pair, [(k, ids) for k, ids in result]) for pair, result in zip(data, results) if isinstance(result, list)]
    return found, [result for result in results if isinstance(result, str)]


def _check_pair(load_image: LoadFiled, load_label: LoadFiled, pair: Mapping[str, str]) -> Slices | str:
    """Give the ids on each slice of a label, or a sentence that says what is wrong with the pair."""
    try:
        image = load_image({"image": pair["image"]})["image"]
        label = label_values(load_label({"label": pair["label"]})["label"])
    except InputError as error:
        return str(error)
    if spatial_shape(image) != spatial_shape(label):
        return (
            f"{pair['image']} is {_size(image)} but its label {pair['label']} is {_size(label)}: an image and its "
            "label have the same size"
        )
    slices = label[0].as_tensor().unsqueeze(-1) if label.ndim == 3 else label[0].as_tensor()  # (X, Y, Z)
    found = [(k, [int(i) for i in torch.unique(slices[..., k]) if i > 0]) for k in range(slices.shape[-1])]
    found = [(k, ids) for k, ids in found if ids]
    return found or f"{pair['label']} is empty: it has no object to train on or to score"


def _short_names(paths: Sequence[str]) -> list[str]:
    """Name files by their path below the folder that all are in."""
    paths = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [Path(path).relative_to(root).as_posix() for path in paths]


def _size(image: torch.Tensor) -> str:
    return " x ".join(str(n) for n in spatial_shape(image))


def _signature(path: str) -> list:
    """Tell a file's state without reading it."""
    try:
        stat = os.stat(path)
        return [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]
    except OSError:
        return [os.path.abspath(path), None, None]
