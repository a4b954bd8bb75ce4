"""What is said to whoever started the command, on stderr."""

import sys

from jaxdiff.base.devices import is_first
from jaxdiff.base.text import shown


def say(text: str) -> None:
    if is_first():
        print(shown(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")
