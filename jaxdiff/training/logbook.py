"""What a run tells while it goes: a bar or plain lines, metrics.csv, TensorBoard events, loss.png, pictures."""

import contextlib
import csv
import io
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base import files, pictures

COLUMNS = ("step", "epoch", "loss", "gradient_norm", "learning_rate", "skipped", "images_per_second")


class Logbook:
    """Writes into the folder of a run; what was written after step `start`, from which it goes on, is taken back."""

    def __init__(self, folder: Path, start: int, steps: int, wandb: Any = None, quiet: bool = False):
        from tensorboardX import SummaryWriter
        from tqdm import tqdm

        self.folder, self._wandb, self._quiet = folder, wandb, quiet
        self._rows = [row for row in read_metrics(folder / "metrics.csv") if row["step"] <= start]
        kept = [COLUMNS, *(tuple(row.values()) for row in self._rows)]
        files.write(folder / "metrics.csv", "".join(map(_line, kept)))
        self._file = open(folder / "metrics.csv", "a", encoding="utf-8")  # noqa: SIM115
        self._events = SummaryWriter(str(folder / "events"), purge_step=start + 1)
        self._terminal = sys.stderr.isatty() and not quiet
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not self._terminal, dynamic_ncols=True)
        self._step, self._steps, self._began, self._start = start, steps, time.monotonic(), start

    def advance(self, step: int) -> None:
        self._bar.update(step - self._step)
        self._step = step

    def write(self, row: dict[str, float]) -> None:
        """One row of metrics."""
        self._rows.append(row)
        self._file.write(_line(tuple(_number(row[name]) for name in COLUMNS)))
        self._file.flush()
        for name in COLUMNS[2:]:
            if math.isfinite(row[name]):
                self._events.add_scalar(name, row[name], int(row["step"]))
        if self._wandb is not None:
            self._wandb.log({name: row[name] for name in COLUMNS[1:]}, step=int(row["step"]))
        rate = f"lr {row['learning_rate']:.2g}, " if math.isfinite(row["learning_rate"]) else ""
        shown = f"loss {row['loss']:.4g}, {rate}{row['images_per_second']:.0f} images/s"
        if self._terminal:
            self._bar.set_postfix_str(shown)
        else:
            self.say(f"step {int(row['step'])}/{self._steps}, epoch {row['epoch']:.2f}, {shown}, {self._left()} left")

    def _left(self) -> str:
        share = (time.monotonic() - self._began) / max(self._step - self._start, 1)
        seconds = int(share * (self._steps - self._step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def say(self, text: str) -> None:
        """A line that does not disturb the bar."""
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)
            sys.stderr.flush()

    def picture(self, step: int, picture: np.ndarray) -> Path:
        """Samples at a step, and the loss so far beside them in loss.png."""
        path = self.folder / "samples" / f"step_{step:06}.png"
        path.parent.mkdir(exist_ok=True)
        pictures.save(path, picture)
        self._events.add_image("samples", picture, step, dataformats="HWC")
        if self._wandb is not None:
            self._wandb.log({"samples": self._wandb.Image(picture)}, step=step)
        self.plot()
        return path

    def plot(self) -> None:
        """loss.png: each row's loss, and smoothed over a twentieth of the run."""
        if any(row["loss"] > 0 for row in self._rows):
            from matplotlib.figure import Figure

            figure = Figure(figsize=(7, 4), layout="constrained")
            axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
            steps, losses = (np.array([row[name] for row in self._rows]) for name in ("step", "loss"))
            axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
            axes.plot(steps, smoothed(losses, max(len(losses) // 20, 1)), color="tab:blue")
            axes.grid(alpha=0.3)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=120)
            files.write(self.folder / "loss.png", buffer.getvalue())

    def close(self) -> None:
        self.plot()
        self._bar.close()
        self._file.close()
        self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` finite values at each place."""
    finite = np.isfinite(values)
    sums, counts = (np.cumsum(np.append(0.0, v)) for v in (np.where(finite, values, 0.0), finite))
    first = np.maximum(np.arange(1, len(values) + 1) - width, 0)
    counted = np.maximum(counts[1:] - counts[first], 1)
    return (sums[1:] - sums[first]) / counted


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; a line that was cut off by a crash, and what follows it, is left out."""
    rows: list[dict[str, float]] = []
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            lines = file.read().splitlines(keepends=True)
        for values in csv.reader(line for line in lines[1:] if line.endswith("\n")):
            with contextlib.suppress(ValueError):
                rows.append(dict(zip(COLUMNS, map(float, values), strict=True)))
    return rows


def _number(value: float) -> str:
    """As few digits as tell the number apart in its precision."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _line(values: tuple[Any, ...]) -> str:
    return ",".join(value if isinstance(value, str) else _number(value) for value in values) + "\n"
