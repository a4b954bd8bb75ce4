"""Configs: trees of frozen dataclasses, read from a file, changed by `field.subfield=value`, kept as plain JSON.

A config is made of frozen dataclasses and flax modules, tuples, strings, numbers, True, False, None, and functions
known by their names; the types are those of its annotations. A path such as `model.sampler.eta` names a place in it, a
number in a path a place in a tuple. What is wrong is a ValueError of one line, which says where. A config *file* is
the user's own code and is run; the JSON beside a checkpoint is data, and runs nothing.
"""

import ast
import dataclasses
import difflib
import math
import sys
import traceback
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal, Protocol, get_args, get_origin

from flax import linen as nn
from jaxtyping import AbstractArray

# --- the tree -------------------------------------------------------------------------------------------------------


def _is_object(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(kind: Any) -> dict[str, dataclasses.Field]:
    """What its constructor takes, but for the place of a flax module in another."""
    omit = ("parent", "name") if issubclass(kind, nn.Module) else ()
    return {field.name: field for field in dataclasses.fields(kind) if field.init and field.name not in omit}


def _parts(value: Any) -> dict[str, Any]:
    """What stands one level below a value."""
    if _is_object(value):
        return {name: getattr(value, name) for name in _fields(type(value))}
    return {str(i): item for i, item in enumerate(value)} if isinstance(value, tuple) else {}


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name(value: Any) -> str:
    """Of a class or function, as one writes it after `from jaxdiff import ...`."""
    return f"{value.__module__.removeprefix('jaxdiff.')}.{value.__qualname__}"


def _made(kind: Any, fields: dict[str, Any], path: str, changed: str = "") -> Any:
    """kind(**fields), each field as its annotation has it; what the constructor objects to is said of `changed`."""
    hints = _hints(kind)
    fitting = {name: _fitting(hints[name], value, _below(path, name)) for name, value in fields.items()}
    try:
        return kind(**fitting)
    except Exception as error:
        raise _error(changed or path, error) from error


def _error(path: str, message: object) -> ValueError:
    return ValueError(" ".join(f"{path}: {message}".removeprefix(": ").split()))


def _brief(value: Any) -> str:
    named = f"{'class ' * isinstance(value, type)}{_name(value)}" if isinstance(value, type | FunctionType) else ""
    text = named or " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _guess(name: str, legal: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, legal, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _same(old: Any, new: Any) -> bool:
    """Equal, where True is not 1 and NaN is NaN."""
    return isinstance(old, bool) == isinstance(new, bool) and (old == new or (old != old and new != new))


# --- types ----------------------------------------------------------------------------------------------------------


def check(value: Any, path: str = "") -> Any:
    """The config, every field checked against its annotation: 1 becomes 1.0 where that is a float, a list a tuple."""
    if isinstance(value, list | tuple):
        return tuple(check(item, _below(path, str(i))) for i, item in enumerate(value))
    if not _is_object(value):
        return value
    return _made(type(value), {name: check(part, _below(path, name)) for name, part in _parts(value).items()}, path)


def _hints(kind: type) -> dict[str, Any]:
    """The annotation of each field; Any for one that cannot be resolved."""
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError, AttributeError, SyntaxError):
        hints = {name: Any if isinstance(field.type, str) else field.type for name, field in _fields(kind).items()}
    return {name: hints.get(name, Any) for name in _fields(kind)}


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of any other hint, itself."""
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _items(hint: Any, count: int) -> tuple[Any, ...]:
    """The hints of the items, where a hint, or a member of it, is a tuple's."""
    args = next((get_args(option) for option in _options(hint) if get_origin(option) is tuple), (Any, ...))
    return args[:1] * count if args[1:] == (...,) else args


def _fitting(hint: Any, value: Any, path: str) -> Any:
    try:
        return fitted(hint, value)
    except TypeError:
        raise ValueError(f"{path} must be {describe(hint)}, got {_brief(value)}") from None


