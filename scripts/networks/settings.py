# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says of its network and of what it was trained on."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..errors import InputError
from ..prompts.class_layout import ClassLayout
from ..prompts.crops import SmallObjectCropper
from .adapters import adapter_settings
from .registry import DEFAULT, MODELS, PADDED, STRETCHED, full_name

OF_DATA = ("classes", "intensity_range")  # another data set may have others
OF_USE = ("crop",)  # a user may choose another
NOTED = ("trained_on", "object_diameter")  # what a run says of itself, and nobody asks for
CROP: dict[str, Any] = {each.name: each.default for each in fields(SmallObjectCropper) if each.name != "image_size"}
SAMPLE = "built-in sample"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are_ids(value: Any) -> bool:
    """Return whether a value is classes: label ids by name."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and isinstance(ids, (list, tuple))
        and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
        for name, ids in value.items()
    )


# what each setting may be: a checkpoint comes from anywhere
TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (lambda value: isinstance(value, str) and value in MODELS, f"one of {', '.join(MODELS)}"),
    "image_size": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 8192,
        "a whole number of pixels from 1 to 8192",
    ),
    "geometry": (lambda value: value in (None, STRETCHED, PADDED), f"{STRETCHED} or {PADDED}"),
    "align_points": (_is_flag, "true or false"),
    "adapters": (
        lambda value: (
            value is None
            or (
                isinstance(value, (list, tuple))
                and all(isinstance(each, Mapping) and all(isinstance(name, str) for name in each) for each in value)
            )
        ),
        "a list, with a kind and its numbers each, or nothing",
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
    "crop": (
        lambda value: isinstance(value, Mapping) and set(value) <= set(CROP) and all(map(_is_number, value.values())),
        f"numbers by the names {', '.join(CROP)}",
    ),
    "object_diameter": (lambda value: value is None or (_is_number(value) and value >= 0), "a number, or nothing"),
    "trained_on": (lambda value: value is None or isinstance(value, str), "a text, or nothing"),
}


@dataclass
class Settings:
    """Settings of a network and of what it was trained on, saved with its weights and from which it is built again.

    Args:
        model: name of the network in :data:`scripts.networks.registry.MODELS`, or its short name.
        image_size: side of its own square grid in pixels.
        geometry: how an image comes onto the square: ``stretched``, or ``padded`` with its longer side filling it;
            nothing takes the network's own.
        align_points: whether prompts on small images lie where they were placed.
        adapters: a kind and its numbers each (see :func:`scripts.networks.add_adapters`), or nothing.
        class_masks: whether each class is answered by a mask of its own.
        mask_feedback: whether the network is shown its last mask with the clicks that correct it.
        classes: label ids of each class by name; nothing makes each id an object.
        intensity_range: (low, high) that become black and white; nothing takes percentiles.
        crop: which objects are seen on a crop, and on what crop: see
            :class:`scripts.prompts.crops.SmallObjectCropper`.
        object_diameter: of a disc as large as the mean object that it was trained on, in pixels of the images.
        trained_on: name of the data set, :data:`SAMPLE` for the bundle's own.

    Raises:
        InputError: when one is not of its type, or there are no such adapters.
    """

    model: str = DEFAULT
    image_size: int = 256
    geometry: str | None = None
    align_points: bool = True
    adapters: list[dict[str, Any]] | None = None
    class_masks: bool = False
    mask_feedback: bool = True
    classes: dict[str, list[int]] | None = None
    intensity_range: list[float] | None = None
    crop: dict[str, float] = field(default_factory=dict)
    object_diameter: float | None = None
    trained_on: str | None = None

    def __post_init__(self) -> None:
        self.model = full_name(self.model)
        for name, (is_right, what) in TYPES.items():
            value = getattr(self, name)
            if not is_right(value):
                raise InputError(f"{name} is {what}, got {value!r:.80}")
        own = MODELS[self.model].geometries
        self.geometry = self.geometry or own[0]
        if self.geometry not in own:
            raise InputError(f"geometry of {self.model} is {' or '.join(own)}, got {self.geometry}")
        if self.adapters is not None:
            self.adapters = [adapter_settings(**each) for each in self.adapters] or None
        self.crop = {**CROP, **self.crop}

    def state_dict(self) -> dict[str, Any]:
        """Return the settings as a checkpoint holds them."""
        return asdict(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Accept a checkpoint of the same settings.

        Raises:
            InputError: when it is of another network; both values are named.
        """
        for name, value in upgrade_settings(state_dict).items():
            if name not in NOTED and value != getattr(self, name):
                raise InputError(f"it has {name} {value}, but now it is {getattr(self, name)}: give the same again")

    @property
    def layout(self) -> ClassLayout | None:
        """Return the layout of the classes that one prompt asks for, or nothing where it asks for one object."""
        return ClassLayout(self.classes or {}) if self.class_masks else None

    @property
    def cropper(self) -> SmallObjectCropper:
        """Return the rule of which objects are seen on a crop."""
        return SmallObjectCropper(self.image_size, self.crop["below"], self.crop["context"], int(self.crop["min_side"]))

    def noting(self, object_diameter: float) -> "Settings":
        """Return the same settings with what a training found of its data."""
        return replace(self, object_diameter=object_diameter)


def upgrade_settings(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of any version under the names of this one.

    Up to 0.2, ``backbone`` named the network, and there was one kind of adapters, in the encoder and perhaps in the
    decoder.

    Args:
        known: settings by name.
    """
    new = dict(known)
    if "backbone" in new:
        new["model"] = full_name(new.pop("backbone"))
    if isinstance(new.get("adapters"), Mapping):
        one = dict(new["adapters"])
        targets = ["*"] if one.pop("decoder", False) else ["image_encoder.*"]
        new["adapters"] = [{"targets": targets, **one}]
    return new
