"""The reference, read from the source: docstrings, fields with the comments beside them, and options of the commands.

Nothing heavy is imported. `Reference` makes the pages; what is public and has no docstring, and a field of a config
that nothing is said of, stands in `missing`.
"""

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDERS = ("core", "nets", "data", "training", "models", "evaluation", "interop")
SETTINGS = {  # what a config holds: each field of these has a meaning
    "The config": ("models.config.Config",),
    "What is trained": (
        "models.diffusion.Diffusion",
        "models.autoencoding.Autoencoding",
        "models.classification.Classification",
    ),
    "How it is trained": (
        "training.state.Training",
        "training.optimisers.Adam",
        "training.optimisers.Muon",
        "training.optimisers.Schedule",
        "training.averages.Ema",
        "training.averages.PowerEma",
    ),
    "Data": (
        "data.tfds.Tfds",
        "data.hub.Hub",
        "data.folder.Folder",
        "data.arrays.Arrays",
        "data.digits.Digits",
        "data.augment.Augment",
    ),
    "Conditions": ("models.conditions.Labels", "models.conditions.Prompts"),
}
CHANGE = "may be another when a run is resumed"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Field:
    """One of a dataclass: its type and its default as the source has them, and what the comment beside it says."""

    name: str
    type: str
    default: str
    meaning: str
    may_change: bool


@dataclass(frozen=True)
class Module:
    """A file of the package, parsed."""

    name: str  # core.process
    tree: ast.Module
    comments: dict[int, str]

    @property
    def public(self) -> list[ast.ClassDef | ast.FunctionDef]:
        kinds = (ast.ClassDef, ast.FunctionDef)
        return [node for node in self.tree.body if isinstance(node, kinds) and not node.name.startswith("_")]

    def fields(self, node: ast.ClassDef) -> list[Field]:
        """Those that its __init__ takes."""
        if not node.decorator_list and not any(ast.unparse(base) in ("nn.Module", "Net") for base in node.bases):
            return []
        return [self._field(each) for each in node.body if isinstance(each, ast.AnnAssign) and _is_own(each)]

    def _field(self, node: ast.AnnAssign) -> Field:
        comments = (self.comments.get(line, "") for line in range(node.lineno, (node.end_lineno or node.lineno) + 1))
        said = " ".join(comment for comment in comments if comment and not comment.startswith("type:"))
        default, changes = _default(node.value)
        return Field(ast.unparse(node.target), ast.unparse(node.annotation), default, said, changes)


def _is_own(node: ast.AnnAssign) -> bool:
    name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
    return not name.startswith("_") and not kind.startswith("ClassVar")


def _default(value: ast.expr | None) -> tuple[str, bool]:
    """As the source has it, and whether a run can be resumed with another."""
    called = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
    if isinstance(value, ast.Call) and called in ("may_change", "struct.field", "field"):
        named = [each.value for each in value.keywords if each.arg == "default"]
        given = [*value.args, *named]
        return (ast.unparse(given[0]) if given else ""), called == "may_change"
    return ("" if value is None else ast.unparse(value)), False


@cache
def module(path: Path, name: str) -> Module:
    """One file."""
    text = path.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    return Module(name, ast.parse(text), comments)