def fitted(hint: Any, value: Any) -> Any:
    """The value as an annotation has it, a whole number as a float if need be; a TypeError if it is something else."""
    options = sorted(_options(hint), key=lambda option: option is not type(value))  # an int | float leaves 1 as it is
    if len(options) > 1:
        return fitted(next((option for option in options if accepts(option, value)), options[0]), value)
    if hint is float and (isinstance(value, float) or (type(value) is int and abs(value) <= 2**53)):
        return float(value)
    if get_origin(hint) is tuple and isinstance(value, tuple) and len(value) == len(_items(hint, len(value))):
        return tuple(map(fitted, _items(hint, len(value)), value))
    if get_origin(hint) is tuple or not _is_a(value, get_origin(hint) or hint, get_args(hint)):
        raise TypeError(f"{value!r} is not {describe(hint)}")
    return value


def accepts(hint: Any, value: Any) -> bool:
    """Whether a value fits an annotation; one that cannot be told, such as a shape, takes anything."""
    try:
        fitted(hint, value)
    except TypeError:
        return False
    return True


def _is_a(value: Any, hint: Any, args: tuple[Any, ...]) -> bool:
    if hint is Literal:
        return any(type(value) is type(legal) and value == legal for legal in args)
    if hint is None:
        return value is None
    if hint is Any or not isinstance(hint, type) or issubclass(hint, AbstractArray):
        return True
    if hint is Callable:
        return callable(value) and not isinstance(value, type)
    if Protocol in hint.__bases__:
        methods = {name for name in dir(hint) if name == "__call__" or not name.startswith("_")}
        return methods <= set(dir(value)) and not isinstance(value, type)
    return isinstance(value, hint) and not (isinstance(value, bool) and hint in (int, float))


_ARTICLES = {int: "an int", str: "a string", bool: "True or False", type(None): "None", None: "None"}


def describe(hint: Any) -> str:
    """What an annotation takes, in words."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if len(_options(hint)) > 1:
        return " or ".join(map(describe, args))
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is Callable:
        return "a function"
    if origin is tuple and args:
        return f"a tuple ({', '.join('...' if item is ... else describe(item) for item in args)})"
    return _ARTICLES.get(origin) or f"a {getattr(origin, '__name__', origin)}"


# --- as plain data --------------------------------------------------------------------------------------------------

_NOT_IN_JSON = ("inf", "-inf", "nan")  # floats kept as {"is": "inf"}
_DEEPEST = 32  # levels of a config that is read back: more must be a mistake, or malice


class Vocabulary:
    """All that a kept config may be made of: the public frozen dataclasses of some modules, and some functions."""

    def __init__(self, modules: Sequence[ModuleType], functions: Sequence[Callable] = ()) -> None:
        self.named: dict[str, Any] = {}
        for value in (*(each for module in modules for each in _config_classes(module)), *functions):
            name = _name(value)
            if not all(map(str.isidentifier, name.split("."))):
                raise ValueError(f"a vocabulary holds what a module names, got {value}")
            if self.named.setdefault(name, value) is not value:
                raise ValueError(f"two things are named {name}: {self.named[name]} and {value}")

    def name_of(self, value: Any, path: str = "") -> str:
        """Of a function, or of a dataclass's class."""
        known = type(value) if _is_object(value) else value
        for name, each in self.named.items():
            if each is known and not isinstance(value, type):
                return name
        raise _error(path, f"cannot keep {_brief(value)}: it is neither plain data nor in the vocabulary")

    def look_up(self, name: Any, path: str = "") -> Any:
        """The class or function of that name."""
        if not isinstance(name, str) or name not in self.named:
            raise _error(path, f'unknown "{str(name)[:100]}"{_guess(str(name)[:100], self.named)}')
        return self.named[name]


def _config_classes(module: ModuleType) -> Iterator[type]:
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_"):
            made = getattr(value, "__dataclass_params__", None)
            if made and (made.frozen or issubclass(value, nn.Module)):
                yield value


