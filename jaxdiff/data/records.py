"""Images that have to be decoded, by several threads: Pillow lets others run while it works."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import numpy as np

from jaxdiff.data.ahead import ahead
from jaxdiff.data.images import decode, fit

Loaded = np.ndarray | ValueError  # an image, or why there is none


class AwayError(ValueError):
    """A file that cannot be read now, whatever is in it."""


def loaded(read: Callable[[], bytes], channels: int, size: tuple[int, int] | None) -> Loaded:
    """The image in a file, which `read` gives, cut to `size` (height, width), if any."""
    try:
        image = decode(read(), channels, size)
        return image if size is None else fit(image, *size)
    except OSError as error:
        return AwayError(str(error))
    except ValueError as error:
        return ValueError(str(error))


class Records(Protocol):
    """What a source knows before anything is decoded."""

    @property
    def title(self) -> str:
        """What they all are called, for people."""

    @property
    def identity(self) -> str:
        """All that the pixels depend on."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, height, width, channels), the unreadable ones included."""

    def name(self, number: int) -> str:
        """What one of them is called, for people."""

    def load(self, numbers: Sequence[int]) -> tuple[list[Loaded], np.ndarray | None]:
        """Some images, and their labels, int32, if these are read with the images."""


class Chunk(NamedTuple):
    """Some records, decoded."""

    numbers: np.ndarray  # of those that could be
    images: np.ndarray  # uint8 [numbers, height, width, channels]
    labels: np.ndarray | None  # of the same; None: there are none
    unreadable: list[tuple[str, str]]  # names and reasons of the others
    away: list[int]  # the numbers of those of them that may be read another time


def survey(records: Records) -> Iterator[Chunk]:
    """All records once, in order. A few chunks of at most 4 MB are decoded ahead of the one that is wanted."""
    count, *shape = records.shape
    size = int(np.clip(2**22 // np.prod(shape), 1, 64))
    chunks = (range(first, min(first + size, count)) for first in range(0, count, size))
    return ahead(_pool(), partial(_chunk, records), chunks, 2 * _threads())


def _chunk(records: Records, numbers: Sequence[int]) -> Chunk:
    loaded, labels = records.load(numbers)
    good = np.array([not isinstance(image, ValueError) for image in loaded], bool)
    images = np.empty((good.sum(), *records.shape[1:]), np.uint8)
    for i, image in enumerate(image for image in loaded if not isinstance(image, ValueError)):
        images[i] = image
    bad = [(records.name(n), str(why)) for n, why in zip(numbers, loaded, strict=True) if isinstance(why, ValueError)]
    away = [number for number, why in zip(numbers, loaded, strict=True) if isinstance(why, AwayError)]
    return Chunk(np.asarray(numbers)[good], images, None if labels is None else labels[good], bad, away)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images that are decoded when asked for. `numbers` are those of the records that can be."""

    records: Records
    numbers: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.records.shape[1:])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        numbers = self.numbers[rows]
        parts = np.array_split(numbers, max(1, min(len(numbers), 4 * _threads())))
        return np.concatenate(list(_pool().map(self._images, parts)))

    def _images(self, numbers: np.ndarray) -> np.ndarray:
        chunk = _chunk(self.records, numbers.tolist())
        if chunk.unreadable:
            name, reason = chunk.unreadable[0]
            raise ValueError(f"{name} could be read when it was first looked at, and now cannot: {reason}")
        return chunk.images


def _threads() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_threads(), thread_name_prefix="decode")
