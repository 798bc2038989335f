# SPDX-License-Identifier: Apache-2.0
"""What an item of :class:`scripts.data.ObjectDataset` says of itself: one text, since texts of any length collate."""

import json
from typing import Any, NotRequired, TypedDict

UNION_OBJECT = "everything"  # name of the object that is all that is labelled on a slice
SIZES = ("small", "medium", "large")  # names of the terciles of objects


class Case(TypedDict):
    """Which objects of which image."""

    image: str  # short name
    slice: int | None  # nothing for a whole volume
    objects: list[str]  # names: of classes, or label ids
    areas: list[float]  # of the objects, in pixels
    group: NotRequired[str]  # that the image is of, such as its patient


def write_case(case: Case) -> str:
    """Write a case as ``item["case"]`` holds it."""
    return json.dumps(case)


def read_case(text: str) -> Any:
    """Read what :func:`write_case` wrote."""
    return json.loads(text)
