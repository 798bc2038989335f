# SPDX-License-Identifier: Apache-2.0
"""What comes with a request, as values of known types: anything else is refused in one sentence, or left out.

Nothing of a request goes further than here but what these functions give.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from monailabel.utils.others.generic import device_map

from apps.common.errors import RequestError
from apps.common.weights import find_weights

MOST_TEXT = 2**20  # characters of parameters, which are clicks, not files
MOST_NAME = 200
WRITTEN = (".nrrd", ".seg.nrrd", ".nii.gz", ".nii", ".mha", ".png", ".tif", ".tiff", ".bmp")  # masks, without loss
DTYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32")

CLICKED, WHOLE = "clicked slices", "whole object"  # what is segmented of a volume

Field = Callable[[Any, str], Any]


def parse_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: of the client.
        what: the field's name, for errors.

    Raises:
        RequestError: when it is none, or larger or deeper than clicks are.
    """
    if len(text or "") > MOST_TEXT:
        raise RequestError(f"{what} has {len(text)} characters: at most {MOST_TEXT}")
    try:
        parsed = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{what} is not JSON ({error or 'too deep'})") from error
    if not isinstance(parsed, dict):
        raise RequestError(f"{what} is a JSON object, got {_shown(parsed)}")
    return parsed


def name(value: Any, what: str) -> str:
    """Return a name of an image, a label, a tag, a session or a model: never a path.

    Args:
        value: of a request.
        what: the field's name, for errors.

    Raises:
        RequestError: when it could lead out of the folder that it is looked for in.
    """
    allowed = isinstance(value, str) and 0 < len(value) <= MOST_NAME and value.isprintable()
    if not allowed or value.startswith(".") or any(c in value for c in "/\\"):
        raise RequestError(f"{what} is a name, without folders, got {_shown(value)}")
    return str(value)


def text(value: Any, what: str) -> str:
    """Return a short text, which is shown or noted and nothing else.

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    if not isinstance(value, str) or len(value) > MOST_NAME or not value.isprintable():
        raise RequestError(f"{what} is a short text, got {_shown(value)}")
    return value


def flag(value: Any, what: str) -> bool:
    """Return true or false, which clients send as texts too.

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise RequestError(f"{what} is true or false, got {_shown(value)}")
    return value


def number(low: float, high: float, kind: type = float) -> Field:
    """Make a field that is a number in a range.

    Args:
        low: least value.
        high: largest value.
        kind: ``int`` or ``float``.
    """

    def read(value: Any, what: str) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        if not is_number or (kind is int and value != int(value)):
            whole = "a whole number" if kind is int else "a number"
            raise RequestError(f"{what} is {whole} from {low} to {high}, got {_shown(value)}")
        return kind(value)

    return read


def choice(*options: str) -> Field:
    """Make a field that is one of some texts; a list stands for its first."""

    def read(value: Any, what: str) -> str:
        value = value[0] if isinstance(value, list) and value else value
        if not isinstance(value, str) or value not in options:
            raise RequestError(f"there is no {what} {_shown(value)}: choose {', '.join(options)}")
        return str(value)

    return read


def device(value: Any, what: str) -> str:
    """Return a device that is there, by the name that the server's info has for it, or torch's.

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    known = {"cpu": "cpu", **device_map(), **{torch_name: torch_name for torch_name in device_map().values()}}
    if value in ("", "cuda", None) and "cuda" not in known:  # what clients send that do not care
        return next(iter(device_map().values()))
    return known[choice(*known)(value, what)]


def position(value: Any, what: str) -> float | None:
    """Return a number, or nothing for what is none: a hand that slips is no error.

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    try:
        read = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def positions(value: Any, what: str) -> list[float | None]:
    """Return a list of numbers; what is no list is empty.

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    return [position(each, what) for each in value[:6]] if isinstance(value, list) else []


def clicks(value: Any, what: str) -> list[list[float | None]]:
    """Return clicks: a list of indices [i, j, k].

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{what} is a list of indices [i, j, k], got {_shown(value)}")
    return [positions(each, what) for each in value]


def plain(value: Any, what: str) -> Any:
    """Return JSON that only DICOM writers read: lists and objects of short texts, numbers, true and false.

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    if isinstance(value, list):
        return [plain(each, what) for each in value]
    if isinstance(value, dict):
        return {text(key, what): plain(each, what) for key, each in value.items()}
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return text(value, what)


def weights(value: Any, what: str) -> str:
    """Return the name of weights that there are.

    Args:
        value: of a request.
        what: the field's name, for errors.
    """
    value = name(value[0] if isinstance(value, list) and value else value, what)
    find_weights(value)
    return str(value)


INFER: dict[str, Field] = {
    "foreground": clicks,
    "background": clicks,
    "roi": positions,
    "slice": position,
    "spread": choice(CLICKED, WHOLE),
    "label": text,
    "device": device,
    "model_filename": weights,
    "result_extension": choice(*WRITTEN),
    "result_dtype": choice(*DTYPES),
    "result_compress": flag,
    "restore_label_idx": flag,
    "save_label": flag,
    "label_tag": name,
    "label_info": plain,
    "client_id": text,
}
TRAIN: dict[str, Field] = {
    "max_epochs": number(1, 10_000, int),
    "val_split": number(-1, 0.9),
    "device": device,
    "model_filename": weights,
    "client_id": text,
}
SAMPLE: dict[str, Field] = {
    "client_id": text,
    "label_tag": name,
    "labels": lambda value, what: [text(each, what) for each in value] if isinstance(value, list) else [],
}


def read_fields(params: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Read the parameters that a kind of request has; others, and those that are null, are left out.

    Args:
        params: of a request.
        fields: how each known field is read.

    Raises:
        RequestError: when one is not of its type.
    """
    if not isinstance(params, Mapping):
        raise RequestError(f"parameters are an object, got {_shown(params)}")
    return {key: read(params[key], key) for key, read in fields.items() if params.get(key) is not None}


def _shown(value: Any) -> str:
    """Show a value in a sentence, cut short; a number of a thousand digits cannot be written out."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):
        shown = f"a {type(value).__name__}"
    return shown if len(shown) <= 80 else shown[:77] + "..."
