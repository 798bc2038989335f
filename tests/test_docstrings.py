# SPDX-License-Identifier: Apache-2.0
"""Every public function of two or more arguments says what each is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for part in ("scripts", "apps", "tools") for path in (ROOT / part).rglob("*.py"))
SELF = {"self", "cls"}


def public_functions(tree):
    """Functions of a module and public methods of its public classes; what begins with an underscore is private."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    yield node.name, each, ast.get_docstring(node) or ""
                elif isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                    yield f"{node.name}.{each.name}", each, ast.get_docstring(each) or ""


def declared_by_a_base(name, classes):
    """Whether a base class of this project has the method, which is documented there."""
    owner, _, method = name.partition(".")
    bases = [ast.unparse(base).rpartition(".")[2] for base in classes[owner].bases] if method else []
    return any(
        method in [each.name for each in classes[base].body if isinstance(each, ast.FunctionDef)]
        or declared_by_a_base(f"{base}.{method}", classes)
        for base in bases
        if base in classes
    )


def undocumented(function, docstring):
    """The arguments of a function that have no line of their own under ``Args:``."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    names = [name for name in names if name not in SELF]
    _, _, section = docstring.partition("Args:\n")
    told = re.findall(r"^ {4}(\w+): \S", re.split(r"\n\n(?=\S)", section)[0], re.MULTILINE)
    return [name for name in names if name not in told] if len(names) > 1 else []


@pytest.fixture(scope="module")
def classes():
    trees = [ast.parse(path.read_text()) for path in MODULES]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arguments_are_documented(path, classes):
    found = {
        name: missing
        for name, function, docstring in public_functions(ast.parse(path.read_text()))
        if (missing := undocumented(function, docstring)) and not declared_by_a_base(name, classes)
    }
    assert not found
