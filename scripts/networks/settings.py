# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says of its network, and the network that is built from it."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .adapters import adapter_settings, add_adapters, read_adapter_settings
from .efficient_sam import BACKBONES, EfficientSAM
from .weights import POSITIONS, read_checkpoint

logger = logging.getLogger(__name__)

OF_DATA = ("classes", "intensity_range")  # another data set may have others


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

    Raises:
        InputError: when there are no such adapters.
    """

    backbone: str = "vitt"
    image_size: int = 256
    align_points: bool = True
    adapters: dict[str, Any] | None = None
    class_masks: bool = False
    mask_feedback: bool = True
    classes: dict[str, list[int]] | None = None
    intensity_range: list[float] | None = None

    def __post_init__(self) -> None:
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
            if value != getattr(self, name):
                raise InputError(f"it has {name} {value}, but now it is {getattr(self, name)}: give the same again")

    @property
    def class_count(self) -> int | None:
        """Tell how many classes one prompt asks for, or nothing where it asks for one object."""
        return len(self.classes or {}) if self.class_masks else None


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
    return Settings(**{**known, **{name: value for name, value in asked.items() if name != "adapters"}})
