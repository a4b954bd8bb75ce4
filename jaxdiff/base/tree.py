"""Configs: trees of frozen dataclasses, flax modules, tuples, numbers, strings, True, False, None, and functions.

The types are those of the annotations. A path such as `model.sampler.eta` names a place in a tree, a number in a path a
place in a tuple. What is wrong is a ValueError of one line, which says where.
"""

import dataclasses
import sys
from types import FunctionType
from typing import Any

from flax import linen as nn

from jaxdiff.base.annotations import describe, fields_of, fitted, hints_of, is_object
from jaxdiff.base.text import did_you_mean

# --- its parts ------------------------------------------------------------------------------------------------------


def parts_of(value: Any) -> dict[str, Any]:
    """What stands one level below a value."""
    if is_object(value):
        return {name: getattr(value, name) for name in fields_of(type(value))}
    return {str(i): item for i, item in enumerate(value)} if isinstance(value, tuple) else {}


def below(path: str, name: str) -> str:
    """The path of a part."""
    return f"{path}.{name}" if path else name


def require_part(name: str, legal: dict[str, Any], path: str) -> None:
    """Refuses a field that is not there."""
    if name not in legal:
        has = f'no field "{name}", only {", ".join(legal)}' if legal else f'no fields, so no "{name}"'
        raise ValueError(f"{path or 'the config'} has {has}{did_you_mean(name, legal)}")


def is_config_class(value: Any) -> bool:
    """Whether its instances can stand in a config: frozen dataclasses and flax modules, which compare and hash."""
    if not isinstance(value, type):
        return False
    made = getattr(value, "__dataclass_params__", None)
    return issubclass(value, nn.Module) or (made is not None and made.frozen)


# --- its types ------------------------------------------------------------------------------------------------------


def check(value: Any, path: str = "") -> Any:
    """The config, every field checked against its annotation: 1 becomes 1.0 where that is a float, a list a tuple."""
    if isinstance(value, list | tuple):
        return tuple(check(item, below(path, str(i))) for i, item in enumerate(value))
    if not is_object(value):
        return value
    if not is_config_class(type(value)):
        raise error_at(path, f"{name_of(type(value))} can change: make it a @dataclass(frozen=True) or a flax module")
    return make(type(value), {name: check(part, below(path, name)) for name, part in parts_of(value).items()}, path)


def make(kind: Any, fields: dict[str, Any], path: str, changed: str = "") -> Any:
    """kind(**fields), each field as its annotation has it; what the constructor objects to is said of `changed`."""
    hints = hints_of(kind)
    typed = {name: fit(hints[name], value, below(path, name)) for name, value in fields.items()}
    try:
        return kind(**typed)
    except Exception as error:
        raise error_at(changed or path, error) from error


def fit(hint: Any, value: Any, path: str) -> Any:
    """The value as an annotation has it."""
    try:
        return fitted(hint, value)
    except TypeError:
        raise ValueError(f"{path} must be {describe(hint)}, got {brief(value)}{advice(value)}") from None


def advice(value: Any) -> str:
    """What is likely meant."""
    if is_config_class(value):
        return f": write {value.__name__}(), with its fields between the brackets"
    return ": whole numbers are below 2^32 here" if type(value) is int and abs(value) >= 2**32 else ""


# --- what differs ---------------------------------------------------------------------------------------------------


def differences(old: Any, new: Any, path: str = "", free: bool = False) -> list[tuple[str, Any, Any]]:
    """Where two configs differ: path, old value, new value; without `free`, but for fields that `may_change`."""
    before, after = parts_of(old), parts_of(new)
    if type(old) is type(new) and before and before.keys() == after.keys():
        fixed = [name for name in before if free or not _may_change(type(old), name)]
        return [found for name in fixed for found in differences(before[name], after[name], below(path, name), free)]
    return [] if same(old, new) else [(path, old, new)]


def _may_change(kind: type, name: str) -> bool:
    return dataclasses.is_dataclass(kind) and name in fields_of(kind) and "may_change" in fields_of(kind)[name].metadata


def same(old: Any, new: Any) -> bool:
    """Equal, where True is not 1 and NaN is NaN."""
    return isinstance(old, bool) == isinstance(new, bool) and (old == new or (old != old and new != new))


# --- in words -------------------------------------------------------------------------------------------------------


def home(value: Any) -> str:
    """The module that a class or function is imported from: the package above its own if that exports it."""
    above = value.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(above), value.__qualname__, None) is value
    return above if exported else value.__module__


def stem(module: str) -> str:
    """The name of a module without the path that tells it from another of that name."""
    return module.partition(" (")[0]


def name_of(value: Any) -> str:
    """Of a class or function, as one writes it after importing its module: samplers.DDIM."""
    return f"{stem(home(value)).rpartition('.')[2]}.{value.__qualname__}"


def show(value: Any, indent: str = "", label: str = "", whole: bool = False) -> str:
    """The config as one would write it; a line has at most 100 columns.

    Fields that have their default are left out, but not if it is to be `whole`.
    """
    if is_object(value):
        fields, opening, closing = fields_of(type(value)), f"{name_of(type(value))}(", ")"
        given = {name: v for name, v in parts_of(value).items() if whole or not same(v, fields[name].default)}
        parts = [(f"{name}=", part) for name, part in given.items()]
    elif isinstance(value, tuple):
        opening, closing, parts = "(", ",)" if len(value) == 1 else ")", [("", item) for item in value]
    else:
        return indent + label + (name_of(value) if isinstance(value, FunctionType) else repr(value))
    flat = indent + label + opening + ", ".join(show(part, "", name, whole) for name, part in parts) + closing
    if not parts or ("\n" not in flat and len(flat) < 100):
        return flat
    lines = [f"{show(part, indent + '    ', name, whole)},\n" for name, part in parts]
    return f"{indent}{label}{opening}\n{''.join(lines)}{indent})"


def brief(value: Any) -> str:
    """A value in at most 100 characters."""
    named = f"{'class ' * isinstance(value, type)}{name_of(value)}" if isinstance(value, type | FunctionType) else ""
    text = named or " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def error_at(path: str, message: object) -> ValueError:
    """An error of one line."""
    return ValueError(" ".join(f"{path}: {message}".removeprefix(": ").split()))
