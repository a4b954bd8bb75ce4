"""Fields changed from the command line: model.sampler.eta=0.5."""

import sys
from collections.abc import Sequence
from types import FunctionType
from typing import Any, Protocol

from flax import linen as nn

from jaxdiff.base.annotations import accepts, fields_of, hints_of, is_object, items_of, options_of
from jaxdiff.base.calls import OWN, choices_of, construct, literal
from jaxdiff.base.tree import below, fit, home, is_config_class, make, parts_of, require_part


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


def _overridden(value: Any, hint: Any, names: list[str], depth: int, text: str, usual: Any = None) -> Any:
    """With the part below it changed that `names` leads to; `value` itself is what names[:depth] lead to."""
    if depth == len(names):
        return _parsed(text, hint, value, ".".join(names), usual)
    parts, name = parts_of(value), names[depth]
    require_part(name, parts, ".".join(names[:depth]))
    hints = hints_of(type(value)) if is_object(value) else dict(zip(parts, items_of(hint, len(parts)), strict=False))
    usual = fields_of(type(value))[name].default if is_object(value) else None
    parts[name] = _overridden(parts[name], hints[name], names, depth + 1, text, usual)
    path = ".".join(names[:depth])
    return make(type(value), parts, path, ".".join(names)) if is_object(value) else tuple(parts.values())


def _parsed(text: str, hint: Any, value: Any, path: str, usual: Any) -> Any:
    """The text as what a field takes that holds `value` now: a literal, or something that stands beside the value."""
    written, choices = literal(text), _choices(value, hint, usual)
    plain = accepts(hint, written) and not (is_object(value) and hint in (Any, object))
    if plain and not (choices and isinstance(written, str)):
        return text if accepts(hint, text) and not accepts(hint, written) else fit(hint, written, path)
    if not choices and not OWN.fullmatch(text):
        return text if accepts(hint, text) else fit(hint, written, path)
    own = [below(path, name) for name in parts_of(value)]
    try:
        return fit(hint, construct(text, choices, path), path)
    except ValueError as error:
        further = f"; or set {', '.join(own)}" if own else ""
        raise ValueError(f"{error}{further}") from None


_NETWORKS = "jaxdiff.nets"  # what a field of any flax module is for, rather than for flax's own layers


def _choices(value: Any, hint: Any, usual: Any) -> dict[str, Any]:
    """What stands beside the present or the usual value or their bases, or where the annotation comes from."""
    named = [each if isinstance(each, FunctionType) else type(each) for each in (value, usual) if _is_named(each)]
    sources = [each for each in (*named, *options_of(hint)) if _has_a_home(each)]
    for each in named[:1]:  # of a class of one's own those of jaxdiff
        sources += [base for base in getattr(each, "__mro__", ())[1:] if base.__module__.startswith("jaxdiff.")]
    homes = dict.fromkeys(_NETWORKS if each is nn.Module else home(each) for each in sources)
    found = [choices_of(sys.modules[each]) for each in homes]
    found += [_of_protocol(each) for each in options_of(hint) if _is_protocol(each)]
    return {name: v for each in reversed(found) for name, v in each.items()}  # what stands beside the value comes first


def _is_named(value: Any) -> bool:
    return isinstance(value, FunctionType) or is_object(value)


def _is_protocol(value: Any) -> bool:
    return isinstance(value, type) and value.__module__.startswith("jaxdiff.") and Protocol in value.__bases__


def _of_protocol(protocol: Any) -> dict[str, Any]:
    """The classes of its package that have all that it asks for; what stands beside it, if it is only to be called."""
    asked = [name for name in vars(protocol) if not name.startswith("_")]
    beside = choices_of(sys.modules[protocol.__module__.rpartition(".")[0] if asked else protocol.__module__])
    if not asked:
        return beside
    kinds = {name: v for name, v in beside.items() if isinstance(v, type)}
    return {name: v for name, v in kinds.items() if all(hasattr(v, each) or each in fields_of(v) for each in asked)}


def _has_a_home(value: Any) -> bool:
    """Whether what may stand in its place is found beside it: a value's class, a function, or a base of jaxdiff's."""
    base = isinstance(value, type) and value.__module__.startswith("jaxdiff.") and not _is_protocol(value)
    return base or is_config_class(value) or isinstance(value, FunctionType)
