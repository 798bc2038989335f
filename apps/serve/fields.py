# SPDX-License-Identifier: Apache-2.0
"""What goes with a body in a header, checked field by field."""

import json
from typing import Any

from nnInteractive.inference.remote._protocol import META_HEADER

from apps.common.errors import RequestError


def read_meta(text: str) -> dict[str, Any]:
    """Read what goes with a body.

    Raises:
        RequestError: when it is no object of JSON.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{META_HEADER} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RequestError(f"{META_HEADER} is an object of JSON, got {text:.80}")
    return found


def read_flag(said: dict[str, Any], name: str, default: bool | None = None) -> bool:
    """Read true or false.

    Args:
        said: what goes with a body.
        name: of the value.
        default: where it is missing; nothing refuses that.

    Raises:
        RequestError: when it is something else.
    """
    value = said.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{name} is true or false, got {value!r:.40}")
    return value


def read_bounds(bounds: Any) -> list[list[float]] | None:
    """Read the place of a drawing; nothing where there is none.

    Raises:
        RequestError: when it is no list of pairs of numbers.
    """
    if bounds is None:
        return None
    if not isinstance(bounds, list) or not all(
        isinstance(each, list) and len(each) == 2 and all(map(is_number, each)) for each in bounds
    ):
        raise RequestError(f"interaction_bbox is a list of pairs of numbers, got {bounds!r:.120}")
    return bounds


def read_spacing(spacing: Any) -> list[float] | None:
    """Read the spacing of an image; nothing where there is none.

    Raises:
        RequestError: when it is no list of numbers.
    """
    if spacing is not None and not (isinstance(spacing, list) and all(map(is_number, spacing))):
        raise RequestError(f"spacing is a list of numbers, got {spacing!r:.80}")
    return spacing


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
