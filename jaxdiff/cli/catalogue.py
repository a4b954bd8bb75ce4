"""The samplers and grids there are, and their fields, read from the source: importing them would take seconds."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CORE = Path(__file__).parents[1] / "core"
SAMPLERS = tuple(CORE / "samplers" / f"{name}.py" for name in ("ancestral", "ode", "multistep", "sde", "jumps"))
GRIDS = (CORE / "grids.py",)


@dataclass(frozen=True)
class Entry:
    """One class, as --help shows it."""

    name: str
    fields: dict[str, str]  # and their defaults, as the source has them
    meanings: dict[str, str]  # the comments beside them
    about: str  # the first sentence of its docstring


@cache
def entries(files: tuple[Path, ...]) -> tuple[Entry, ...]:
    """The public dataclasses of some files, in order."""
    return tuple(entry for file in files for entry in _entries(file))


def _entries(file: Path) -> Iterator[Entry]:
    fields: dict[str, dict[str, tuple[str, str]]] = {}
    text = file.read_text(encoding="utf-8")
    lines = text.split("\n")
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef) or not node.decorator_list:
            continue
        known: dict[str, tuple[str, str]] = {}
        for base in node.bases:
            known |= fields.get(ast.unparse(base), {})
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and field.value:
                name, said = ast.unparse(field.target), lines[field.lineno - 1].partition("  # ")[2]
                known[name] = ast.unparse(field.value), said or known.get(name, ("", ""))[1]
        fields[node.name] = known
        if not node.name.startswith("_"):
            about = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            defaults, meanings = ({name: each[i] for name, each in known.items()} for i in (0, 1))
            yield Entry(node.name, defaults, meanings, about)


def flags(files: tuple[Path, ...], taken: frozenset[str]) -> dict[str, list[Entry]]:
    """The fields that can be given as --field, each with the classes that have it."""
    found: dict[str, list[Entry]] = {}
    for entry in entries(files):
        for name, default in entry.fields.items():
            if name not in taken and not default.endswith(")"):  # a sampler within a sampler has no flag
                found.setdefault(name, []).append(entry)
    return found


def owners(files: tuple[Path, ...], field: str) -> str:
    """The classes that have a field, in words."""
    return " or ".join(entry.name for entry in entries(files) if field in entry.fields)
