"""Configs as plain data, for JSON, and back. Reading runs no code but jaxdiff's and that of modules the user named.

A dataclass is {"is": "module:Class", ...all its fields...}, a function {"is": "module:function"}. What is not jaxdiff's
own says its file too, {"is": "shapes:Net", "from": "/home/me/shapes.py"}; it is read only if the user says that the
module may be used. ("is" and "from" are words of Python's, so that no field can be called so.)
"""

import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxdiff.base.annotations import fields_of, is_object
from jaxdiff.base.tree import (
    advice,
    below,
    brief,
    did_you_mean,
    error_at,
    home,
    is_config_class,
    make,
    parts_of,
    require_part,
    stem,
)

FOLDERS = ("core", "nets", "data", "training", "models")  # of jaxdiff, whose public classes a file may name
_NOT_IN_JSON = ("inf", "-inf", "nan")  # floats kept as {"is": "inf"}
_DEEPEST = 32  # levels of a config that is read back: more must be a mistake, or malice


class CodeNeededError(ValueError):
    """Data name a class outside jaxdiff whose module the user has not named."""


def to_data(value: Any, path: str = "") -> Any:
    """The config as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"is": str(float(value))}
    if value is None or isinstance(value, int | float | str):
        return value
    parts = {name: to_data(part, below(path, name)) for name, part in parts_of(value).items()}
    return list(parts.values()) if isinstance(value, tuple) else {**_origin(value, path), **parts}


def _origin(value: Any, path: str) -> dict[str, str | None]:
    """The names by which the class of a value, or a function, is found again."""
    named = type(value) if is_object(value) else value
    module, own = getattr(named, "__module__", None), getattr(named, "__qualname__", "")
    if is_config_class(value):
        raise error_at(path, f"{own} is a class{advice(value)}")
    if isinstance(value, type) or getattr(sys.modules.get(str(module)), own, None) is not named:
        why = "it is neither plain data nor a class or function that stands by its name at the top of a file"
        raise error_at(path, f"cannot keep {brief(value)}: {why}")
    if str(module).startswith("jaxdiff."):
        return {"is": f"{home(named)}:{own}"}
    file = getattr(sys.modules[str(module)], "__file__", None)
    return {"is": f"{stem(home(named))}:{own}", "from": None if file is None else str(Path(file).resolve())}


def from_data(data: Any, code: Sequence[ModuleType] = (), path: str = "") -> Any:
    """The config that `to_data` made this of, with the classes of jaxdiff and of the modules `code`.

    What the data lack, being older than a field, has its default.
    """
    if path.count(".") >= _DEEPEST:
        raise ValueError(f"a config is at most {_DEEPEST} levels deep, this goes on at {path}")
    if isinstance(data, list):
        return tuple(from_data(item, code, below(path, str(i))) for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    if len(data) == 1 and data.get("is") in _NOT_IN_JSON:
        return float(data["is"])
    known = _found(data, code, path)
    fields = fields_of(known) if isinstance(known, type) else {}
    given = {name: part for name, part in data.items() if name not in ("is", "from")}
    for name in given:
        require_part(name, fields, path)
    for name, field in fields.items():
        if name not in given and field.default is field.default_factory:  # both MISSING
            raise error_at(path, f"{data['is']} needs the field {name}")
    if not isinstance(known, type):
        return known
    return make(known, {name: from_data(part, code, below(path, name)) for name, part in given.items()}, path)


def _found(data: dict[str, Any], code: Sequence[ModuleType], path: str) -> Any:
    """The class or function that data name."""
    name = data.get("is")
    module, _, own = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not module or not own:
        legal: dict[str, Any] = {}
    else:
        legal = _ours(module) if module.startswith("jaxdiff.") else _of_the_user(module, data, code, path)
    if own not in legal:
        raise error_at(path, f'unknown "{str(name)[:100]}"{did_you_mean(own[:100], legal)}')
    return legal[own]


def _ours(name: str) -> dict[str, Any]:
    """What a config may name of a module of jaxdiff: public classes, and the functions of the mathematics."""
    _, folder, *more = name.split(".")
    if folder not in FOLDERS or not all(map(str.isidentifier, more)):
        return {}
    try:
        module = importlib.import_module(name)
    except ImportError:
        return {}
    named = {each: value for each, value in vars(module).items() if not each.startswith("_")}
    return {each: v for each, v in named.items() if _public(v, name) and _is_value(v, folder == "core")}


def _is_value(value: Any, functions: bool) -> bool:
    return is_config_class(value) or (functions and not isinstance(value, type))


def _public(value: Any, module: str) -> bool:
    """Whether a class or function is imported from this module, rather than into it."""
    return callable(value) and getattr(value, "__qualname__", None) is not None and home(value) == module


def _of_the_user(name: str, data: dict[str, Any], code: Sequence[ModuleType], path: str) -> dict[str, Any]:
    for module in code:
        if stem(module.__name__) == name:
            public = {each: value for each, value in vars(module).items() if _public(value, module.__name__)}
            return {each: value for each, value in public.items() if _is_value(value, functions=True)}
    file = data.get("from")
    needed = name if file is None or "." in name else file
    what = f"{str(data['is'])[:100]} of {str(file)[:200]}" if file else str(data["is"])[:100]
    how = f"add --code {str(needed)[:200]} (from Python, code=[{name[:100]}])"
    said = f"{path}: {what} is code, which runs only if you name it: {how}".removeprefix(": ")
    raise CodeNeededError(" ".join(said.split()))
