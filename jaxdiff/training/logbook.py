"""What a run tells while it goes: a bar or plain lines, metrics.csv, TensorBoard events, pictures, its page."""

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jaxdiff.base import files, pictures
from jaxdiff.training import page
from jaxdiff.training.metrics import COLUMNS, gone_on_from, line_of, number, smoothed
from jaxdiff.training.screen import Screen, say, screen
from jaxdiff.training.state import HELD_OUT


class Logbook:
    """Writes into the folder of a run; what was written after step `start`, from which it goes on, is taken back.

    `more` are columns beside those that all runs have; rows without them stay as they are.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        steps: int,
        wandb: Any = None,
        quiet: bool = False,
        more: Sequence[str] = (),
    ):

        from jaxdiff.training.events import Events

        self.folder, self._wandb, self._quiet = folder, wandb, quiet
        self._rows = [row for row in gone_on_from(folder / "metrics.csv") if row["step"] <= start]
        self._columns = tuple(dict.fromkeys([*COLUMNS, *(name for row in self._rows for name in row), *more]))
        kept = [self._columns, *map(self._values, self._rows)]
        files.write(folder / "metrics.csv", "".join(map(line_of, kept)))
        self._file = open(folder / "metrics.csv", "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        self._events = Events(folder / "events", start + 1)
        self._start, self._steps = start, steps
        self._screen = Screen(start, steps)  # until it begins
        page.write(folder)

    def begin(self) -> None:
        """From here on time is counted: what comes before, compiling above all, comes once."""
        if not self._quiet:
            self._screen = screen(self._start, self._steps)

    def advance(self, step: int, steps: int) -> None:
        self._screen.advance(step, steps)

    def write(self, row: dict[str, float]) -> None:
        """One row of metrics."""
        self._rows.append(row)
        self._file.write(line_of(self._values(row)))
        self._file.flush()
        self._events.scalars(
            int(row["step"]),
            {name: value for name, value in row.items() if name not in COLUMNS[:2] and math.isfinite(value)},
        )
        if self._wandb is not None:
            self._wandb.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
        self._screen.write(row)

    def _values(self, row: dict[str, float]) -> tuple[str, ...]:
        """In the order of the columns; nothing where the row has none."""
        return tuple(number(row[name]) if name in row else "" for name in self._columns)

    def say(self, text: str) -> None:
        if not self._quiet:
            say(text)

    def picture(self, step: int, picture: np.ndarray) -> Path:
        """Samples at a step, and the loss so far beside them in loss.png; the page shows both."""
        path = self.folder / "samples" / f"step_{step:06}.png"
        path.parent.mkdir(exist_ok=True)
        pictures.save(path, picture)
        self._events.image(step, "samples", picture)
        if self._wandb is not None:
            self._wandb.log({"samples": self._wandb.Image(picture)}, step=step)
        self.plot()
        page.write(self.folder)
        self._screen.show(path, self.folder / "loss.png")
        return path

    def plot(self) -> None:
        """loss.png: each row's loss, and smoothed over a twentieth of the run."""
        if any(row["loss"] > 0 for row in self._rows):
            from matplotlib.figure import Figure

            figure = Figure(figsize=(7, 4), layout="constrained")
            axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
            steps, losses = (np.array([row[name] for row in self._rows]) for name in ("step", "loss"))
            axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
            axes.plot(steps, smoothed(losses, max(len(losses) // 20, 1)), color="tab:blue", label="training")
            held_out = [(row["step"], row[HELD_OUT]) for row in self._rows if HELD_OUT in row]
            if held_out:
                axes.plot(*zip(*held_out, strict=True), color="tab:orange", marker="o", markersize=3, label="held out")
                axes.legend()
            axes.grid(alpha=0.3)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=120)
            files.write(self.folder / "loss.png", buffer.getvalue())

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Closes. An error that is on its way is told, and not what the same full disk makes of the last lines."""
        with contextlib.suppress(*[OSError] if error else []):
            self.close()

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # all of them, whichever fails
            for each in (self._screen, self._file, self._events):
                closing.callback(each.close)
            if self._wandb is not None:
                closing.callback(self._wandb.finish)
            self.plot()
            page.write(self.folder)
