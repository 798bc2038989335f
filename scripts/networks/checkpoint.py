# SPDX-License-Identifier: Apache-2.0
"""The one door for checkpoints: from a file to the network that it describes, strictly, and saying what was done."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .adapters import adapter_group, add_adapters, load_adapter
from .added_parts import added_parts
from .checkpoint_file import Checkpoint, read_checkpoint
from .checkpoint_settings import NONE, asked_for, choose_settings, known_settings, merged
from .efficient_sam import EfficientSAM
from .registry import DEFAULT, MODELS, PADDED, STRETCHED, full_name, recognise
from .settings import NOTED, Settings

logger = logging.getLogger(__name__)

BASES = Path(__file__).parents[2] / "models"  # of the bundle, where bases lie


def find_weights(
    folder: str | Path,
    model: str | None = None,
    names: tuple[str, ...] | list[str] = (),
    adapter: str | Path | None = None,
) -> str:
    """Pick the best weights present: the given names first, then upstream's, then the ones shipped with the bundle.

    With an adapter they are its base, which it names.

    Args:
        folder: where weights lie.
        model: name of the network, or its short name; nothing is EfficientSAM-Ti.
        names: file names to prefer, best first.
        adapter: a file of adapter weights, or ``"none"`` for a base without, where ``names`` do not count.

    Returns:
        The path of the first that exists.

    Raises:
        InputError: when none does, or there is no such network.
    """
    if adapter not in (None, NONE):
        return str(find_base(read_checkpoint(Path(str(adapter))), Path(str(adapter))))
    model = full_name(model or DEFAULT)
    for name in (*(names if adapter is None else ()), *MODELS[model].weights):
        path = Path(folder) / name
        if path.is_file():
            return str(path)
    raise InputError(
        f"there are no weights of {model} in {folder}: give a checkpoint, fetch upstream's by python -m "
        "monai.bundle download_large_files --bundle_path . or, to train from nothing, --pretrained none"
    )


def load(path: str | Path, adapter: str | Path | None = None, **asked: Any) -> EfficientSAM:
    """Build the network that a checkpoint describes, and load it.

    Args:
        path: of the checkpoint.
        adapter: a file of adapter weights that are put on those of ``path``; ``"none"`` and nothing put none.
        asked: settings that a user asks for; nothing takes the file's.

    Returns:
        The network, with its :class:`Settings` as ``settings``.

    Raises:
        InputError: when the file cannot be loaded, or is of a network with other settings than those asked for.
    """
    if adapter not in (None, NONE):
        checkpoint, base, path = read_checkpoint(Path(str(adapter))), _given(path), str(adapter)
        check_adapter(checkpoint, path)
        return load_checkpoint(build_network(choose_settings(checkpoint, path, asked)), checkpoint, Path(path), base)
    checkpoint = read_checkpoint(_given(path))
    network = build_network(choose_settings(checkpoint, path, asked))
    return load_checkpoint(network, checkpoint, Path(path))


def check_adapter(checkpoint: Checkpoint, path: str | Path) -> None:
    """Refuse whole weights where what was trained on a base is wanted.

    Args:
        checkpoint: of a file.
        path: of it, for errors.

    Raises:
        InputError: then.
    """
    if not checkpoint.is_adapter:
        raise InputError(f"{path} holds whole weights and no adapter: give it as ckpt_path")


def find_base(checkpoint: Checkpoint, path: Path) -> Path:
    """Find the base of an adapter: beside it, or among the bundle's.

    Args:
        checkpoint: of the adapter's file.
        path: of it.

    Raises:
        InputError: when the file holds no adapter.
    """
    check_adapter(checkpoint, path)
    name = Path(str(checkpoint.whole["base"]["name"])).name
    return next((p for p in (path.parent / name, BASES / name) if p.is_file()), path.parent / name)


def load_to_train(path: str | Path, **asked: Any) -> EfficientSAM:
    """Build the network that training goes on with, and load it.

    It has the settings of the checkpoint, unless others are asked for, and adapters that are asked for are added.
    Each difference is logged.

    Args:
        path: of the checkpoint, or ``"none"``, which keeps random numbers.
        asked: settings; nothing takes the file's, else the usual ones, and ``"none"`` takes nothing.

    Returns:
        The network, with its :class:`Settings` as ``settings``.

    Raises:
        InputError: when the file cannot be loaded, or cannot be what is asked for.
    """
    given = asked_for(asked)
    if str(path) == NONE:
        logger.warning("no pretrained weights: the network starts from random numbers")
        return build_network(Settings(**merged({"geometry": STRETCHED}, given)))
    checkpoint = read_checkpoint(Path(path))
    held = known_settings(checkpoint, path, given.get("model"))
    given.setdefault("geometry", STRETCHED)  # as training's transforms bring images to the square
    settings = Settings(**merged(held, given))
    before, usual = Settings(**held), Settings()
    if settings.geometry != before.geometry:
        logger.info(f"geometry is {settings.geometry} from now on, as of all training: {path} has {before.geometry}")
    for name in [each for each in held if each not in NOTED]:
        value, was = getattr(settings, name), getattr(before, name)
        if value != was and was is not None:
            logger.info(f"{name} is {value} from now on: {path} was trained with {was}")
        elif value == was and value != getattr(usual, name):
            logger.info(f"{name} is {value}, as of {path}")
    return load_checkpoint(build_network(settings), checkpoint, Path(path))


def build_network(settings: Settings | Mapping[str, Any]) -> EfficientSAM:
    """Build the network that settings describe, with random weights and adapters that change nothing yet."""
    if isinstance(settings, Mapping):
        settings = Settings(**settings)
    network = MODELS[settings.model].build(settings.image_size, settings.align_points)
    if PADDED in MODELS[settings.model].geometries:
        network.is_padded = settings.geometry == PADDED
    if settings.adapters is not None:
        add_adapters(network, settings.adapters)
    network.settings = settings
    return network


def read_settings(path: str | Path, **asked: Any) -> Settings:
    """Read the settings of a checkpoint alone; see :func:`load`."""
    return choose_settings(read_checkpoint(_given(path)), path, asked)


def _given(path: str | Path) -> Path:
    """Refuse to answer without weights, which only training can begin from."""
    if str(path) == NONE:
        raise InputError("without weights the network would answer by random numbers: give a checkpoint")
    return Path(path)


def load_weights(network: EfficientSAM, path: str | Path) -> EfficientSAM:
    """Load a checkpoint strictly, and log what was loaded.

    Args:
        network: an :class:`EfficientSAM`, with or without adapters; changed in place.
        path: an upstream checkpoint (``.pt``, or zipped as upstream ships S), one of this bundle (an adapter's finds
            its base beside it or among the bundle's), or one of Medical-SAM-Adapter.

    Returns:
        The same network.

    Raises:
        InputError: when the file is missing, unreadable, of another backbone or model, holds what is no number, or does
            not fit exactly. Only what upstream has not may be missing, a whole part at a time: it starts at zero, which
            changes nothing.
    """
    return load_checkpoint(network, read_checkpoint(_given(path)), Path(path))


def load_checkpoint(
    network: EfficientSAM, checkpoint: Checkpoint, path: Path, base: Path | None = None
) -> EfficientSAM:
    """Load what was read of a file; see :func:`load_weights`.

    Args:
        network: as the checkpoint's settings build it; changed in place.
        checkpoint: what was read.
        path: of the file, for errors and to find a base beside it.
        base: of an adapter; nothing takes the one that it names.
    """
    if checkpoint.is_adapter:
        base = base or find_base(checkpoint, path)
        below = read_checkpoint(base)
        if below.is_adapter:
            raise InputError(
                f"{path} names {base} as its base, which is an adapter too: give whole weights as ckpt_path"
            )
        check_same_model(network.state_dict(), path, below.state, base)
        logger.info(f"{path} is put on {base}")
        load_checkpoint(network, below, base)
        return load_adapter(network, checkpoint.state, checkpoint.whole["base"], path)

    state, notes, image_size = checkpoint.state, checkpoint.notes, checkpoint.image_size
    _check_model(network, state, path)
    if image_size not in (None, network.image_size):
        logger.warning(
            f"{path} was saved at image_size {image_size} and is used at {network.image_size}: expect other results, "
            f"or set image_size to {image_size}"
        )
    own = network.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    parts = added_parts(network)
    for group in map(adapter_group, unexpected):
        if group is not None and group not in [part.name for part in parts]:
            raise InputError(f"{path} holds {group} but the network has none: add them to it before loading")
    for part in parts:
        if not any(key in state for key in part.tensors):
            if not part.is_fresh:
                raise InputError(f"{path} has no {part.name} but the network's are trained: load it into a new network")
            notes.append(f"{len(part.tensors)} tensors of {part.name} are not in it and start at zero")
            missing = [k for k in missing if k not in part.tensors]
    if missing or unexpected:
        raise InputError(
            f"{path} does not fit the network: {_listing('missing', missing)}, {_listing('unexpected', unexpected)}; "
            "give a checkpoint of the same model and kind of fine-tuning"
        )
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise InputError(
                f"{path} does not fit the network: {key} is {tuple(value.shape)} in the file and "
                f"{tuple(own[key].shape)} in the network; give the same settings as it was trained with"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{path} is broken: {key} holds NaN or infinity; give the weights of an earlier epoch")
    network.load_state_dict({**own, **state}, strict=True)
    logger.info("; ".join([f"loaded {len(state)} tensors from {path}", *notes]))
    return network


def check_same_model(state: Mapping[str, Tensor], path: str | Path, below: Mapping[str, Tensor], base: object) -> None:
    """Refuse to put what was trained on one network onto another.

    Args:
        state: of the network that an adapter is of, by name.
        path: of the adapter, for errors.
        below: the tensors that it is put on.
        base: what they are called in errors.

    Raises:
        InputError: when the two differ in size.
    """
    own, seen = recognise(state), recognise(below)
    if own != seen:
        raise InputError(f"{path} was trained on {own}, and {base} is of {seen or 'no known network'}: give its base")


def _check_model(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights of another network by name, before shapes are compared one by one."""
    own, seen = recognise(network.state_dict()), recognise(state)
    if seen is None:
        raise InputError(f"{path} is of no network that is known: {', '.join(MODELS)}")
    if own is not None and seen != own:
        raise InputError(f"{path} holds {seen} but the network is {own}: set model to {seen}, or give weights of {own}")


def _listing(word: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
    return f"{len(keys)} tensors {word} ({shown})" if keys else f"none {word}"
