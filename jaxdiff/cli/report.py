"""What evaluate.py leaves: evaluation.json, which says what each number means, a table, and plots."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxdiff
from jaxdiff.base import files
from jaxdiff.base.devices import is_first
from jaxdiff.evaluation.distances import Estimate, classifier_score, frechet, frechet_at_infinity, kid
from jaxdiff.evaluation.features import Features
from jaxdiff.evaluation.neighbours import fidelity
from jaxdiff.evaluation.summary import Summary

_FORM = 1  # of evaluation.json
COLUMNS = {  # of the table: what stands in evaluation.json, the heading, decimals
    "frechet": ("Fréchet", 4),
    "frechet_at_infinity": ("n -> inf", 4),
    "kernel": ("kernel x1000", 3),
    "score": ("score", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "density": ("density", 3),
    "coverage": ("coverage", 3),
    "accuracy": ("labels right", 4),
}


def compared(samples: Summary, reference: Summary, features: Features) -> dict[str, Any]:
    """All distances between two sets, each with its standard error."""
    distance = frechet(samples, reference)
    numbers: dict[str, Any] = {"frechet": distance}
    at_infinity = frechet_at_infinity(distance.value, samples, reference)
    if at_infinity is not None:
        numbers["frechet_at_infinity"] = Estimate(at_infinity)
    each = kid(samples, reference, scaled=not features.is_inception)
    numbers["kernel"] = Estimate(1000 * each.value, 1000 * each.error)
    if samples.classified:
        numbers["score"] = classifier_score(samples)
    numbers |= fidelity(samples, reference)._asdict()
    return {name: _plain(estimate) for name, estimate in numbers.items()}


def accuracy(guesses: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The share of images that show their labels, and of each class."""
    right = guesses == labels
    known = np.unique(labels)
    share = Estimate(float(right.mean()), float(right.std() / math.sqrt(len(right))))
    return _plain(share) | {"of each class": {int(label): float(right[labels == label].mean()) for label in known}}


def _plain(estimate: Estimate) -> dict[str, Any]:
    error = estimate.error
    return {"value": float(estimate.value)} | ({"error": float(error)} if math.isfinite(error) else {})


def versions() -> dict[str, str]:
    return {"jaxdiff": jaxdiff.__version__, "jax": jax.__version__}


class Report:
    """The results in an evaluation.json, by what they are of; each is written as soon as it is there."""

    def __init__(self, path: Path) -> None:
        self.path, self.results = path, list[dict[str, Any]]()
        if path.exists():
            self._read()

    def _read(self) -> None:
        known = files.read_json(self.path)
        results = known.get("results", [None])
        legal = known.get("form") == _FORM and isinstance(results, list)
        if not legal or not all(isinstance(each, dict) and {"of", "numbers"} <= each.keys() for each in results):
            raise ValueError(f"{self.path} is no evaluation.json that can be added to: move it away")
        self.results = results

    def find(self, of: dict[str, Any]) -> dict[str, Any] | None:
        """The result of the same, if it is there."""
        same = json.loads(json.dumps(of))
        return next((result["numbers"] for result in self.results if result["of"] == same), None)

    def add(self, of: dict[str, Any], numbers: dict[str, Any]) -> None:
        if not is_first():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with files.hold(self.path.with_name(f".{self.path.name}.lock"), wait=True):
            if self.path.exists():  # another process may have added to it
                self._read()
            self.results.append({"of": of, "numbers": numbers, "versions": versions()})
            files.write(self.path, json.dumps({"form": _FORM, "results": self.results}, indent=1) + "\n")


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """A row of numbers for each name, in the columns that any has."""
    columns = [column for column in COLUMNS if any(column in numbers for _, numbers in rows)]
    lines = [["", *(COLUMNS[column][0] for column in columns)]]
    for name, numbers in rows:
        lines.append([name, *(_cell(numbers.get(column), COLUMNS[column][1]) for column in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_placed(cells, widths)).rstrip() for cells in lines)


def _placed(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(cells, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]


def _cell(number: dict[str, Any] | None, decimals: int) -> str:
    if number is None:
        return ""
    error = f" +-{number['error']:.{decimals}f}" if "error" in number else ""
    return f"{number['value']:.{decimals}f}{error}"


def plot(
    path: Path, what: str, values: Sequence[Any], each: Sequence[dict[str, Any]], floor: dict[str, Any] | None
) -> None:
    """The Fréchet distance, precision and recall against what was varied."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(xlabel=what, ylabel="Fréchet distance")
    right.set(xlabel=what, ylim=(0, 1.05))
    heights = [numbers["frechet"]["value"] for numbers in each]
    left.errorbar(values, heights, [numbers["frechet"]["error"] for numbers in each], marker="o", label="samples")
    if floor is not None:
        left.axhline(floor["frechet"]["value"], color="gray", linestyle="--", label="real images")
    left.set_ylim(bottom=0)
    for name in ("precision", "recall", "accuracy"):
        if all(name in numbers for numbers in each):
            right.plot(values, [numbers[name]["value"] for numbers in each], marker="o", label=COLUMNS[name][0])
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
