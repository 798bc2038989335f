# SPDX-License-Identifier: Apache-2.0
"""The floors of docs/architecture.md: a file imports from its own room and from those on lower floors, in no circle."""

import ast
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
FLOORS = [
    {"errors"},
    {"prompts"},
    {"networks", "losses"},
    {"metrics", "io"},
    {"transforms"},
    {"data"},
    {"inferers", "reports"},
    {"handlers"},
    {"engines", "export"},
    {"cli", "compare"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted(path.stem for path in SCRIPTS.iterdir() if path.stem[0] != "_")


def imported_rooms(path):
    """The rooms of scripts that a file imports, at its top or in its functions."""
    package = path.relative_to(SCRIPTS.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            names = [*filter(None, base[1:]), *(alias.name for alias in node.names)]
            yield names[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_lower_floors_alone(room):
    paths = sorted((SCRIPTS / room).rglob("*.py")) or [SCRIPTS / f"{room}.py"]
    for path in paths:
        for other in imported_rooms(path):
            assert other == room or FLOOR_OF[other] < FLOOR_OF[room], f"{path} imports {other}"


def test_no_module_but_three_is_outside_of_a_room():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == {"__init__", "cli", "compare", "errors"}
