"""metrics.csv: rows of numbers, of which any that can be read come back bit for bit."""

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base import files
from jaxdiff.base.console import warn

COLUMNS = ("step", "epoch", "loss", "gradient_norm", "learning_rate", "skipped", "images_per_second")


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` finite values at each place."""
    finite = np.isfinite(values)
    sums, counts = (np.cumsum(np.append(0.0, v)) for v in (np.where(finite, values, 0.0), finite))
    first = np.maximum(np.arange(1, len(values) + 1) - width, 0)
    counted = np.maximum(counts[1:] - counts[first], 1)
    return (sums[1:] - sums[first]) / counted


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv that can be read."""
    return _parsed(path)[0]


def seconds(rows: list[dict[str, float]], batch_size: int) -> float:
    """How long the steps took, of which these rows tell the speed."""
    steps = np.diff([0.0, *(row["step"] for row in rows)])
    rates = np.array([row["images_per_second"] for row in rows])
    return float(np.sum(steps * batch_size / np.where(rates > 0, rates, np.inf)))


def gone_on_from(path: Path) -> list[dict[str, float]]:
    """The rows that can be read. If there is more in the file, a line cut short by a crash say, it is kept aside."""
    rows, whole = _parsed(path)
    if not whole:
        aside = files.unused(path.with_name("metrics_old.csv"))
        os.replace(path, aside)
        warn(f"{path} has lines that are no rows of metrics: {len(rows)} rows go on, the file is now {aside.name}")
    return rows


def _parsed(path: Path) -> tuple[list[dict[str, float]], bool]:
    """The rows, and whether these are all there is."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file: move it away, a run keeps its metrics there")
    if not path.exists() or path.stat().st_size == 0:
        return [], True
    rows: list[dict[str, float]] = []
    whole = True
    with open(path, "rb") as file:
        columns = _columns(file.readline(_LONGEST))
        ours = bool(columns)
        while ours and (line := file.readline(_LONGEST)):
            row = _row(line, columns)
            if row is None:
                whole = False
            else:
                rows.append(row)
            if len(line) == _LONGEST:  # no text: it may go on for ever
                return rows, False
    return rows, ours and whole


_LONGEST = 10_000  # bytes of a line


def _columns(line: bytes) -> tuple[str, ...]:
    """What a header names, if it is of ours and ends: the columns of all runs, and any others."""
    try:
        names = tuple(line.decode("ascii").removesuffix("\n").split(","))
    except ValueError:
        return ()
    legal = names[: len(COLUMNS)] == COLUMNS and len(set(names)) == len(names) <= 100
    return names if legal and line.endswith(b"\n") and all(re.fullmatch(r"\w+", name) for name in names) else ()


def _row(line: bytes, columns: tuple[str, ...]) -> dict[str, float] | None:
    """A whole line's numbers; those of all runs must be there."""
    try:
        texts = line.decode("ascii").removesuffix("\n").split(",")
        numbers = {name: float(text) for name, text in zip(columns, texts, strict=True) if text or name in COLUMNS}
    except ValueError:
        return None
    return numbers if line.endswith(b"\n") and math.isfinite(numbers["step"]) else None


def number(value: float) -> str:
    """As few digits as tell the number apart in its precision."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def line_of(values: tuple[Any, ...]) -> str:
    """A line of the file."""
    return ",".join(value if isinstance(value, str) else number(value) for value in values) + "\n"
