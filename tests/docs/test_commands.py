# SPDX-License-Identifier: Apache-2.0
"""Each command of each page names what there is: its module, its configs, its run id and all of its options."""

import argparse
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"]
)
RUN = ("run", "monai.bundle")
OWN = {
    "config_file",
    "meta_file",
    "logging_file",
    "tracking",
    "bundle_path",
    "bundle_root",
    "large_file_name",
}  # MONAI's


def commands_of(text):
    """Give the commands of a page: lines of its blocks of code, and words in backquotes, that call Python's modules."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = re.sub(r"\s*\\\n\s*", " ", block).splitlines()
        for name, value in re.findall(r"^(\w+)=(.+)$", block, re.MULTILINE):
            lines = [line.replace(f'"${name}"', value).replace(f"${name}", value) for line in lines]
        found += [line for line in lines if re.match(r"\s*(\w+=\S+ )*(\S*/)?(python|torchrun)\b.* -m ", line)]
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return found + re.findall(r"`(python -m [^`]+)`", text.replace("\n", " "))


COMMANDS = [
    pytest.param(command.strip(), id=f"{page.stem}-{number}")
    for page in PAGES
    for number, command in enumerate(commands_of(page.read_text()))
]


def words_of(command):
    words = shlex.split(command, comments=True)
    return words[words.index("-m") + 1 :]


def options_of(words):
    return [word[2:].split("=")[0] for word in words if re.match(r"--[a-zA-Z]", word)]


def test_pages_have_commands():
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_what_there_is(command, monkeypatch):
    module, *words = words_of(command)
    if module == "monai.bundle" and words and words[0] == "run":
        check_bundle(words[1:])
    elif module.split(".")[0] in ("scripts", "tools", "apps"):
        check_module(module, words, monkeypatch)
    else:
        assert importlib.util.find_spec(module.split(".")[0]) is not None, f"there is no {module}"


def check_module(module, words, monkeypatch):
    """Check a command of a module of ours: it takes these arguments; what it then does is not done."""

    class TakenError(Exception):
        pass

    def parse(parser, argv=None):
        _, unknown = parser.parse_known_args(argv)
        assert not unknown, f"{module} does not take {unknown}"
        raise TakenError

    name = module if importlib.util.find_spec(module).submodule_search_locations is None else f"{module}.__main__"
    own = importlib.import_module(name)
    if not words:  # a sentence names it
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr("sys.argv", [name, *words])
    with pytest.raises((TakenError, SystemExit)) as ended:
        own.main()
    assert ended.type is TakenError or not ended.value.code, f"{module} does not take {words}"


def check_bundle(words):
    """Check a command of the bundle: its configs are there, and have its run id and options."""
    if "--config_file" not in words:
        return
    given = words[words.index("--config_file") + 1]
    files = re.findall(r"[\w/.-]+\.(?:yaml|json)", given)
    assert files and all((ROOT / file).is_file() for file in files), given
    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in files])
    if not words[0].startswith("-"):
        assert words[0] in parser.config, f"{files} have no {words[0]}"
    for option in options_of(words):
        key = option.split("#")[0]
        assert key in OWN or key in parser.config, f"{files} have no {option}"
