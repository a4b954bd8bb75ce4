"""Classes and functions written as text: "DDIM", "ddim(0.5)", "ddim(eta=0.5)", "mine.py:EulerAncestral(eta=0.5)"."""

import ast
import math
import re
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

from jaxdiff.base.annotations import fields_of
from jaxdiff.base.code import module
from jaxdiff.base.text import did_you_mean
from jaxdiff.base.tree import check, error_at, home, is_config_class, make, require_part

OWN = re.compile(r"(?P<source>[^()]+):(?P<call>[^:()/\\]+(\(.*\))?)", re.DOTALL)


def choices_of(beside: ModuleType) -> dict[str, Any]:
    """What a module offers to configs: its public classes of config values, and its functions."""
    named = {name: value for name, value in vars(beside).items() if not name.startswith("_")}
    values = {name: v for name, v in named.items() if is_config_class(v) or isinstance(v, FunctionType)}
    return {name: v for name, v in values.items() if home(v) == beside.__name__}


def construct(text: str, choices: Mapping[str, Any], path: str) -> Any:
    """What the text makes of the choices, whose names may be in any case and without underscores.

    A function is itself; a class is called, with the fields that are given, by name or in their order, as in Python.
    `file.py:Name` is of the user's own file.
    """
    own = OWN.fullmatch(text)
    if own is not None:
        text, beside = own["call"], module(own["source"])
        choices = {**choices, **choices_of(beside)}
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        tree = None
    if isinstance(tree, ast.Call):
        return _called(tree, choices, path)
    return _named(tree.id if isinstance(tree, ast.Name) else text, choices, path)


def _called(call: ast.Call, choices: Mapping[str, Any], path: str) -> Any:
    name = call.func.id if isinstance(call.func, ast.Name) else ast.unparse(call.func)
    found = _found(name, choices, path)
    if not isinstance(found, type):
        raise error_at(path, f"{name} is a function: leave out the brackets")
    fields = fields_of(found)
    if len(call.args) > len(fields):
        raise error_at(path, f"{name} takes {', '.join(fields) or 'nothing'}, got {ast.unparse(call)}")
    given: dict[str, Any] = {}
    for field, node in [*zip(fields, call.args, strict=False), *((word.arg, word.value) for word in call.keywords)]:
        if field is None or isinstance(node, ast.Starred):
            raise error_at(path, f"{name} takes its fields one by one, got {ast.unparse(call)}")
        require_part(field, fields, found.__name__)
        if field in given:
            raise error_at(path, f"{field} is given twice, got {ast.unparse(call)}")
        given[field] = _argument(node, choices, path)
    return make(found, given, path)


def _argument(node: ast.expr, choices: Mapping[str, Any], path: str) -> Any:
    if isinstance(node, ast.Call):
        return _called(node, choices, path)
    if isinstance(node, ast.Name):
        return math.inf if node.id == "inf" else _named(node.id, choices, path)
    try:
        return check(ast.literal_eval(node))  # with tuples for lists
    except (ValueError, TypeError):
        raise error_at(path, f"{ast.unparse(node)} is neither a number, a string, a tuple nor a name") from None


def _named(name: str, choices: Mapping[str, Any], path: str) -> Any:
    found = _found(name, choices, path)
    return make(found, {}, path) if isinstance(found, type) else found


def _found(name: str, choices: Mapping[str, Any], path: str) -> Any:
    known = {_plain(each): value for each, value in choices.items()}
    if _plain(name) not in known:
        near = did_you_mean(name, choices)
        raise ValueError(f'{path} must be one of {", ".join(choices)}, got "{name[:100]}"{near}')
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
