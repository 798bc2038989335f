# SPDX-License-Identifier: Apache-2.0
"""The networks that there are: how each is built, recognised by its tensors, and called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ..errors import InputError
from .efficient_sam import BACKBONES, EfficientSAM
from .sam import SAM
from .sam.sam import BACKBONES as SAM_BACKBONES

POSITIONS = "image_encoder.pos_embed"  # of EfficientSAM (1, tokens, width), of SAM (1, rows, columns, width)
STRETCHED, PADDED = "stretched", "padded"


@dataclass(frozen=True)
class Model:
    """A network by its name.

    Args:
        title: for readers.
        build: gives the network with random weights, for ``image_size`` and ``align_points``.
        recognise: tells whether tensors by name are of it.
        weights: file names of its weights in ``models``, best first.
        geometries: how an image may come onto its square, its own one first.
    """

    title: str
    build: Callable[..., Any]
    recognise: Callable[[Mapping[str, Tensor]], bool]
    weights: tuple[str, ...]
    geometries: tuple[str, ...] = (STRETCHED,)


def _has_width(width: int, state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have positions of an embedding width."""
    return POSITIONS in state and state[POSITIONS].shape[-1] == width


def _is_sam(state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors are of SAM's ViT-B, which alone has relative positions."""
    return _has_width(SAM_BACKBONES["vitb"]["dim"], state) and "image_encoder.blocks.0.attn.rel_pos_h" in state


MODELS: dict[str, Model] = {
    f"efficientsam_{backbone}": Model(
        title,
        partial(EfficientSAM, backbone),
        partial(_has_width, BACKBONES[backbone]["dim"]),
        (f"efficient_sam_{backbone}.pth", f"efficient_sam_{backbone}_base.pth"),
    )
    for backbone, title in (("vitt", "EfficientSAM-Ti"), ("vits", "EfficientSAM-S"))
}
MODELS["sam_vitb"] = Model("SAM ViT-B", partial(SAM, "vitb"), _is_sam, ("sam_vit_b_01ec64.pth",), (PADDED, STRETCHED))
MODELS["medsam_vitb"] = Model(  # of the same tensors
    "MedSAM ViT-B",
    partial(SAM, "vitb", is_padded=False, is_rescaled=True),
    _is_sam,
    ("medsam_vit_b.pth",),
    (STRETCHED, PADDED),
)
SHORT_NAMES = {backbone: f"efficientsam_{backbone}" for backbone in BACKBONES}
DEFAULT = "efficientsam_vitt"


def full_name(name: Any) -> str:
    """Return the name of a network, of that or of its short name.

    Args:
        name: such as ``"efficientsam_vitt"`` or ``"vitt"``.

    Raises:
        InputError: when there is no such network.
    """
    full = SHORT_NAMES.get(name, name) if isinstance(name, str) else name
    if not isinstance(full, str) or full not in MODELS:
        raise InputError(f"model is one of {', '.join([*MODELS, *SHORT_NAMES])}, got {name!r:.80}")
    return full


def recognise(state: Mapping[str, Tensor], file: str = "", asked: str | None = None) -> str | None:
    """Return the name of the network that tensors are of, or None for none that is known.

    Args:
        state: tensors by name.
        file: name of their file, which tells networks of the same tensors apart.
        asked: network that is asked for, which does so too.
    """
    names = [name for name, model in MODELS.items() if model.recognise(state)]
    if asked in names:
        return asked
    return next((name for name in names if file in MODELS[name].weights), next(iter(names), None))
