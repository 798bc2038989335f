# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says of its network, and the network that is built from it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..class_layout import ClassLayout
from ..errors import InputError
from .adapters import adapter_settings, add_adapters, read_adapter_settings
from .efficient_sam import BACKBONES, EfficientSAM
from .weights import POSITIONS, read_checkpoint

logger = logging.getLogger(__name__)

OF_DATA = ("classes", "intensity_range")  # another data set may have others


SAMPLE = "built-in sample"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are_ids(value: Any) -> bool:
    """Tell classes: names that are no code, with label ids."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and isinstance(ids, (list, tuple))
        and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
        for name, ids in value.items()
    )


# what each setting may be: a checkpoint comes from anywhere
TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "backbone": (lambda value: isinstance(value, str) and value in BACKBONES, f"one of {', '.join(BACKBONES)}"),
    "image_size": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 8192,
        "a whole number of pixels from 1 to 8192",
    ),
    "align_points": (_is_flag, "true or false"),
    "adapters": (
        lambda value: (
            value is None
            or (
                isinstance(value, Mapping)
                and all(
                    _is_number(each) or _is_flag(each) or (key == "kind" and isinstance(each, str))
                    for key, each in value.items()
                )
            )
        ),
        "a kind and its numbers, or nothing",
    ),
    "class_masks": (_is_flag, "true or false"),
    "mask_feedback": (_is_flag, "true or false"),
    "classes": (lambda value: value is None or _are_ids(value), "label ids by name, or nothing"),
    "intensity_range": (
        lambda value: (
            value is None or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)))
        ),
        "two numbers, or nothing",
    ),
    "trained_on": (lambda value: value is None or isinstance(value, str), "a text, or nothing"),
}


@dataclass
class Settings:
    """Settings of a network and of what it was trained on, saved with its weights and from which it is built again.

    Args:
        backbone: and
        image_size: as of :class:`EfficientSAM`, and so
        align_points.
        adapters: their kind and its numbers, or nothing.
        class_masks: whether each class is answered by a mask of its own.
        mask_feedback: whether the network is shown its last mask with the clicks that correct it.
        classes: label ids of each class by name; nothing makes each id an object.
        intensity_range: (low, high) that become black and white; nothing takes percentiles.
        trained_on: name of the data set, :data:`SAMPLE` for the bundle's own.

    Raises:
        InputError: when one is not of its type, or there are no such adapters.
    """

    backbone: str = "vitt"
    image_size: int = 256
    align_points: bool = True
    adapters: dict[str, Any] | None = None
    class_masks: bool = False
    mask_feedback: bool = True
    classes: dict[str, list[int]] | None = None
    intensity_range: list[float] | None = None
    trained_on: str | None = None

    def __post_init__(self) -> None:
        for name, (is_right, what) in TYPES.items():
            value = getattr(self, name)
            if not is_right(value):
                raise InputError(f"{name} is {what}, got {value!r:.80}")
        if self.adapters is not None:
            self.adapters = adapter_settings(**self.adapters)

    def state_dict(self) -> dict[str, Any]:
        """Give the settings as a checkpoint holds them."""
        return asdict(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Accept a checkpoint of the same settings.

        Raises:
            InputError: when it is of another network; both values are named.
        """
        for name, value in state_dict.items():
            if name == "trained_on":  # a folder may move
                continue
            if value != getattr(self, name):
                raise InputError(f"it has {name} {value}, but now it is {getattr(self, name)}: give the same again")

    @property
    def layout(self) -> ClassLayout | None:
        """Return the layout of the classes that one prompt asks for, or nothing where it asks for one object."""
        return ClassLayout(self.classes or {}) if self.class_masks else None


def build_network(settings: Settings | Mapping[str, Any]) -> EfficientSAM:
    """Build the network that settings describe, with random weights and adapters that change nothing yet."""
    if isinstance(settings, Mapping):
        settings = Settings(**settings)
    network = EfficientSAM(settings.backbone, settings.image_size, settings.align_points)
    return network if settings.adapters is None else add_adapters(network, **settings.adapters)


def read_settings(path: str | Path, **given: Any) -> Settings:
    """Read the settings of a checkpoint.

    Files without settings (upstream's, Medical-SAM-Adapter's, older ones of this bundle) tell their backbone and their
    adapters by their tensors; the rest is as given, or as usual.

    Args:
        path: of the checkpoint, or ``"none"``.
        given: settings that a user asks for; nothing asks for the file's.

    Raises:
        InputError: when the file is missing or unreadable, or is of a network with other settings than those given.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if str(path) == "none":
        return Settings(**asked)
    checkpoint = read_checkpoint(Path(path))
    known = checkpoint.settings
    if known is None:
        width = checkpoint.state[POSITIONS].shape[-1] if POSITIONS in checkpoint.state else None
        known = {"adapters": read_adapter_settings(checkpoint.state)}
        for backbone, numbers in BACKBONES.items():
            if numbers["dim"] == width:
                known["backbone"] = backbone
        if checkpoint.image_size is not None:
            known["image_size"] = checkpoint.image_size
    if not isinstance(known, Mapping) or not all(isinstance(name, str) for name in known):
        raise InputError(f"{path} holds settings that are not by name: give a checkpoint of this bundle")
    unknown = [name for name in known if name not in TYPES]
    if unknown:
        raise InputError(f"{path} holds settings that this version has not ({', '.join(unknown)!r:.80}): upgrade it")
    for name, value in asked.items():
        held = known.get(name)
        if name == "adapters" and held is not None:
            value = {**held, **value}
        if name not in known or value == held:
            continue
        if name not in OF_DATA:
            raise InputError(
                f"{path} is of a network with {name} {held}, but {name} {value} is asked for: leave the option out, or "
                "give other weights"
            )
        if held is not None:
            logger.warning(f"{path} was trained with {name} {held}, and is used with {value}")
    try:
        return Settings(**{**known, **{name: value for name, value in asked.items() if name != "adapters"}})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
