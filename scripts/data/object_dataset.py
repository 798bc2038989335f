# SPDX-License-Identifier: Apache-2.0
"""A data set whose items are objects: what a prompt asks for, on one image or on one slice of a volume."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from monai.data import CacheDataset

from ..errors import InputError
from ..prompts.case_id import SIZES, UNION_OBJECT, read_case
from ..prompts.class_layout import ClassLayout
from .listing import Pair, short_names
from .object_index import count_voxels, find_objects
from .object_items import list_ends, list_items, made_items

logger = logging.getLogger(__name__)

RESERVED = {UNION_OBJECT, *SIZES}  # names in reports


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
        neighbours: let each slice of a volume come with the labels of those beside it, ``neighbours`` set (see
            :class:`scripts.transforms.UprightSliced`), and also list the slices where an object has just ended.
        recorded: let items keep the prompts that a list has of them, as ``recorded``.
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
        neighbours: bool = False,
        recorded: bool = False,
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
        items = []
        for name, (pair, slices) in zip(short_names(pair["image"] for pair, _ in found), found):
            own = pair.get("classes", classes)
            if not recorded or layout is not None:
                pair = {key: value for key, value in pair.items() if key != "recorded"}
            if neighbours and slices[-1][0] and layout is None:
                pair = {**pair, "neighbours": True}
                items += list_ends(pair, name, slices, own)
            items += list_items(pair, name, slices, own, objects_per_item, whole, layout)
        made = made_items([pair for pair in data if callable(pair["label"])])
        items += made
        if data and not items:
            wanted = f" of the classes {dict(classes)}" if classes and not problems else ""
            raise InputError(
                problems[0] if len(data) == 1 and problems else f"no usable object{wanted} in {len(data)} images"
            )
        ends = sum("ends" in item for item in items)
        count = sum(len(item["objects"]) for item in items if "ends" not in item)
        left_out = f", {len(problems)} images left out" if problems else ""
        ended = f", and {ends} slices beside them, where one has ended" if ends else ""
        made_up = f", and {len(made)} with labels that are made" if made else ""
        logger.info(
            f"{count} objects on {len(items) - ends - len(made)} items of {len(found)} images{ended}{left_out}{made_up}"
        )
        kept = int(cache_rate * sum(not callable(item["image"]) for item in items))  # of those that come first
        super().__init__(items, transform, cache_num=kept, progress=False, copy_cache=True)

    def mean_diameter(self) -> float:
        """Return the diameter in pixels of a disc as large as the mean object."""
        cases = [read_case(item["case"]) for item in self.data if not item.get("ends")]
        areas = [area for case in cases if case["objects"] != [UNION_OBJECT] for area in case["areas"]]
        return 2 * math.sqrt(sum(areas) / max(len(areas), 1) / math.pi)
