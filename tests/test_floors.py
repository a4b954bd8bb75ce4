"""Each file imports only from floors below its own, and only from what the requirements name."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("process", "rng", "parallel"),
    ("denoise", "grids"),
    ("samplers", "guidance", "losses", "exact"),
    ("sampling",),
)
MODULES = sorted(path for path in (ROOT / "jaxdiff").rglob("*.py") if path.name != "__init__.py")


def floor(module):
    return next(level for level, names in enumerate(FLOORS) if module in names)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "jaxdiff":
                yield from (f"jaxdiff.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_come_from_lower_floors(path):
    for name in imported(path):
        if name.startswith("jaxdiff."):
            assert floor(name.split(".")[1]) < floor(path.stem), f"{path.stem} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_are_required(path):
    text = (ROOT / "requirements.txt").read_text()
    required = {re.split(r"[<>=~! ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
    for name in imported(path):
        package = name.split(".")[0]
        assert package in required | {"jaxdiff"} | sys.stdlib_module_names, f"{path.stem} imports {package}"
