# SPDX-License-Identifier: Apache-2.0
"""The items of a data set of objects: what is asked for together, on which slice."""

from collections.abc import Mapping, Sequence

from ..prompts.case_id import UNION_OBJECT, Case, write_case
from ..prompts.class_layout import ClassLayout
from .listing import Pair
from .object_index import Slices


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
    for k, pixels in slices:
        if not pixels:  # the last slice is listed, whatever is on it
            continue
        objects = objects_on(pixels, classes) if layout is None else layout.classes
        names = list(objects)
        for start in range(0, len(names), objects_per_item or len(names) or 1):
            chosen = names[start : start + objects_per_item] if objects_per_item else names
            items.append(make_item(pair, name, k, {n: objects[n] for n in chosen}, pixels))
        if whole and objects:
            everything = {UNION_OBJECT: sorted({i for ids in objects.values() for i in ids})}
            items.append(make_item(pair, name, k, everything, pixels))
    return items


def list_ends(pair: Pair, name: str, slices: Slices, classes: Mapping[str, Sequence[int]] | None) -> list[dict]:
    """List the slices of a volume beside those where an object ends; it is not there, and ``ends`` says so.

    Args:
        pair: ``image``, ``label`` and what a list says of them.
        name: of the image.
        slices: pixels of each label id, slice by slice, with the last one.
        classes: label ids by name, or nothing.
    """
    on = {k: objects_on(pixels, classes) for k, pixels in slices if k is not None}
    items = []
    for k in range(max(on) + 1):
        beside = {**on.get(k - 1, {}), **on.get(k + 1, {})}
        ended = {key: ids for key, ids in beside.items() if key not in on.get(k, {})}
        if ended:
            items.append({**make_item(pair, name, k, ended, {}), "ends": True})
    return items


def objects_on(pixels: Mapping[int, float], classes: Mapping[str, Sequence[int]] | None) -> dict[str, Sequence[int]]:
    """Return the label ids of each object on a slice, by name.

    Args:
        pixels: of each id on it.
        classes: label ids by name, or nothing where each id is an object of its own.
    """
    if classes is None:
        return {str(i): [i] for i in pixels}
    return {key: wanted for key, wanted in classes.items() if set(wanted) & set(pixels)}


def make_item(
    pair: Pair, name: str, k: int | None, objects: Mapping[str, Sequence[int]], pixels: Mapping[int, float]
) -> dict:
    """Make the item that asks for objects of a slice.

    Args:
        pair: ``image``, ``label`` and what a list says of them.
        name: of the image.
        k: the slice, or nothing for a whole volume.
        objects: label ids by name.
        pixels: of each id on the slice.
    """
    areas = [sum(pixels.get(i, 0) for i in ids) for ids in objects.values()]
    # of a mixture, scored set by set
    known = [pair.get("set", key) if key != UNION_OBJECT else key for key in objects]
    case: Case = {"image": name, "slice": k, "objects": known, "areas": areas}
    if "group" in pair:
        case["group"] = pair["group"]
    own = {key: value for key, value in pair.items() if key != "classes"}
    return {**own, "slice": k, "objects": [list(ids) for ids in objects.values()], "case": write_case(case)}


def made_items(pairs: Sequence[Pair]) -> list[dict]:
    """List an item for each label that is made: those of files first, then those whose image is made too."""
    items = []
    for pair in sorted(pairs, key=lambda pair: callable(pair["image"])):
        case: Case = {"image": str(pair["image"]), "slice": 0, "objects": [], "areas": []}
        items.append({**pair, "slice": 0, "objects": [], "case": write_case(case)})
    return items
