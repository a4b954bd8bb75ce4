"""Where a run is watched while it goes: lines in a log, a bar on a terminal, a panel in a notebook."""

import math
import sys
import time
from pathlib import Path

from tqdm import tqdm

from jaxdiff.base import notebook
from jaxdiff.base.text import shown
from jaxdiff.base.words import plural, speed
from jaxdiff.training.state import HELD_OUT

OFTEN = 0.5  # seconds between two looks at a panel


class Screen:
    """Shows nothing."""

    def __init__(self, start: int, steps: int) -> None:
        self._began, self._start, self._step, self._steps = time.monotonic(), start, start, steps

    def advance(self, step: int, steps: int) -> None:
        self._step, self._steps = step, steps

    def write(self, row: dict[str, float]) -> None:
        """A row of metrics."""

    def show(self, samples: Path, loss: Path) -> None:
        """Pictures of how far it is."""

    def close(self) -> None:
        """The end."""

    def _left(self) -> str:
        share = (time.monotonic() - self._began) / max(self._step - self._start, 1)
        seconds = int(share * (self._steps - self._step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


class Lines(Screen):
    """A line for each row of metrics: in a log."""

    def write(self, row: dict[str, float]) -> None:
        where = f"step {int(row['step'])}/{self._steps}, epoch {row['epoch']:.2f}"
        say(f"{where}, {_described(row)}, {self._left()}")


class Bar(Screen):
    """A bar that moves, with the last row beside it: in a terminal."""

    def __init__(self, start: int, steps: int) -> None:
        super().__init__(start, steps)
        self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)

    def advance(self, step: int, steps: int) -> None:
        self._bar.total = steps
        self._bar.update(step - self._step)
        super().advance(step, steps)

    def write(self, row: dict[str, float]) -> None:
        self._bar.set_postfix_str(_described(row))

    def close(self) -> None:
        self._bar.close()


class Below(Screen):
    """Below the cell of a notebook."""

    def __init__(self, start: int, steps: int) -> None:
        super().__init__(start, steps)
        self._panel, self._row, self._seen = notebook.Panel("progress", "loss", "samples"), "", -math.inf

    def advance(self, step: int, steps: int) -> None:
        super().advance(step, steps)
        if time.monotonic() > self._seen + OFTEN:
            self._seen = time.monotonic()
            self._look(self._left())

    def write(self, row: dict[str, float]) -> None:
        self._row = f", epoch {row['epoch']:.2f}, {_described(row)}"

    def show(self, samples: Path, loss: Path) -> None:
        for name, path in (("samples", samples), ("loss", loss)):
            if path.exists():
                self._panel.picture(name, path.read_bytes())

    def close(self) -> None:
        self._look(f"{plural(self._step - self._start, 'step')} done")

    def _look(self, last: str) -> None:
        said = f"step {self._step}/{self._steps}{self._row}, {last}"
        self._panel.progress("progress", self._step, self._steps, said)


def screen(start: int, steps: int) -> Screen:
    """The one that is there."""
    return (Below if notebook.is_here() else Bar if sys.stderr.isatty() else Lines)(start, steps)


def say(text: str) -> None:
    """A line that does not disturb a bar."""
    tqdm.write(shown(text), file=sys.stderr)
    sys.stderr.flush()


def _described(row: dict[str, float]) -> str:
    rate = f"lr {row['learning_rate']:.2g}, " if math.isfinite(row["learning_rate"]) else ""
    held_out = f"held out {row[HELD_OUT]:.4g}, " if HELD_OUT in row else ""
    return f"loss {row['loss']:.4g}, {held_out}{rate}{speed(row['images_per_second'])}"
