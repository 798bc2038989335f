# SPDX-License-Identifier: Apache-2.0
"""What the configs ask for before anything else: settings that exist, and errors that a user can read."""

import ast
import difflib
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigParser, run

from .errors import InputError

TRACKING_SETTINGS = {
    "tracking_uri",
    "experiment_name",
    "run_name",
    "save_execute_config",
}  # of monai.bundle run --tracking


USERS_PARTS = ("what you", "where things are", "as the weights")  # headings in the config files
METADATA = Path(__file__).parents[1] / "configs" / "metadata.json"

PATHS = {
    *("dataset_dir", "output_dir", "ckpt_dir", "cache_dir", "ckpt_path", "pretrained", "resume_path", "mask"),
    *("exported_dir", "bundle_root", "tensorboard_dir", "second_dir"),
}
DISTRIBUTED = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer")  # in what torch.distributed says

NUMBERS: dict[str, tuple[type, float, float]] = {  # kind, least and most of what a user may set
    **dict.fromkeys(("max_epochs", "batch_size", "accumulation_steps", "rounds"), (int, 1, math.inf)),
    **dict.fromkeys(
        ("gradient_rounds", "objects_per_image", "val_interval", "early_stop_patience"), (int, 1, math.inf)
    ),
    **dict.fromkeys(("num_workers", "seed"), (int, 0, 2**32 - 1)),
    **dict.fromkeys(("warmup_fraction", "box_jitter", "whole_prob", "crop_prob", "cache_rate"), (float, 0, 1)),
    **dict.fromkeys(("learning_rate", "weight_decay", "gradient_norm"), (float, 0, math.inf)),
}


def check_numbers(**settings: object) -> None:
    """Refuse numbers that cannot be meant.

    Args:
        settings: by name; those that :data:`NUMBERS` does not know are left alone.

    Raises:
        InputError: when one is no number, not whole where it counts, or out of its range.
    """
    for name, value in settings.items():
        if name not in NUMBERS:
            continue
        kind, low, high = NUMBERS[name]
        is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # type: ignore[operator]
            what = "a whole number" if kind is int else "a number"
            most = f"from {low} on" if high in (math.inf, 2**32 - 1) else f"from {low} to {high}"
            raise InputError(f"{name} is {what} {most}, got {value!r}")


def quote_paths(argv: Sequence[str]) -> list[str]:
    """Quote the paths of a command line that MONAI would read as something else.

    It turns ``#`` into ``::`` and a folder ``2020_01`` into a number. An expression that gives the text stays one.

    Args:
        argv: of ``python -m monai.bundle run``.

    Returns:
        The same, with those values as expressions.
    """
    quoted, name = [], ""
    for token in argv:
        before, value = "", token
        if token.startswith("--"):
            name, assigned, value = token[2:].partition("=")
            before = f"--{name}{assigned}"
        is_path = name.replace("-", "_") in PATHS and value and not value.startswith("$")
        quoted.append(before + f"${value!r}".replace("#", r"\x23") if is_path and _is_changed(value) else token)
        name = "" if not token.startswith("--") else name
    return quoted


def _is_changed(value: str) -> bool:
    """Return whether a text does not reach a config as it is."""
    read = _literal(value)
    return "#" in value or (isinstance(read, (int, float)) and str(read) != value)


