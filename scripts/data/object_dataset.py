# SPDX-License-Identifier: Apache-2.0
"""A data set whose items are objects: what a prompt asks for, on one image or on one slice of a volume."""

import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from monai.data import CacheDataset

from ..errors import InputError
from ..io.file_state import file_state
from ..io.grids import on_grid_of
from ..io.reading import LoadCheckedImaged, label_values, spatial_shape
from ..prompts.case_id import SIZES, UNION_OBJECT, Case, read_case, write_case
from ..prompts.class_layout import ClassLayout
from .listing import Label, Pair, short_names

logger = logging.getLogger(__name__)

INDEX_VERSION = 5
RESERVED = {UNION_OBJECT, *SIZES}  # names in reports
Slices = list[tuple[int | None, dict[int, float]]]  # (slice, pixels of each id on it); None is the whole volume


class ObjectDataset(CacheDataset):
    """List the objects of images and labels, checked once, and load them one item at a time.

    Pairs that cannot be used (missing, unreadable, of different size or place, empty label, NaN) are reported by name
    and left out. What the check found of the others is kept in ``cache_dir`` until a file changes. Labels that are made
    and not read are not looked at before, so that their items say nothing of their objects.

    Args:
        data: ``{"image": path, "label": path}`` for each image or volume; or, for a label, ``[[path, ...], ...]``, for
            each class the mask of each rater. Class i is id i then, on the pixels where more than half of them see it.
            A pair may have ``classes`` of its own, and in a mixture it names its ``set``; all else is passed on. An
            image or a label that is made has a function in the place of its path.
        transform: gets ``{"image", "label", "slice", "objects", "case"}``: objects is a list of lists of label ids,
            case a JSON text with the image's name, the slice, and the objects' names and areas in pixels. No objects
            stand for all ids of a label that is made.
        classes: label ids of each object by name, such as ``{"cell": [1, 2], "nucleus": [2]}``; without, each id of a
            label is an object of its own.
        objects_per_item: how many objects of one slice may share an item; nothing sets no limit.
        volumes: make an item of each volume, with ``slice`` None and areas in voxels; what has one slice is left out.
        whole: also ask for all that is labelled on a slice as one object, in an item of its own.
        layout: of the classes, where one prompt asks for all of them: they take the place of ``classes``, and each is
            an object of every item, also where the slice has none of it.
        cache_dir: where the check's result is kept.
        cache_rate: share of the items whose deterministic transforms are kept in memory; images that are made are not.

    Raises:
        InputError: when there is data but nothing of it can be used.
    """

    def __init__(
        self,
        data: Sequence[Pair],
        transform: Callable,
        classes: Mapping[str, Sequence[int]] | None = None,
        objects_per_item: int | None = 1,
        volumes: bool = False,
        whole: bool = False,
        layout: ClassLayout | None = None,
        cache_dir: str = ".cache",
        cache_rate: float = 0.0,
    ) -> None:
        for name in {*(classes or {}), *(name for pair in data for name in pair.get("classes", ()))} & RESERVED:
            raise InputError(f"a class cannot be called {name!r}, which tables call something else: rename it")
        found, problems = find_objects([pair for pair in data if not callable(pair["label"])], cache_dir)
        if volumes:
            flat = [pair for pair, slices in found if not slices[-1][0]]
            problems += [f"{pair['image']} is no volume with objects on its slices" for pair in flat]
            found = [(pair, [(None, count_voxels(slices))]) for pair, slices in found if slices[-1][0]]
        for problem in problems:
            logger.warning(f"left out: {problem}")
        items = [
            item
            for name, (pair, slices) in zip(short_names(pair["image"] for pair, _ in found), found)
            for item in list_items(pair, name, slices, pair.get("classes", classes), objects_per_item, whole, layout)
        ]
        made = made_items([pair for pair in data if callable(pair["label"])])
        items += made
        if data and not items:
            wanted = f" of the classes {dict(classes)}" if classes and not problems else ""
            raise InputError(
                problems[0] if len(data) == 1 and problems else f"no usable object{wanted} in {len(data)} images"
            )
        count = sum(len(item["objects"]) for item in items)
        left_out = f", {len(problems)} images left out" if problems else ""
        made_up = f", and {len(made)} with labels that are made" if made else ""
        logger.info(f"{count} objects on {len(items) - len(made)} items of {len(found)} images{left_out}{made_up}")
        kept = int(cache_rate * sum(not callable(item["image"]) for item in items))  # of those that come first
        super().__init__(items, transform, cache_num=kept, progress=False, copy_cache=True)

    def mean_diameter(self) -> float:
        """Return the diameter in pixels of a disc as large as the mean object."""
        cases = [read_case(item["case"]) for item in self.data]
        areas = [area for case in cases if case["objects"] != [UNION_OBJECT] for area in case["areas"]]
        return 2 * math.sqrt(sum(areas) / max(len(areas), 1) / math.pi)


