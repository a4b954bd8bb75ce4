"""What is kept of a set of images: sums over all of them, and the features of some."""

import io
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import eigh

from jaxdiff.base import files

KEPT = 10_000  # images whose features are kept, for what needs neighbours: 80 MB of 2,048 features
WIDEST = 2**13  # features: their covariance has 537 MB
AT_ONCE = 1024  # images that enter the sums together, which are large
SPLITS = 10  # parts of the Inception Score


class Summary:
    """Of `count` images, added batch by batch; in float64, so that their order does not matter."""

    def __init__(self, count: int) -> None:
        self.count, self.done = count, 0
        self._arrays: dict[str, np.ndarray] = {}
        self._waiting: list[np.ndarray] = []  # rows that are not in the sums yet

    @classmethod
    def of(cls, rows: np.ndarray) -> "Summary":
        made = cls(len(rows))
        made.add(rows, None)
        made.close()
        return made

    def add(self, rows: np.ndarray, logits: np.ndarray | None) -> None:
        if not self.done:
            width = rows.shape[1]
            if width > WIDEST:
                raise ValueError(f"features are at most {WIDEST:,} numbers an image, got {width:,}")
            self._arrays = {"total": np.zeros(width), "products": np.zeros((width, width))}
            self._arrays["rows"] = np.zeros((min(self.count, KEPT), width), np.float32)
            if logits is not None:
                self._arrays["shares"] = np.zeros((SPLITS, logits.shape[1]))
                self._arrays["entropy"], self._arrays["counts"] = np.zeros(SPLITS), np.zeros(SPLITS)
                self._arrays["guesses"] = np.zeros(self.count, np.int32)
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= AT_ONCE:
            self.close()
        kept = self._arrays["rows"][self.done : self.done + len(rows)]
        kept[:] = rows[: len(kept)]
        if logits is not None:
            self._score(logits.astype(np.float64))
        self.done += len(rows)

    def close(self) -> None:
        """Adds what waits."""
        if self._waiting:
            wide = np.concatenate(self._waiting).astype(np.float64)
            self._arrays["total"] += wide.sum(0)
            self._arrays["products"] += wide.T @ wide
            self._waiting.clear()

    def _score(self, logits: np.ndarray) -> None:
        """The sums of the Inception Score, and which class is seen."""
        places = np.arange(self.done, self.done + len(logits))
        log_p = logits - logits.max(1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
        split = places * SPLITS // self.count
        np.add.at(self._arrays["shares"], split, np.exp(log_p))
        np.add.at(self._arrays["entropy"], split, -(np.exp(log_p) * log_p).sum(1))
        np.add.at(self._arrays["counts"], split, 1)
        self._arrays["guesses"][places] = logits.argmax(1)

    def __getattr__(self, name: str) -> np.ndarray:
        if name.startswith("_") or name not in self._arrays:
            raise AttributeError(name)
        return self._arrays[name]

    @property
    def classified(self) -> bool:
        """Whether the features are those of a classifier."""
        return "guesses" in self._arrays

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        centred = self.products - self.count * np.outer(self.mean, self.mean)
        return centred / (self.count - 1)

    @cached_property
    def root(self) -> np.ndarray:
        """Of the covariance. It takes seconds, and of real images it is wanted for each set of samples."""
        values, vectors = eigh(self.covariance)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)

    # --- a file ---------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = io.BytesIO()
        np.savez(stored, **self._arrays, count=np.int64(self.count))  # type: ignore[arg-type]
        files.write(path, stored.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Summary | None":
        """None if there is no such file that can be read."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                found: dict[str, Any] = {name: stored[name] for name in stored.files}
            made = cls(int(found.pop("count")))
            width = found["total"].shape
            whole = width == found["rows"].shape[1:] and found["products"].shape == 2 * width
        except Exception:  # a damaged file leads to errors of many classes
            return None
        made.done, made._arrays = made.count, found
        return made if whole else None
