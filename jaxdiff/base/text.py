"""Text of others, such as names of files and messages, as it may be shown."""

import difflib
from collections.abc import Iterable

_MEMORY = "RESOURCE_EXHAUSTED"  # in the message of the error that XLA raises then


def shown(text: str) -> str:
    """With escapes for what a terminal would not print but obey, other than a new line."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Of what an error says, or its class if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(name: str, legal: Iterable[str]) -> str:
    """The nearest legal name, as a question; nothing if none is near."""
    close = difflib.get_close_matches(name, list(legal), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def exhausted(error: Exception) -> bool:
    """Whether it says that memory ran out."""
    return _MEMORY in str(error) or isinstance(error, MemoryError)
