"""What jaxdiff is on this machine's GPU or TPU, in one command: is it right, how fast is it, and what does it learn?

    python benchmarks/accelerator.py                        # eight minutes
    python benchmarks/accelerator.py --minutes 30 --out results
    python benchmarks/accelerator.py --toy                  # on a CPU, three minutes at most: does the benchmark work?

It says what the machine has; checks five facts, each with its number and its limit; measures the product of matrices,
and train steps and network evaluations of DDPM's UNet, of a DiT-B and of DDPM++ in bfloat16, beside PyTorch's of
diffusers; and in the time that is left trains the config cifar10 and draws from it: accelerator.png. A markdown table
comes at the end; accelerator.json is written anew after each stage, so that whatever ends this loses nothing. A stage
that has too little time left is skipped, one that takes too long is ended, and what it raises is a line of its row.

A share of the peak is the FLOPs of the network as written (train_step.py) a second, three times as many in training,
of what the maker says of the card, or if it is not known here, of the fastest product. Compilation is not in it.

What this machine's Python lacks can be brought along as wheels, which need no installation:

    pip download -d wheels --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 diffusers
    python benchmarks/accelerator.py --wheels wheels        # what is installed comes before them
"""

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]  # jaxdiff may be a clone that nobody installed
sys.path.append(str(ROOT / "benchmarks"))  # where this is not the program, but imported

from accelerator_report import BY, Report  # noqa: E402
from accelerator_training import train_and_draw  # noqa: E402
from contenders import Cases, Contender, in_one_line  # noqa: E402

TOY_MINUTES = 3.0
NEEDS = {"fact": 15.0, "product": 10.0, "ours": 30.0, "theirs": 25.0}  # seconds without which a stage is not begun
AT_ONCE = {  # a toy computes little and compiles much, so that XLA takes the short way
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true",
}
Found = dict[str, Any]


class Stage(NamedTuple):
    """Begun if there are so many seconds until that share of the time is over, by which it has to end."""

    name: str
    run: Callable[[float], Found]  # the seconds it may take -> what it found
    needs: float
    until: float
    most: float = 150.0  # seconds, so that one that hangs leaves something to the others
    fact: bool = False


class Clock:
    def __init__(self, minutes: float):
        self._begin, self._total = time.monotonic(), 60 * minutes

    def passed(self) -> float:
        return time.monotonic() - self._begin

    def left(self, until: float = 1.0) -> float:
        return until * self._total - self.passed()


class Desk:
    """One process at a time, so that a card holds one program's memory. One that died or hung is begun anew."""

    def __init__(self) -> None:
        self._prepare: Callable[[], Cases] | None = None
        self._contender: Contender | None = None

    def ask(self, prepare: Callable[[], Cases], case: str, seconds: float) -> Found:
        if self._contender is None or prepare is not self._prepare:
            self.clear()
            self._prepare, self._contender = prepare, Contender(prepare)
        try:
            return self._contender.ask(case, seconds)
        except TimeoutError:
            self.clear()
            raise TimeoutError(f"not done after {seconds:.0f} s") from None
        except BrokenExecutor:
            self.clear()
            raise RuntimeError("the process ended, by a signal or for want of memory") from None

    def clear(self) -> None:
        if self._contender is not None:
            self._contender.kill()
        self._contender = None


def jax_cases(toy: bool, batch: int | None) -> Cases:
    """All that is asked of the process that has jaxdiff."""
    import accelerator_facts
    import accelerator_speed

    from jaxdiff.base import environment

    environment.prepare()
    return accelerator_facts.cases(toy) | accelerator_speed.cases(toy, batch)


def torch_cases(toy: bool, batch: int) -> Cases:
    import accelerator_speed

    return accelerator_speed.peers(toy, batch)


def conduct(stage: Stage, report: Report, clock: Clock) -> Found:
    """One stage, come what may: a row."""
    begin, allowed = clock.passed(), min(clock.left(stage.until), stage.most)
    if allowed < stage.needs:
        left = f"{allowed:.0f} s are left for it" if allowed > 0 else "nothing is left for it"
        found: Found = {"skipped": f"it needs {stage.needs:.0f} s, {left}"}
    else:
        try:
            found = stage.run(allowed)
        except Exception as error:
            found = {"error": in_one_line(error)}
    report.add(stage.name, found, clock.passed() - begin, stage.fact)
    return found