def to_data(value: Any, vocabulary: Vocabulary, path: str = "") -> Any:
    """The config as JSON has it: {"is": name, ...all its fields...} for a dataclass, {"is": name} for a function."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"is": str(float(value))}
    if value is None or isinstance(value, int | float | str):
        return value
    parts = {name: to_data(part, vocabulary, _below(path, name)) for name, part in _parts(value).items()}
    return list(parts.values()) if isinstance(value, tuple) else {"is": vocabulary.name_of(value, path), **parts}


def from_data(data: Any, vocabulary: Vocabulary, path: str = "") -> Any:
    """The config that `to_data` made this of; what the data lack, being older than a field, has its default."""
    if path.count(".") >= _DEEPEST:
        raise ValueError(f"a config is at most {_DEEPEST} levels deep, this goes on at {path}")
    if isinstance(data, list):
        return tuple(from_data(item, vocabulary, _below(path, str(i))) for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    if len(data) == 1 and data.get("is") in _NOT_IN_JSON:
        return float(data["is"])
    known = vocabulary.look_up(data.get("is"), path)
    fields = _fields(known) if isinstance(known, type) else {}
    given = {name: part for name, part in data.items() if name != "is"}
    for name in given:
        _require_part(name, fields, path)
    for name, field in fields.items():
        if name not in given and field.default is field.default_factory:  # both MISSING
            raise _error(path, f"{data['is']} needs the field {name}")
    if not isinstance(known, type):
        return known
    return _made(known, {name: from_data(part, vocabulary, _below(path, name)) for name, part in given.items()}, path)


def _require_part(name: str, legal: dict[str, Any], path: str) -> None:
    if name not in legal:
        has = f'no field "{name}", only {", ".join(legal)}' if legal else f'no fields, so no "{name}"'
        raise ValueError(f"{path or 'the config'} has {has}{_guess(name, legal)}")


# --- from the command line ------------------------------------------------------------------------------------------


def override(value: Any, assignment: str) -> Any:
    """The config with one field changed: "model.sampler.eta=0.5". The value is written as in Python."""
    path, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals or not all(path.split(".")):
        raise ValueError(f"an override has the form field.subfield=value, got {assignment!r}")
    return _overridden(value, Any, path.split("."), 0, text)


def overrides(value: Any, assignments: Sequence[str]) -> Any:
    """The config with some fields changed; one that is legal only after another may stand before it."""
    left = list(assignments)
    while left:
        refused: list[tuple[str, ValueError]] = []
        for assignment in left:
            try:
                value = override(value, assignment)
            except ValueError as error:
                refused.append((assignment, error))
        if len(refused) == len(left):
            raise refused[0][1]
        left = [assignment for assignment, _ in refused]
    return value


def _overridden(value: Any, hint: Any, names: list[str], depth: int, text: str) -> Any:
    """With the part below it changed that `names` leads to; `value` itself is what names[:depth] lead to."""
    if depth == len(names):
        return _parsed(text, hint, value, ".".join(names))
    parts, name = _parts(value), names[depth]
    _require_part(name, parts, ".".join(names[:depth]))
    hints = _hints(type(value)) if _is_object(value) else dict(zip(parts, _items(hint, len(parts)), strict=False))
    parts[name] = _overridden(parts[name], hints[name], names, depth + 1, text)
    path = ".".join(names[:depth])
    return _made(type(value), parts, path, ".".join(names)) if _is_object(value) else tuple(parts.values())


def _parsed(text: str, hint: Any, value: Any, path: str) -> Any:
    """The text as what a field takes that holds `value` now."""
    functions, literal = _functions_like(value, hint), _literal(text)
    if text in functions:
        return functions[text]
    if _is_object(value) and (hint in (Any, object) or not accepts(hint, literal)):
        legal = ", ".join([*functions, *(_below(path, name) for name in _parts(value))]) or "nothing"
        what = f"{path} is a {_name(type(value))}, and another class is another config file"
        raise ValueError(f"{what}; what can be set here is {legal}")
    if functions and not accepts(hint, literal):
        raise ValueError(f'{path} must be one of {", ".join(functions)}, got "{text}"{_guess(text, functions)}')
    return text if accepts(hint, text) and not accepts(hint, literal) else _fitting(hint, literal, path)


_WORDS = {"true": True, "false": False, "none": None, "inf": math.inf, "-inf": -math.inf}


def _literal(text: str) -> Any:
    """A number, a word such as true, a string in quotes or a tuple of these; or else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about what looks odd in a program
            return check(ast.literal_eval(text))  # with tuples for lists
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _functions_like(value: Any, hint: Any) -> dict[str, Callable]:
    """Functions beside the present value that are annotated as the field is: denoise.velocity beside denoise.noise."""
    home = sys.modules.get(getattr(value, "__module__", ""))
    beside = [f for f in vars(home).values() if isinstance(f, FunctionType)] if home else []
    wanted = [get_args(h) or (..., Any) for h in _options(hint) if (get_origin(h) or h) is Callable]
    return {
        f.__name__: f
        for f in beside
        for takes, gives in wanted
        if f.__module__ == value.__module__ and not f.__name__.startswith("_")
        if takes is ... or [*f.__annotations__.values()] == [*takes, gives]
    }


