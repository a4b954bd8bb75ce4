"""What is said of a wrong value: one line that says what is legal."""

import inspect
import operator
from collections.abc import Callable
from typing import Any


def require(legal: bool, what: str, got: object) -> None:
    """A ValueError that says what is needed."""
    check(legal, f"needs {what}, got {got!r}")


def check(legal: bool, message: str) -> None:
    """A ValueError with this message."""
    if not legal:
        raise ValueError(message)


def takes(function: Callable[..., Any], *names: str) -> None:
    """Refuses a function that cannot be called with these arguments, in their order."""
    check(callable(function), f"needs a function of ({', '.join(names)}), got {function!r}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # C functions may have none
        return
    try:
        signature.bind(*names)
    except TypeError:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise ValueError(f"{name} must take ({', '.join(names)}), it takes {signature}") from None


def whole(name: str, value: Any, least: int = 0, below: int | None = None) -> int:
    """A whole number, of any library."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    legal = number is not None and number >= least and (below is None or number < below)
    limit = "" if below is None else f" and below {f'2^{below.bit_length() - 1}' if below in (2**31, 2**32) else below}"
    check(legal, f"{name} must be a whole number, at least {least}{limit}, got {value!r}")
    return int(number or 0)