def stages(desk: Desk, ours: Callable[[], Cases], toy: bool, batch: int, out: Path) -> list[Stage]:
    """What comes after the machine is known: facts first; each part ends in time for those after it."""
    from accelerator_facts import facts
    from accelerator_speed import KINDS, NETWORKS

    theirs = partial(torch_cases, toy, batch)
    measured = [f"{name}, {kind}" for kind in KINDS for name in NETWORKS]
    compared = [f"{name}, {by}" for by in BY for name in measured]
    seconds = dict.fromkeys(NEEDS, 1.0) if toy else NEEDS
    return [
        *(Stage(name, partial(desk.ask, ours, name), seconds["fact"], 0.3, fact=True) for name in facts(toy)),
        Stage("product", partial(desk.ask, ours, "product"), seconds["product"], 0.35),
        *(Stage(name, partial(desk.ask, ours, name), seconds["ours"], 0.6) for name in measured),
        *(Stage(name, partial(desk.ask, theirs, name), seconds["theirs"], 0.75) for name in compared),
        Stage("cifar10, trained", partial(trained, desk, toy, batch, out), 25 if toy else 60, 1.0, math.inf),
    ]


def trained(desk: Desk, toy: bool, batch: int, out: Path, seconds: float) -> Found:
    desk.clear()  # train.py needs the card
    return train_and_draw(toy, batch, out / "accelerator.png", min(seconds, 50) if toy else seconds)


def measure(minutes: float | None, toy: bool, batch: int | None, out: Path) -> Report:
    """All of it. Whatever is raised within ends in a row; only Ctrl-C ends this, and then what is known is printed."""
    desk, clock = Desk(), Clock(minutes or (TOY_MINUTES if toy else 8.0))
    report, ours = Report(out / "accelerator.json"), partial(jax_cases, toy, batch)
    with contextlib.ExitStack() as closing:
        closing.callback(lambda: print(report.markdown(), flush=True))
        closing.callback(desk.clear)
        machine = conduct(Stage("machine", partial(desk.ask, ours, "machine"), 0, 0.3), report, clock)
        if not toy and machine.get("backend") == "cpu":  # whatever else is there, JAX cannot use it
            toy, ours = True, partial(jax_cases, True, batch)
            machine = conduct(Stage("machine", partial(desk.ask, ours, "machine"), 0, 0.3), report, clock)
        report.about(machine, toy)
        for stage in stages(desk, ours, toy, machine.get("batch", batch or 8), out):
            conduct(stage, report, clock)
    return report


# --- the command ------------------------------------------------------------------------------------------------------


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help=f"for all of it (default: 8, of a toy {TOY_MINUTES:g})")
    parser.add_argument("--toy", action="store_true", help="toy sizes, as on a machine without an accelerator")
    parser.add_argument("--batch", type=int, help="images in a batch (default: by the memory)")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels of what is not installed")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for accelerator.json and .png")
    return parser.parse_args()


@contextlib.contextmanager
def taken_along(folder: Path | None) -> Iterator[None]:
    """Packages to import, out of wheels, behind all that are installed; processes begun from here find them too."""
    wheels = [] if folder is None else sorted(folder.glob("*.whl"))
    if folder is not None and not wheels:
        raise SystemExit(f"accelerator.py: there are no wheels in {folder}")
    with tempfile.TemporaryDirectory() as unpacked:
        for wheel in wheels:
            zipfile.ZipFile(wheel).extractall(unpacked)
        sys.path.append(unpacked)
        try:
            yield
        finally:
            sys.path.remove(unpacked)


def without_accelerator() -> bool:
    """Judged without JAX's help: this process must leave the card to others."""
    from jaxdiff.base.accelerators import present

    return os.environ.get("JAX_PLATFORMS") == "cpu" or present() is None


def main() -> int:
    """1 if a fact does not hold, or could not be checked."""
    arguments = parsed()
    if arguments.minutes is not None and not 0 < arguments.minutes < math.inf:
        raise SystemExit("accelerator.py: --minutes must be above 0")
    with taken_along(arguments.wheels):
        toy = arguments.toy or without_accelerator()
        if toy:
            for name, value in AT_ONCE.items():
                os.environ.setdefault(name, value)
        return int(not measure(arguments.minutes, toy, arguments.batch, arguments.out).right)


if __name__ == "__main__":
    sys.exit(main())
