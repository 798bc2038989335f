# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says of its network, and what a user asks for beside it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .adapters import KIND, read_adapter_settings
from .checkpoint_file import Checkpoint
from .registry import full_name, recognise
from .settings import OF_DATA, OF_USE, TYPES, Settings, upgrade_settings

logger = logging.getLogger(__name__)

NONE = "none"  # asks for nothing, where nothing asks for the usual


def known_settings(checkpoint: Checkpoint, path: str | Path, model: str | None = None) -> dict[str, Any]:
    """Return what a checkpoint says of its network.

    Files without settings (upstream's, Medical-SAM-Adapter's, older ones of this bundle) tell their network and their
    adapters by their tensors, and no more.

    Args:
        checkpoint: of a file.
        path: of it, for errors, and by whose name networks of the same tensors are told apart.
        model: that is asked for, which does so too.

    Returns:
        Settings by name, those that are known.

    Raises:
        InputError: when they are not of this version, or of another type.
    """
    known = checkpoint.settings
    if known is None:
        known = {"adapters": read_adapter_settings(checkpoint.state)}
        model = recognise(checkpoint.state, Path(path).name, model)
        if model is not None:
            known["model"] = model
        if checkpoint.image_size is not None:
            known["image_size"] = checkpoint.image_size
    if not isinstance(known, Mapping) or not all(isinstance(name, str) for name in known):
        raise InputError(f"{path} holds settings that are not by name: give a checkpoint of this bundle")
    try:
        known = upgrade_settings(known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    unknown = [name for name in known if name not in TYPES]
    if unknown:
        raise InputError(f"{path} holds settings that this version has not ({', '.join(unknown)!r:.80}): upgrade it")
    try:
        Settings(**known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return dict(known)


def choose_settings(checkpoint: Checkpoint, path: str | Path, asked: Mapping[str, Any]) -> Settings:
    """Choose the settings of a network that answers: the file's, and what is asked for where the file says nothing.

    Args:
        checkpoint: of a file.
        path: of it, for errors.
        asked: settings that a user asks for; nothing takes the file's.

    Raises:
        InputError: when the file is of a network with other settings than those asked for.
    """
    given = asked_for(asked)
    known = known_settings(checkpoint, path, given.get("model"))
    file, chosen = Settings(**known), Settings(**merged(known, given))
    for name in given.keys() & known.keys():
        held, value = getattr(file, name), getattr(chosen, name)
        if value == held or name in OF_USE:
            continue
        if name not in OF_DATA:
            raise InputError(
                f"{path} is of a network with {name} {held}, but {name} {value} is asked for: leave the option out, or "
                "give other weights"
            )
        if held is not None:
            logger.warning(f"{path} was trained with {name} {held}, and is used with {value}")
    return chosen


def asked_for(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Take what is asked for: nothing is left out, and ``"none"`` is nothing."""
    given = {name: None if value == NONE else value for name, value in asked.items() if value is not None}
    return {name: full_name(value) if name == "model" else value for name, value in given.items()}


def merged(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put given settings over known ones, and of those that have parts, such as adapters, the given parts.

    Args:
        known: settings by name.
        given: those that go over them.
    """
    settings = dict(known)
    for name, value in given.items():
        if name == "adapters" and isinstance(value, (list, tuple)):
            kinds = {each.get("kind", KIND): each for each in known.get(name) or ()}
            value = [
                _over(kinds.get(each.get("kind", KIND)), each) if isinstance(each, Mapping) else each for each in value
            ]
        elif name == "crop" and isinstance(value, Mapping):
            value = _over(known.get(name), value)
        settings[name] = value
    return settings


def _over(known: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Put the given parts over known ones."""
    return {**(known or {}), **{name: part for name, part in given.items() if part is not None}}
