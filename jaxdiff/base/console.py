"""What is said to whoever started the command, by the first of several processes: on stderr, results on stdout."""

import sys

from jaxdiff.base.devices import is_first
from jaxdiff.base.text import shown


def say(text: str) -> None:
    if is_first():
        print(shown(text), file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """What was asked for, on stdout."""
    if is_first():
        print(shown(text), flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")
