"""Text of others, such as names of files and messages, as it may be shown."""


def shown(text: str) -> str:
    """With escapes for what a terminal would not print but obey, other than a new line."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Of what an error says, or its class if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
