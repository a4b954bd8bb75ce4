"""The reference, read from the source: docstrings, fields with the comments beside them, and options of the commands.

Nothing heavy is imported. `Reference` makes the pages; what is public and has no docstring, and a field of
`core` or of a config that nothing is said of, stands in `missing`.
"""

import argparse
import ast
import io
import math
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True, eq=False)
class Module:
    """A file of the package, parsed."""

    root: Path
    name: str  # core.process
    tree: ast.Module
    comments: dict[int, str]

    @property
    def public(self) -> list[ast.ClassDef | ast.FunctionDef]:
        kinds = (ast.ClassDef, ast.FunctionDef)
        return [node for node in self.tree.body if isinstance(node, kinds) and not node.name.startswith("_")]

    def fields(self, node: ast.ClassDef) -> list[Field]:
        """Those that its __init__ takes, in that order: what a base has comes first."""
        found = {each.name: each for owner, base in self.bases(node) for each in owner.fields(base)}
        for each in node.body if self._has_fields(node) else []:
            if isinstance(each, ast.AnnAssign) and _is_own(each):
                own = self._field(each)
                inherited = found[own.name].meaning if own.name in found else ""
                found[own.name] = replace(own, meaning=own.meaning or inherited)
        return list(found.values())

    def attributes(self, node: ast.ClassDef) -> list[Field]:
        """What it gives all its objects, and is no field; the meaning may be that which a base gives."""
        above = {each.name: each.meaning for owner, base in self.bases(node) for each in owner.attributes(base)}
        found = []
        for each in node.body:
            if not isinstance(each, ast.Assign | ast.AnnAssign) or each.value is None:
                continue
            if isinstance(each, ast.Assign) or (_is_own(each) and not self._has_fields(node)):
                name = ast.unparse(each.target if isinstance(each, ast.AnnAssign) else each.targets[0])
                meaning = self.comments.get(each.lineno, "") or above.get(name, "")
                found.append(Field(name, "", ast.unparse(each.value), meaning, False))
        return [each for each in found if each.name.islower() and not each.name.startswith("_")]

    def _has_fields(self, node: ast.ClassDef) -> bool:
        marks = [ast.unparse(each) for each in (*node.decorator_list, *node.bases)]
        own = any("dataclass" in mark or mark in ("NamedTuple", "Protocol", "nn.Module") for mark in marks)
        return own or any(_is_net(owner, base) for owner, base in self.bases(node))

    def bases(self, node: ast.ClassDef) -> list[tuple["Module", ast.ClassDef]]:
        """Those of the package, each with the file that has it."""
        found = (self.found(base.id) for base in node.bases if isinstance(base, ast.Name))
        return [each for each in found if each]

    def found(self, name: str) -> tuple["Module", ast.ClassDef] | None:
        """The class that has this name here."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return self, node
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxdiff."):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return module(self.root, str(node.module).removeprefix("jaxdiff.")).found(alias.name)
        return None

    def _field(self, node: ast.AnnAssign) -> Field:
        comments = (self.comments.get(line, "") for line in range(node.lineno, (node.end_lineno or node.lineno) + 1))
        said = " ".join(comment for comment in comments if comment and not comment.startswith("type:"))
        default, changes = _default(node.value)
        return Field(ast.unparse(node.target), ast.unparse(node.annotation), default, said, changes)


def _is_net(owner: Module, node: ast.ClassDef) -> bool:
    """Whether flax makes a dataclass of it."""
    above = any(_is_net(*base) for base in owner.bases(node))
    return above or any(ast.unparse(base) == "nn.Module" for base in node.bases)


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
def module(root: Path, name: str) -> Module:
    """One file."""
    place = root / "jaxdiff" / name.replace(".", "/")
    text = (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    return Module(root, name, _Unquoted().visit(ast.parse(text)), comments)


class _Unquoted(ast.NodeTransformer):
    """Types are in quotes where the source names them before they are there: a reader has no need of these."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = _plain(node.annotation)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = node.annotation and _plain(node.annotation)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = node.returns and _plain(node.returns)
        self.generic_visit(node)
        return node


def _plain(kind: ast.expr) -> ast.expr:
    quoted = isinstance(kind, ast.Constant) and isinstance(kind.value, str)
    return ast.parse(ast.literal_eval(kind), mode="eval").body if quoted else kind


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


def signature(node: ast.ClassDef | Function, width: float = 90) -> str:
    """As it is written, without `self` and what a type checker alone reads."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    text = ast.unparse(node.args)
    text = re.sub(r"^(self|cls)(, )?", "", text)
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({text}){returned}"
    if len(line) <= width:
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
                found.append(module(self.root, name))
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
            parts += [self._fields(owner, node), self._attributes(owner, node), self._methods(owner, node)]
        return "\n\n".join(part for part in parts if part)

    def _said(self, node: ast.Module | ast.ClassDef | ast.FunctionDef, place: str) -> str:
        said = ast.get_docstring(node)
        if not said:
            self.missing.append(f"jaxdiff.{place} has no docstring")
        return said or ""

    def _fields(self, owner: Module, node: ast.ClassDef) -> str:
        rows = []
        for each in owner.fields(node):
            if not each.meaning and owner.name.startswith("core."):  # what papers are written with
                self.missing.append(f"jaxdiff.{owner.name}.{node.name} says nothing of its field {each.name}")
            meaning = cell(each.meaning) + (f" ({CHANGE})" * each.may_change)
            rows.append((name(each.name), code(each.type), code(each.default), meaning.strip()))
        return table(("field", "type", "default", "meaning"), rows) if rows else ""

    def _attributes(self, owner: Module, node: ast.ClassDef) -> str:
        rows = []
        for each in owner.attributes(node):
            if not each.meaning:
                self.missing.append(f"jaxdiff.{owner.name}.{node.name} says nothing of its attribute {each.name}")
            rows.append((name(each.name), code(each.default), cell(each.meaning)))
        return table(("of the class", "value", "meaning"), rows) if rows else ""

    def _methods(self, owner: Module, node: ast.ClassDef) -> str:
        lines = []
        above = [each.name for _, base in owner.bases(node) for each in base.body if isinstance(each, ast.FunctionDef)]
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and _is_shown(each, above):
                read = any(ast.unparse(mark).endswith("property") for mark in each.decorator_list)
                first = (ast.get_docstring(each) or "").split("\n\n")[0]
                called = each.name if read else signature(each, math.inf)
                lines.append(f"- {code(called)}" + (f"  \n  {cell(first)}" if first else ""))
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
        owner = module(self.root, place)
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
            shown = f"docs/{path.stem}.png"
            there = (self.root / shown).exists()
            if shown in (said or "") and not there:
                self.missing.append(f"{shown}, which configs/{path.name} names")
            about = escaped((said or "").replace(f" ({shown})", ""))
            about = about.replace("RESULTS.md", "[RESULTS.md](../../RESULTS.md)")
            parts += [f"## {path.stem}", about, f"[configs/{path.name}](../../configs/{path.name})"]
            if there:
                parts.append(f"![what {path.stem} came to](../{path.stem}.png)")
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


def _is_shown(method: ast.FunctionDef, above: list[str]) -> bool:
    """What has a docstring, what one has to write oneself, and how the class is made and called if no base says it."""
    name, last = method.name, ast.unparse(method.body[-1])
    if name in ("__init__", "__call__"):
        return name not in above or bool(ast.get_docstring(method))
    to_write = last == "..." or last.startswith("raise NotImplementedError")
    return (name.startswith("__") or not name.startswith("_")) and (to_write or bool(ast.get_docstring(method)))


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
