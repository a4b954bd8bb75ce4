"""What the commands have in common: a parser, and one line with exit code 2 for whatever is wrong."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

MEMORY = "RESOURCE_EXHAUSTED"  # in the message of the error that XLA raises then


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and spells flags out in full."""

    def __init__(self, prog: str, description: str | None, epilog: str = "", usage: str | None = None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, usage, description, epilog, formatter_class=form, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help tells more\n")


def run(name: str, action: Callable[[], int], without_memory: str, stopped: str) -> int:
    """The exit code of an action. $JAXDIFF_TRACEBACK shows where an error comes from."""
    try:
        return action()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        exhausted = MEMORY in str(error) or isinstance(error, MemoryError)
        if os.environ.get("JAXDIFF_TRACEBACK") or (isinstance(error, RuntimeError) and not exhausted):
            raise
        full = f"there is too little memory: {without_memory}"
        print(f"{name}: {full if exhausted else ' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        return 130
