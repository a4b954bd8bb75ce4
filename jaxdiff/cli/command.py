"""What the commands have in common: a parser, an answer to Ctrl-C, and one line with exit code 2 for what is wrong."""

import argparse
import contextlib
import io
import os
import re
import signal
import socket
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxdiff.base import notebook
from jaxdiff.base.text import did_you_mean, exhausted, shown

AT_ONCE, PATIENCE = 0.2, 2.0  # seconds until the first Ctrl-C is answered, and until the second one ends the process


TARGET = (
    "compile for a machine that is not here, and tell what it would do: v5e, v5e-4, v5e-8, v6e, v6e-4 (these take "
    "jax[tpu]), h100, a100 or t4 (jax[cuda12])"
)
DISTRIBUTED = "this process is one of several that do it together"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and spells flags out in full."""

    def __init__(self, prog: str, description: str | None, epilog: str = "", usage: str | None = None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, usage, description, epilog, formatter_class=form, allow_abbrev=False)
        # what is a number and no option: argparse knows -1 and -1.5, but neither -1e6 nor -inf
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)

    def called(self, prog: str) -> None:
        """The same command by another name: `jaxdiff sample` where --help says `python sample.py`."""
        if not prog.endswith(".py"):
            script = f"python {self.prog}"
            self.description = (self.description or "").replace(script, prog)
            self.usage = self.usage and self.usage.replace(script, prog)
        self.prog = prog

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        given = sys.argv[1:] if args is None else list(args)
        for each in given:
            if re.fullmatch(r"--\w+=--", each):  # which argparse takes for the end of the options
                self.error(f"argument {each.partition('=')[0]}: expected one argument")
            self._check_flag(each.partition("=")[0])
        return super().parse_known_args(given, namespace)

    def _check_flag(self, flag: str) -> None:
        """Before what is missing is complained of, which may be what is misspelt."""
        if re.fullmatch(r"--[a-zA-Z]\w*", flag) and flag not in self._option_string_actions:
            self.error(f"unrecognized arguments: {flag}{did_you_mean(flag, self._option_string_actions)}")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)}; --help tells more\n")


def one_line(message: object) -> str:
    return shown(" ".join(str(message).split()))


def run(name: str, action: Callable[[], int], without_memory: str, stopped: str) -> int:
    """The exit code of an action. $JAXDIFF_TRACEBACK shows where an error comes from."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX is imported: XLA's alarm about slow compiling
    _open_streams()
    try:
        with _answered(f"{name}: {stopped}"):
            return action()
    except BrokenPipeError:  # whoever read what is printed has enough of it, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where Python writes the rest
        return 141  # as shells say it
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get("JAXDIFF_TRACEBACK") or (isinstance(error, RuntimeError) and not exhausted(error)):
            raise
        full = f"there is too little memory: {without_memory}"
        print(f"{name}: {full if exhausted(error) else one_line(error) + _place(error)}", file=sys.stderr, flush=True)
        return _gone(2)
    except KeyboardInterrupt:
        if not notebook.is_here():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # another one ends what is left to do without a word
        print(f"{name}: {stopped}", file=sys.stderr, flush=True)
        return _gone(130)


def _gone(code: int) -> int:
    """One of several processes ends here: at its usual end it would wait for the others, and these wait for it."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)
    return code


def _open_streams() -> None:
    """What is closed leads nowhere, or the next file to be opened would be in its place; what is narrow escapes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is


def _place(error: BaseException | None) -> str:
    """The line of a file of the user's that an error came through, unless it says so itself."""
    said, frames = str(error), list[traceback.FrameSummary]()
    while error is not None:
        frames += traceback.extract_tb(error.__traceback__)
        error = error.__cause__
    own = [f"{Path(each.filename).name}, line {each.lineno}" for each in frames if not _is_known(each.filename)]
    return f" ({own[-1]})" if own and own[-1] not in said else ""


def _is_known(file: str) -> bool:
    """Whether it is of this package, of Python or of a library."""
    ours, pythons = str(Path(__file__).parents[1]), sysconfig.get_path("stdlib")
    named = {"site-packages", "dist-packages", "train.py", "sample.py", "evaluate.py"} & set(Path(file).parts)
    return bool(named) or file.startswith(("<", ours, pythons))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits until this is done: extensions that are being imported crash of it, or swallow it."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _answered(stopped: str) -> Iterator[None]:
    """Ctrl-C is answered at once, by a thread: the main one cannot while it compiles, or computes a step."""
    reads, writes = socket.socketpair()
    writes.setblocking(False)
    over = threading.Event()
    before = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_answer, args=(reads, over, stopped), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        writes.close()  # which ends the thread


def _answer(reads: socket.socket, over: threading.Event, stopped: str) -> None:
    asked = 0
    with reads:
        while number := reads.recv(1):
            asked += number[0] in (signal.SIGINT, signal.SIGTERM)
            if asked == 1 and not over.wait(AT_ONCE):
                _below("stopping when what is under way is done; Ctrl-C again stops at once")
            elif asked > 1 and not notebook.is_here() and not over.wait(PATIENCE):
                _below(stopped)
                os._exit(130)  # as kill -9 would, which loses nothing that is saved


def _below(text: str) -> None:
    """A line of its own, below a bar."""
    print("\n" * sys.stderr.isatty() + text, file=sys.stderr, flush=True)