def count_voxels(slices: Slices) -> dict[int, float]:
    """Count the voxels of each id of a volume, from the pixels on its slices."""
    total: Counter[int] = Counter()
    for _, pixels in slices:
        total.update(pixels)
    return dict(total)


def made_items(pairs: Sequence[Pair]) -> list[dict]:
    """List an item for each label that is made: those of files first, then those whose image is made too."""
    items = []
    for pair in sorted(pairs, key=lambda pair: callable(pair["image"])):
        case: Case = {"image": str(pair["image"]), "slice": 0, "objects": [], "areas": []}
        items.append({**pair, "slice": 0, "objects": [], "case": write_case(case)})
    return items


def list_items(
    pair: Pair,
    name: str,
    slices: Slices,
    classes: Mapping[str, Sequence[int]] | None,
    objects_per_item: int | None,
    whole: bool = False,
    layout: ClassLayout | None = None,
) -> list[dict]:
    """List the items of one image or volume, called by a name.

    Args:
        pair: ``image``, ``label`` and what a list says of them.
        name: of the image.
        slices: pixels of each label id, slice by slice.
        classes: label ids by name, or nothing.
        objects_per_item: at most; nothing takes all.
        whole: whether one more item asks for all that is labelled.
        layout: of the classes, or nothing where each object is one by itself.
    """
    items = []
    pair = {key: value for key, value in pair.items() if key != "classes"}

    def add(k: int | None, objects: Mapping[str, list[int]], pixels: Mapping[int, float]) -> None:
        areas = [sum(pixels.get(i, 0) for i in ids) for ids in objects.values()]
        # of a mixture, scored set by set
        known = [pair.get("set", key) if key != UNION_OBJECT else key for key in objects]
        case: Case = {"image": name, "slice": k, "objects": known, "areas": areas}
        if "group" in pair:
            case["group"] = pair["group"]
        items.append({**pair, "slice": k, "objects": list(objects.values()), "case": write_case(case)})

    for k, pixels in slices:
        if layout is not None:
            objects = {key: list(wanted) for key, wanted in layout.classes.items()}
        elif classes is None:
            objects = {str(i): [i] for i in pixels}
        else:
            objects = {key: list(wanted) for key, wanted in classes.items() if set(wanted) & set(pixels)}
        names = list(objects)
        for start in range(0, len(names), objects_per_item or max(len(names), 1)):
            chosen = names[start : start + objects_per_item] if objects_per_item else names
            add(k, {n: objects[n] for n in chosen}, pixels)
        if whole and objects:
            add(k, {UNION_OBJECT: sorted({i for ids in objects.values() for i in ids})}, pixels)
    return items


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
    if len(unknown) > 100:
        logger.info(f"checking {len(unknown)} images and labels")
    results = list(known)
    if unknown:
        check = partial(_check_pair, LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for i, result in zip(unknown, pool.map(check, [data[i] for i in unknown])):
                results[i] = result
    usable = [result if isinstance(result, list) else None for result in results]
    if usable != known:
        index.parent.mkdir(parents=True, exist_ok=True)
        unfinished = index.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(usable))
        unfinished.replace(index)
    found: list[tuple[Pair, Slices]] = [
        (pair, [(k, {int(i): n for i, n in pixels}) for k, pixels in result])
        for pair, result in zip(data, results)
        if isinstance(result, list)
    ]
    return found, [result for result in results if isinstance(result, str)]


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
    found = [(k, pixels) for k in range(slices.shape[-1]) if (pixels := _count_pixels(slices[..., k]))]
    return found or f"{_name(pair['label'])} is empty: it has no object to train on or to score"


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
