"""Compiling is announced: it may take minutes, in which nothing else is heard."""

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Iterator

from jax import monitoring
from tqdm import tqdm

from jaxdiff.base.console import say
from jaxdiff.base.devices import is_first

# what JAX reports when it begins to look for a program, in the cache first, and when it has it
BEGINS, ENDS = "/jax/compilation_cache/compile_requests_use_cache", "/jax/core/compile/backend_compile_duration"
PATIENCE = 3.0  # seconds within which a program is there without a word, as one from the cache is


@functools.cache  # a notebook may run several commands
def announce() -> None:
    """From now on whatever compiles for some seconds says so: a running clock, or without a terminal two lines."""
    monitoring.register_event_listener(_begins)
    monitoring.register_event_duration_secs_listener(_ends)


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """What is compiled within is called that; also a decorator."""
    global _what
    before, _what = _what, f" {what}"
    try:
        yield
    finally:
        _what = before


def _begins(event: str, **_: str | int) -> None:
    if event == BEGINS:
        _running.append(_Clock())


def _ends(event: str, duration_secs: float, **_: str | int) -> None:
    if event == ENDS and _running:
        _running.pop().stop()


class _Clock:
    """Runs in a thread of its own, since whoever compiles does nothing else."""

    def __init__(self) -> None:
        self._begin, self._over, self._what = time.monotonic(), threading.Event(), _what
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        if self._over.wait(PATIENCE) or not is_first():
            return
        if not sys.stderr.isatty():
            say(f"compiling{self._what}, once")
            self._over.wait()
            say(f"compiled in {self._seconds():.0f} s")
            return
        with tqdm.external_write_mode(sys.stderr, nolock=True):  # without a bar, if there is one
            line = ""
            while not line or not self._over.wait(1.0):
                line = f"compiling{self._what}, once: {self._seconds():.0f} s"
                print(f"\r{line}", end="", file=sys.stderr, flush=True)
            done = f"compiled in {self._seconds():.0f} s"
            print(f"\r{done:{len(line)}}", file=sys.stderr, flush=True)

    def _seconds(self) -> float:
        return time.monotonic() - self._begin


_running: list[_Clock] = []
_what = ""