# --- for people -----------------------------------------------------------------------------------------------------


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Where two configs differ: path, old value, new value."""
    before, after = _parts(old), _parts(new)
    if type(old) is type(new) and before and before.keys() == after.keys():
        return [found for name in before for found in differences(before[name], after[name], _below(path, name))]
    return [] if _same(old, new) else [(path, old, new)]


def show(value: Any, indent: str = "", label: str = "") -> str:
    """The config as one would write it, without the fields that have their default; a line has at most 100 columns."""
    if _is_object(value):
        fields, opening, closing = _fields(type(value)), f"{_name(type(value))}(", ")"
        parts = [(f"{name}=", part) for name, part in _parts(value).items() if not _same(part, fields[name].default)]
    elif isinstance(value, tuple):
        opening, closing, parts = "(", ",)" if len(value) == 1 else ")", [("", item) for item in value]
    else:
        return indent + label + (_name(value) if isinstance(value, FunctionType) else repr(value))
    flat = indent + label + opening + ", ".join(show(part, "", name) for name, part in parts) + closing
    if not parts or ("\n" not in flat and len(flat) < 100):
        return flat
    lines = [f"{show(part, indent + '    ', name)},\n" for name, part in parts]
    return f"{indent}{label}{opening}\n{''.join(lines)}{indent})"


# --- from a file ----------------------------------------------------------------------------------------------------


def load(path: str | Path) -> Any:
    """The `config` that a Python file defines, checked; `mnist` stands for `configs/mnist.py`."""
    file = _found(Path(path))
    scope: dict[str, Any] = {"__name__": file.stem, "__file__": str(file)}
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), scope)
    except Exception as error:
        line, message = _place(error, str(file))
        raise _error(f"{file}{line}", f"{type(error).__name__}: {message}") from error
    if not _is_object(scope.get("config")):
        raise ValueError(f"{file} must define `config`, such as config = Config(...)")
    try:
        return check(scope["config"])
    except ValueError as error:
        raise _error(str(file), error) from error


def _found(path: Path) -> Path:
    for file in (path, Path(f"{path}.py"), Path("configs", path), Path("configs", f"{path}.py")):
        if file.is_file():
            return file
    near = {file.stem: file for folder in (path.parent, Path("configs")) for file in sorted(folder.glob("*.py"))}
    close = difflib.get_close_matches(path.stem, near, n=1)
    raise ValueError(f"no config file {path}" + (f"; did you mean {near[close[0]]}?" if close else ""))


def _place(error: Exception, file: str) -> tuple[str, object]:
    """The line of the file it came from, even if through other files, and its message."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}", error.msg
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else "", error