def escaped(text: str) -> str:
    """Plain text as Markdown; what is in backticks, and indented code, stays as it is."""
    return "\n".join(line if line.startswith("    ") else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    parts = line.split("`")
    parts[::2] = [re.sub(r"([*_\[\]|\\])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def cell(text: str) -> str:
    """Within a table: one line."""
    return escaped(" ".join(text.split()))


def code(text: str) -> str:
    """In backticks."""
    return f"`{text}`" if text else ""


def name(text: str) -> str:
    """In backticks, and not to be broken."""
    return f"`{text}`{{ .name }}"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table, without columns in which nothing stands."""
    columns = [each for each in zip(head, *rows, strict=True) if any(each[1:])]
    first, *others = zip(*columns, strict=True)
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, ["---"] * len(columns), *others))


def signature(node: ast.ClassDef | Function) -> str:
    """As it is written, without `self` and what a type checker alone reads."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    text = ast.unparse(node.args)
    text = re.sub(r"^(self|cls)(, )?", "", text)
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({text}){returned}"
    if len(line) <= 90:
        return line
    parts = re.split(r", (?![^\[(]*[\])])", text)
    return f"{node.name}(\n    " + ",\n    ".join(parts) + f",\n){returned}"


@dataclass
class Reference:
    """The pages of one checkout, by their addresses."""

    root: Path
    missing: list[str] = field(default_factory=list)

    def pages(self) -> dict[str, str]:
        """Address below reference/ -> Markdown."""
        made = {f"{folder}.md": self.folder(folder) for folder in FOLDERS}
        return made | {"config.md": self.settings(), "configs.md": self.configs(), "commands.md": self.commands()}

    # --- the package ------------------------------------------------------------------------------------------------

    def modules(self, folder: str) -> list[Module]:
        """Of a folder, in the order in which its first lines name them."""
        package = self.root / "jaxdiff"
        about = ast.get_docstring(ast.parse((package / folder / "__init__.py").read_text())) or ""
        found = []
        for path in sorted((package / folder).rglob("*.py")):
            name = ".".join(path.relative_to(package).with_suffix("").parts)
            if path.name != "__init__.py":
                found.append(module(path, name))
        place = {name: i for i, name in enumerate(re.findall(r"`(\w+)`", about))}
        return sorted(found, key=lambda each: place.get(each.name.split(".")[1], len(place)))

    def folder(self, folder: str) -> str:
        """The page of a folder: each module, and its public names."""
        init = ast.parse((self.root / "jaxdiff" / folder / "__init__.py").read_text())
        parts = [f"# jaxdiff.{folder}", escaped(self._said(init, folder))]
        for each in self.modules(folder):
            names = [self.name(each, node) for node in each.public]
            if names:
                parts += [f"## {each.name} {{ #{each.name} }}", escaped(self._said(each.tree, each.name)), *names]
        return "\n\n".join(parts) + "\n"

    def name(self, owner: Module, node: ast.ClassDef | ast.FunctionDef, level: str = "###") -> str:
        """One class or function."""
        place = f"{owner.name}.{node.name}"
        parts = [f"{level} {node.name} {{ #{place} }}", f"```python\n{signature(node)}\n```"]
        parts.append(escaped(self._said(node, place)))
        if isinstance(node, ast.ClassDef):
            parts += [self._fields(owner, node), self._methods(node)]
        return "\n\n".join(part for part in parts if part)

    def _said(self, node: ast.Module | ast.ClassDef | ast.FunctionDef, place: str) -> str:
        said = ast.get_docstring(node)
        if not said:
            self.missing.append(f"jaxdiff.{place} has no docstring")
        return said or ""

    def _fields(self, owner: Module, node: ast.ClassDef) -> str:
        rows = []
        for each in owner.fields(node):
            meaning = cell(each.meaning) + (f" ({CHANGE})" * each.may_change)
            rows.append((name(each.name), code(each.type), code(each.default), meaning.strip()))
        return table(("field", "type", "default", "meaning"), rows) if rows else ""

    def _methods(self, node: ast.ClassDef) -> str:
        lines = []
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and not each.name.startswith("_") and ast.get_docstring(each):
                read = any(ast.unparse(mark).endswith("property") for mark in each.decorator_list)
                first = (ast.get_docstring(each) or "").split("\n\n")[0]
                called = each.name if read else " ".join(signature(each).replace("\n", " ").split())
                lines.append(f"- {code(called)}  \n  {cell(first)}")
        return "\n".join(lines)

    # --- configs and commands ---------------------------------------------------------------------------------------

    def settings(self) -> str:
        """The page of all that a config holds."""
        parts = ["# Every field of a config", SETTINGS_ABOUT]
        for title, names in SETTINGS.items():
            parts.append(f"## {title}")
            parts += [self._setting(name) for name in names]
        return "\n\n".join(parts) + "\n"

    def _setting(self, name: str) -> str:
        place, _, own = name.rpartition(".")
        owner = module(self.root / "jaxdiff" / f"{place.replace('.', '/')}.py", place)
        (node,) = (each for each in owner.public if each.name == own)
        said = ast.get_docstring(node) or ""
        assert isinstance(node, ast.ClassDef)
        for each in owner.fields(node):
            if not each.meaning and f"`{each.name}`" not in said:
                self.missing.append(f"jaxdiff.{name} says nothing of its field {each.name}")
        return "\n\n".join([f"### {own} {{ #{own} }}", escaped(said), self._fields(owner, node)])

    def configs(self) -> str:
        """The page of the configs that are shipped."""
        parts = ["# The configs that are shipped", CONFIGS_ABOUT]
        for path in sorted((self.root / "configs").glob("*.py")):
            said = ast.get_docstring(ast.parse(path.read_text()))
            if not said:
                self.missing.append(f"configs/{path.name} has no docstring")
            parts += [f"## {path.stem}", escaped(said or ""), f"[configs/{path.name}](../../configs/{path.name})"]
        return "\n\n".join(parts) + "\n"

    def commands(self) -> str:
        """The page of all options."""
        from jaxdiff.cli import evaluate_options, options, publish_options, train_options

        parts = ["# Every option of the commands"]
        for made in (train_options.parser(), options.parser(), evaluate_options.parser(), publish_options.parser()):
            parts += [f"## {made.prog}", f"```\n{(made.description or '').strip()}\n```"]
            for group in made._action_groups:
                shown = [action for action in group._group_actions if action.help and action.dest != "help"]
                if shown:
                    parts += [f"**{group.title}** {cell(group.description or '')}".strip(), _options(shown)]
        listed = options.listed()
        return "\n\n".join([*parts, "## Samplers and grids", f"```\n{listed.strip()}\n```"]) + "\n"


def _options(actions: list[argparse.Action]) -> str:
    rows = []
    for action in actions:
        metavar = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
        value = " ".join(metavar) if isinstance(metavar, tuple) else metavar
        flag = action.option_strings[0] if action.option_strings else ""
        rows.append((name(f"{flag} {value}".strip() or "field=value"), cell(str(action.help).replace("%%", "%"))))
    return table(("option", "meaning"), rows)


SETTINGS_ABOUT = """Each can be set on the command line by its path, such as `training.optimiser.rate=1e-3`. A value
can be of your own class too: [Your own classes](../extending.md). `python train.py --config NAME --dry_run` shows those
of a config."""
CONFIGS_ABOUT = """`python train.py --config NAME` trains one. Each is about twenty lines, and says what it costs and
gives."""