def as_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that come from outside, as overrides of a config that takes them as they are.

    MONAI evaluates a text that begins with ``$``, and reads ``@``, ``%`` and ``#`` in texts. It reads nothing in a
    tuple, so that the values stand in one, and each setting is the expression that gives its own.

    Args:
        settings: values of any type by the id of a setting.
    """
    return {"given_values": tuple(settings.values()), **{n: f"$@given_values[{i}]" for i, n in enumerate(settings)}}


def show_errors() -> None:
    """Show input errors as one sentence from now on, and others as usual."""
    sys.excepthook = _show


def check_settings(argv: Sequence[str]) -> None:
    """Refuse settings that no config has.

    Args:
        argv: the command line of ``python -m monai.bundle run``; another command's is left alone.

    Raises:
        InputError: when an override is mistyped; MONAI would add it as a new setting that nothing reads.
    """
    given = _read_options(argv)
    if "run" not in argv:
        return
    if list(argv) == sys.argv and (quoted := quote_paths(sys.orig_argv)) != sys.orig_argv:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *quoted[1:]])  # the config has been read: begin again
    if "args_file" in given:
        given = {**ConfigParser.load_config_file(given["args_file"]), **given}
    if "config_file" not in given:
        return
    files = _literal(str(given["config_file"]))
    if "help" in given:
        print(describe_settings([files] if isinstance(files, str) else files))
        raise SystemExit(0)
    if "version" in given:
        print(json.loads(METADATA.read_text())["version"])
        raise SystemExit(0)
    processes = int(os.environ.get("WORLD_SIZE", 1))  # of torchrun
    if processes > 1 and "multi_gpu" not in str(files):
        raise InputError(
            f"{processes} processes would each do all the work: end config_file with one of configs/multi_gpu*.yaml"
        )
    parser = ConfigParser()
    parser.read_config(files)
    names = set(given) - set(inspect.signature(run).parameters)
    if "tracking" in given:
        names -= TRACKING_SETTINGS
    for name in sorted(names):
        _check_setting(name, parser)
        if str(given[name]).startswith("~") and name != "dataset_dir":  # which a shell leaves after an equals sign
            raise InputError(f'--{name} {given[name]}: write the folder out, as in "$HOME{given[name][1:]}"')
        if given[name] == "None":  # MONAI leaves it out, and the setting stays what it was
            raise InputError(f"--{name} None is not heard: write --{name} '$None'")
        if given[name] in ("true", "false"):  # a text, which counts as true either way
            raise InputError(f"--{name} {given[name]} is not Python: write {given[name].capitalize()}")
    numbers = {name: parser.config.get(name) for name in NUMBERS}
    numbers |= {name.rpartition("#")[2].rpartition("::")[2]: _literal(str(given[name])) for name in names}
    check_numbers(**{n: v for n, v in numbers.items() if v is not None and not str(v).startswith(("$", "@", "%"))})


def describe_settings(files: Sequence[str]) -> str:
    """Return what config files say of themselves and of the settings that a user may give, as it stands there."""
    parts = [part for file in files for part in Path(file).read_text(encoding="utf-8").split("\n# --- ")]
    told = [part.rstrip() for part in parts if part.startswith(("#", *USERS_PARTS))]
    return "\n\n".join(part if part.startswith("#") else f"# --- {part}" for part in told)


def _check_setting(name: str, parser: ConfigParser) -> None:
    """Refuse a setting that is not in the configs; a new key inside a component that is there is allowed."""
    key = name.lstrip("+").replace("#", "::")
    parent, _, _ = key.rpartition("::")
    if key in parser or (parent and parent in parser):
        return
    settings = [name for name, value in parser.config.items() if parent or _is_setting(value)]
    nearest = difflib.get_close_matches(parent or key, settings, n=1, cutoff=0.5)
    hint = f"did you mean --{nearest[0]}?" if nearest else "the settings are listed at the top of the config file"
    raise InputError(f"--{name} is not a setting: {hint}")


def _is_setting(value: object) -> bool:
    """Return whether a value is one that a user may write on the command line, and no part of the workflow."""
    if isinstance(value, dict):
        return "_target_" not in value and not any(isinstance(each, (dict, list)) for each in value.values())
    return not isinstance(value, list) or not any(isinstance(each, (dict, list)) for each in value)


def _read_options(argv: Sequence[str]) -> dict[str, str]:
    """Read ``--name value`` and ``--name=value`` of a command line."""
    options = {}
    for token, following in zip(argv, [*argv[1:], ""]):
        if token.startswith("--"):
            name, assigned, value = token[2:].partition("=")
            options[name.replace("-", "_")] = value if assigned else following  # Fire takes --max-epochs too
    return options


def _literal(text: str) -> str | list[str]:
    """Read a list of files as monai.bundle does, or one file."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print an input error, however deep the engine wrapped it, as one line; anything else as usual."""
    innermost = error
    while not isinstance(innermost, InputError) and (cause := innermost.__cause__ or innermost.__context__):
        innermost = cause
    if isinstance(innermost, InputError):
        print(f"error: {innermost}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("error: stopped by Ctrl-C; --resume_path last.pth goes on with a training", file=sys.stderr)
    elif idist.get_world_size() > 1 and isinstance(innermost, RuntimeError) and DISTRIBUTED.search(str(innermost)):
        said = str(innermost).splitlines()[0]
        print(f"error: another process is gone: {said}; --resume_path last.pth goes on with training", file=sys.stderr)
    elif isinstance(innermost, OSError) and innermost.strerror:  # no space, no permission, a name too long
        print(f"error: {innermost.strerror}: {innermost.filename or 'while writing'}", file=sys.stderr)
    elif "CUDA" in str(innermost) and isinstance(innermost, (AssertionError, RuntimeError)):
        print(f"error: {str(innermost).splitlines()[0]}: choose another --device, or a smaller batch", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
