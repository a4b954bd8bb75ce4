"""The house: folders are floors, nothing is imported upwards or in a circle, and no room is too large to take in."""

import ast
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("base", "data", "nets", "core", "interop", "evaluation", "training", "models", "cli")  # from the ground up
# the extra `hub`, and what a notebook has: asked for within functions
OPTIONAL = {"datasets", "huggingface_hub", "pyarrow", "IPython"}
PACKAGES = {"PIL": "pillow", "tensorflow_datasets": "tensorflow-datasets", "orbax": "orbax-checkpoint"}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "jaxdiff").rglob("*.py"))
}
EACH = pytest.mark.parametrize("module", FILES)


def imported(module):
    """The modules that a file imports, anywhere in it, by full names."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else node.module for name in inner)


def floor(module):
    return FLOORS.index(module.split(".")[1])


@EACH
def test_nothing_is_imported_upwards(module):
    if module == "jaxdiff":  # the roof: what it offers is imported on demand
        return
    for name in imported(module):
        if name.startswith("jaxdiff."):
            assert floor(name) <= floor(module), f"{module} must not import {name}"


def test_nothing_is_imported_in_a_circle():
    done = set()

    def visit(module, above):
        assert module not in above, f"a circle: {' -> '.join([*above[above.index(module) :], module])}"
        if module not in done:
            for name in imported(module):
                if name in FILES and name != "jaxdiff":
                    visit(name, [*above, module])
            done.add(module)

    for module in FILES:
        visit(module, [])


@EACH
def test_each_floor_knows_only_its_own_subject(module):
    allowed = {"jaxdiff.nets": ("nets", "base.checks"), "jaxdiff.training": ("training", "base", "core.rng")}
    folder = ".".join(module.split(".")[:2])
    for name in imported(module):
        if folder in allowed and name.startswith("jaxdiff."):
            assert name.removeprefix("jaxdiff.").startswith(allowed[folder]), f"{module} imports {name}"


@EACH
def test_imports_are_required(module):
    text = (ROOT / "requirements.txt").read_text()
    required = {re.split(r"[<>=~! ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
    for name in imported(module):
        package = PACKAGES.get(top := name.split(".")[0], top)
        assert package in required | OPTIONAL | {"jaxdiff"} | sys.stdlib_module_names, f"{module} imports {package}"


def functions(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    return {n.name: n.end_lineno - n.lineno + 1 for n in nodes if isinstance(n, ast.FunctionDef)}


@EACH
def test_files_and_functions_are_short(module):
    assert len(FILES[module].read_text().splitlines()) <= 400
    assert max(functions(FILES[module]).values(), default=0) <= 40


@EACH
def test_files_say_what_they_are_for(module):
    assert ast.get_docstring(ast.parse(FILES[module].read_text()))


def test_half_of_the_functions_have_at_most_ten_lines():
    assert statistics.median(n for path in FILES.values() for n in functions(path).values()) <= 10


@pytest.mark.parametrize(
    "command",
    [
        *(("-c", "import jaxdiff"), ("train.py", "--help"), ("sample.py", "--help"), ("evaluate.py", "--help")),
        ("-c", "from jaxdiff.cli.main import main; main()"),  # what `jaxdiff` does
    ],
    ids=str,
)
def test_the_doors_open_at_once(command):
    """Well below half a second, since nothing heavy is imported; several tests may run at once, so with a margin."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
    assert time.perf_counter() - begin < 5
    loud = [sys.executable, "-X", "importtime", *command]
    imports = subprocess.run(loud, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    assert not any(f" {name}\n" in imports for name in ("jax", "numpy", "flax", "matplotlib", "PIL"))


def test_the_docs_show_the_same_house():
    picture = re.search(r"```\n(jaxdiff/\n.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    shown = re.findall(r"^  (\w+)/", picture[1], re.MULTILINE)
    assert tuple(reversed(shown)) == FLOORS
    assert {path.name for path in (ROOT / "jaxdiff").iterdir() if path.is_dir() and path.name[0] != "_"} == set(FLOORS)
