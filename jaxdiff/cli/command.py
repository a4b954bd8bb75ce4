"""What the commands have in common: a parser, and one line with exit code 2 for whatever is wrong."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jaxdiff.base.text import shown

MEMORY = "RESOURCE_EXHAUSTED"  # in the message of the error that XLA raises then


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and spells flags out in full."""

    def __init__(self, prog: str, description: str | None, epilog: str = "", usage: str | None = None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, usage, description, epilog, formatter_class=form, allow_abbrev=False)
        # what is a number and no option: argparse knows -1 and -1.5, but neither -1e6 nor -inf
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        given = sys.argv[1:] if args is None else list(args)
        for each in given:
            if re.fullmatch(r"--\w+=--", each):  # which argparse takes for the end of the options
                self.error(f"argument {each.partition('=')[0]}: expected one argument")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)}; --help tells more\n")


def one_line(message: object) -> str:
    return shown(" ".join(str(message).split()))


def run(name: str, action: Callable[[], int], without_memory: str, stopped: str) -> int:
    """The exit code of an action. $JAXDIFF_TRACEBACK shows where an error comes from."""
    try:
        return action()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        exhausted = MEMORY in str(error) or isinstance(error, MemoryError)
        if os.environ.get("JAXDIFF_TRACEBACK") or (isinstance(error, RuntimeError) and not exhausted):
            raise
        full = f"there is too little memory: {without_memory}"
        print(f"{name}: {full if exhausted else one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        return 130
