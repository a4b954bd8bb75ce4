"""What an annotation takes: values checked against the types of the fields that hold them."""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args, get_origin

from flax import linen as nn
from jaxtyping import AbstractArray


def is_object(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def fields_of(kind: Any) -> dict[str, dataclasses.Field]:
    """What its constructor takes, but for the place of a flax module in another."""
    omit = ("parent", "name") if issubclass(kind, nn.Module) else ()
    return {field.name: field for field in dataclasses.fields(kind) if field.init and field.name not in omit}


def hints_of(kind: type) -> dict[str, Any]:
    """The annotation of each field; Any for one that cannot be resolved."""
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError, AttributeError, SyntaxError):
        hints = {name: Any if isinstance(field.type, str) else field.type for name, field in fields_of(kind).items()}
    return {name: hints.get(name, Any) for name in fields_of(kind)}


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of any other hint, itself."""
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def items_of(hint: Any, count: int) -> tuple[Any, ...]:
    """The hints of the items, where a hint, or a member of it, is a tuple's."""
    args = next((get_args(option) for option in options_of(hint) if get_origin(option) is tuple), (Any, ...))
    return args[:1] * count if args[1:] == (...,) else args


def fitted(hint: Any, value: Any) -> Any:
    """The value as an annotation has it, a whole number as a float if need be; a TypeError if it is something else."""
    options = sorted(options_of(hint), key=lambda option: option is not type(value))  # an int | float leaves 1 as it is
    if len(options) > 1:
        return fitted(next((option for option in options if accepts(option, value)), options[0]), value)
    if hint is float and (isinstance(value, float) or (type(value) is int and abs(value) <= 2**53)):
        return float(value)
    if hint is int and type(value) is int and abs(value) >= 2**32:  # a count of nothing there is, and too long for JAX
        raise TypeError(f"{value!r} is not {describe(hint)}")
    if get_origin(hint) is tuple and isinstance(value, tuple) and len(value) == len(items_of(hint, len(value))):
        return tuple(map(fitted, items_of(hint, len(value)), value))
    if get_origin(hint) is tuple or not _is_a(value, get_origin(hint) or hint, get_args(hint)):
        raise TypeError(f"{value!r} is not {describe(hint)}")
    return value


def accepts(hint: Any, value: Any) -> bool:
    """Whether a value fits an annotation; one that cannot be checked, such as a shape, accepts anything."""
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
        network = methods == {"__call__"} and isinstance(value, nn.Module)  # which takes other arguments
        return methods <= set(dir(value)) and not isinstance(value, type) and not network
    return isinstance(value, hint) and not (isinstance(value, bool) and hint in (int, float))


_ARTICLES = {int: "an int", str: "a string", bool: "True or False", type(None): "None", None: "None"}


def describe(hint: Any) -> str:
    """What an annotation takes, in words."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if len(options_of(hint)) > 1:
        return " or ".join(map(describe, args))
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is Callable:
        return "a function"
    if origin is tuple and args:
        return f"a tuple ({', '.join('...' if item is ... else describe(item) for item in args)})"
    return _ARTICLES.get(origin) or f"a {getattr(origin, '__name__', origin)}"
