"""Classes and functions written as text: "DDIM", "ddim(0.5)", "ddim(eta=0.5)", "mine.py:EulerAncestral(eta=0.5)"."""

import ast
import math
import re
import warnings
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

from jaxdiff.base.annotations import fields_of
from jaxdiff.base.code import module
from jaxdiff.base.text import did_you_mean
from jaxdiff.base.tree import below, check, error_at, home, is_config_class, make, require_part

_WORDS = {"true": True, "false": False, "none": None, "inf": math.inf, "-inf": -math.inf}  # in any case
OWN = re.compile(r"(?P<source>[^()]+):(?P<call>[^:()/\\]+(\(.*\))?)", re.DOTALL)


def choices_of(beside: ModuleType) -> dict[str, Any]:
    """What a module offers to configs: its public classes of config values, and its functions."""
    named = {name: value for name, value in vars(beside).items() if not name.startswith("_")}
    values = {name: v for name, v in named.items() if is_config_class(v) or isinstance(v, FunctionType)}
    return {name: v for name, v in values.items() if home(v) == beside.__name__}


def literal(text: str) -> Any:
    """A number, a word such as true, a string in quotes or a tuple of these; or else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about what looks odd in a program
            return check(ast.literal_eval(text))  # with tuples for lists
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def construct(text: str, choices: Mapping[str, Any], path: str) -> Any:
    """What the text makes of the choices, whose names may be in any case and without underscores.

    A function is itself; a class is called, with the fields that are given, by name or in their order, as in Python.
    `file.py:Name` is of the user's own file.
    """
    own = OWN.fullmatch(text)
    if own is not None:
        text, beside = own["call"], module(own["source"])
        choices = {**choices, **choices_of(beside)}
    tree = _parsed(text.strip(), path)
    if isinstance(tree, ast.Call):
        return _called(tree, choices, path)
    return _named(tree.id if isinstance(tree, ast.Name) else text, choices, path)


def _parsed(text: str, path: str) -> ast.expr | None:
    """As Python reads it, or None if it does not, and nothing is called."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        if re.match(r"\w+\(", text):
            raise error_at(path, f"{text[:100]} is not Python, {error.msg}") from None
    except (ValueError, MemoryError, RecursionError):
        pass
    return None


def _called(call: ast.Call, choices: Mapping[str, Any], path: str) -> Any:
    name, whole = ast.unparse(call.func), ast.unparse(call)[:100]
    found = _found(name, choices, path)
    if not isinstance(found, type):
        raise error_at(path, f"{name} is a function, which is not called here")
    fields = fields_of(found)
    in_order = [field for field, about in fields.items() if not about.kw_only]
    if len(call.args) > len(in_order):
        raise error_at(path, f"{name} takes {', '.join(in_order) or 'nothing'}, got {whole}")
    pairs = [*zip(in_order, call.args, strict=False), *((word.arg, word.value) for word in call.keywords)]
    given: dict[str, Any] = {}
    for field, node in pairs:
        if field is None or isinstance(node, ast.Starred):  # **fields or *fields
            raise error_at(path, f"{name} takes its fields one by one, got {whole}")
        require_part(field, fields, found.__name__)
        if field in given:
            raise error_at(path, f"{field} is given twice, got {whole}")
        given[field] = _argument(node, choices, below(path, field))
    return make(found, given, path)


def _argument(node: ast.expr, choices: Mapping[str, Any], path: str) -> Any:
    text = ast.unparse(node)
    value = literal(text)
    if value is not text:
        return value
    if isinstance(node, ast.Call):
        return _called(node, choices, path)
    if isinstance(node, ast.Name):
        return _named(text, choices, path, "; a string needs quotes")
    raise error_at(path, f"{text[:100]} is neither a number, a string, a tuple nor a name")


def _named(name: str, choices: Mapping[str, Any], path: str, advice: str = "") -> Any:
    found = _found(name, choices, path, advice)
    return make(found, {}, path) if isinstance(found, type) else found


def _found(name: str, choices: Mapping[str, Any], path: str, advice: str = "") -> Any:
    if name in choices:
        return choices[name]
    known = {_plain(each): value for each, value in choices.items()}
    if _plain(name) not in known:
        near = did_you_mean(name, choices)
        raise ValueError(f'{path} must be one of {", ".join(choices)}, got "{name[:100]}"{near}{advice}')
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
