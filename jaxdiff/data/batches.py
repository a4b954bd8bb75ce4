"""Batches as a pure function of (seed, step): after a restart there is nothing to restore."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jaxdiff.base.checks import whole
from jaxdiff.data.ahead import ahead


@dataclass(frozen=True, eq=False)
class Batches:
    """`batches[step]` are the same examples always, drawn without replacement: every example once an epoch.

    `fields` are arrays (or what gives rows for an array of numbers) with one entry an example. Step `step` is the
    global batch of `size` examples, of which this is the `part`-th of `parts` equal shares, in order. A batch may end
    one epoch and begin the next. `"index"` are the places of the rows in the global batch, uint32.
    """

    fields: Mapping[str, Any]
    size: int
    seed: int = 0
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        fields = {
            name: np.asarray(field) if isinstance(field, list | tuple | np.ndarray) else field
            for name, field in self.fields.items()
        }
        object.__setattr__(self, "fields", fields)
        counts = {name: len(field) for name, field in fields.items()}
        if not counts or len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(f"fields must have one entry for each of at least one example, got {counts}")
        if "index" in counts:
            raise ValueError("no field may be called index: a batch has its own")
        for name, least in (("size", 1), ("seed", 0), ("part", 0), ("parts", 1)):
            whole(name, getattr(self, name), least, below=2**32)
        if self.size % self.parts:
            raise ValueError(f"size must be divisible by the {self.parts} parts, got {self.size}")
        if self.part >= self.parts:
            raise ValueError(f"part must be below the {self.parts} parts, got {self.part}")

    def __len__(self) -> int:
        """The number of examples."""
        return len(next(iter(self.fields.values())))

    @property
    def steps_per_epoch(self) -> float:
        return len(self) / self.size

    def epoch(self, step: int) -> float:
        """How many times each example was seen before this step, on average."""
        return step * self.size / len(self)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """{name: [size / parts, ...]}."""
        return {name: values[0] for name, values in self._stacked(whole("a step", step), 1).items()}

    def _stacked(self, step: int, count: int) -> dict[str, np.ndarray]:
        """`count` batches, {name: [count, size / parts, ...]}."""
        share = self.size // self.parts
        index = np.arange(self.part * share, (self.part + 1) * share)
        places = (np.arange(step, step + count)[:, None] * self.size + index).ravel()
        rows = self._rows(places)
        batch = {name: _take(field, rows) for name, field in self.fields.items()}
        batch["index"] = np.tile(index.astype(np.uint32), count)
        return {name: values.reshape(count, share, *values.shape[1:]) for name, values in batch.items()}

    def _rows(self, places: np.ndarray) -> np.ndarray:
        """The examples at these rising places of the endless sequence of epochs."""
        epochs, offsets = np.divmod(places, len(self))
        first, last = int(epochs[0]), int(epochs[-1])
        if first == last:
            return _permutation(len(self), self.seed, first)[offsets]
        rows = np.empty_like(offsets)
        for epoch in range(first, last + 1):
            within = epochs == epoch
            rows[within] = _permutation(len(self), self.seed, epoch)[offsets[within]]
        return rows

    def ahead(
        self, start: int, stop: int, stride: int = 1, threads: int = 2, buffer: int = 4
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps start, start + 1, ..., stop - 1, got ready while the last one is used.

        With a stride above 1, that many at a time on a new leading axis, [stride, size / parts, ...]; fewer at the
        end if they do not divide the steps. `threads` get them ready, up to `buffer` of them; close the iterator, or
        let go of it, to stop these.
        """
        for name, value, least in (("start", start, 0), ("stride", stride, 1), ("threads", threads, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        return self._ahead(range(start, stop, stride), stop, stride, threads, buffer)

    def _ahead(
        self, starts: range, stop: int, stride: int, threads: int, buffer: int
    ) -> Iterator[dict[str, np.ndarray]]:
        def some(step: int) -> dict[str, np.ndarray]:
            return self[step] if stride == 1 else self._stacked(step, min(stride, stop - step))

        with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
            yield from ahead(pool, some, starts, buffer)


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch, from numpy's old generator, whose numbers never change."""
    order = np.random.RandomState(np.array([seed, epoch], np.uint32)).permutation(count)
    order.setflags(write=False)
    return order


def _take(field: Any, rows: np.ndarray) -> np.ndarray:
    # take copies whole rows and lets other threads run meanwhile
    return np.take(field, rows, axis=0) if isinstance(field, np.ndarray) else np.asarray(field[rows])
