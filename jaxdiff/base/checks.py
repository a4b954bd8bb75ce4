"""What is said of a wrong value: one line that says what is legal."""

import operator
from typing import Any


def require(legal: bool, what: str, got: object) -> None:
    """A ValueError that says what is needed."""
    check(legal, f"needs {what}, got {got!r}")


def check(legal: bool, message: str) -> None:
    """A ValueError with this message."""
    if not legal:
        raise ValueError(message)


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
