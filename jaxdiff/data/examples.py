"""What a source gives, and what a source is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Cache = bool | Literal["auto"]
LARGEST = 2**12  # pixels, of a side


class Images(Protocol):
    """n images in memory, on the disk, or decoded when asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, height, width, channels)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """uint8 [rows, height, width, channels]."""


@dataclass(frozen=True, eq=False)
class Examples:
    """All examples of a data set, by number."""

    images: Images
    labels: np.ndarray | None = None  # int32 [n]
    classes: tuple[str, ...] | None = None  # what the labels mean
    captions: tuple[str, ...] | None = None
    unreadable: tuple[tuple[str, str], ...] = ()  # files left out, and why
    names: str = ""  # what tells these examples from others, wherever they are kept

    def __post_init__(self) -> None:
        for name, values in (("labels", self.labels), ("captions", self.captions)):
            if values is not None and len(values) != len(self.images):
                raise ValueError(f"needs one of {name} for each of {len(self.images)} images, got {len(values)}")

    def __len__(self) -> int:
        return len(self.images)


@runtime_checkable
class Source(Protocol):
    """Where examples come from: a frozen dataclass."""

    def open(self, cache: Cache = "auto") -> Examples:
        """The examples. `cache` is whether decoded images may be kept on the disk, see `jaxdiff.data.cache`."""


def opened(source: Source | Callable[[], Examples]) -> Examples:
    """The examples of a source, or of a function, which may be anyone's."""
    found = source() if isinstance(source, FunctionType) else source.open()  # type: ignore[union-attr]
    name = getattr(source, "__name__", type(source).__name__)
    if not isinstance(found, Examples):
        raise ValueError(f"the data of {name} must be Examples(images, ...), got {type(found).__name__}")
    shape, kind = np.shape(found.images), getattr(found.images, "dtype", np.dtype(np.uint8))
    if len(shape) != 4 or kind != np.uint8:
        raise ValueError(f"the images of {name} must be uint8 [n, height, width, channels], got {kind} {list(shape)}")
    return found


def mixed(count: int, most: int | None = None) -> np.ndarray:
    """The numbers of `count` examples, or of some, always in the same order: their own may be that of classes."""
    return np.random.RandomState(0).permutation(count)[: most or count]


def check_images(size: int | tuple[int, int] | None, channels: int | None) -> None:
    """Refuses what images cannot be made to be; None: as they are."""
    if size is not None:
        height_and_width(size)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 (gray), 3 (colour) or None, got {channels!r}")


def chosen(names: Sequence[str], *usual: str) -> str | None:
    """The first usual one of these names, or the only one, or None."""
    return next((name for name in usual if name in names), names[0] if len(names) == 1 else None)


def no_split(name: str, known: Iterable[str], split: str, why: str) -> ValueError:
    """What to raise if a data set has no such part."""
    return ValueError(f"{name} has {', '.join(known)}, and parts of these, not {split!r}: {why}")


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Of a size, which is a number if they are equal."""
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or not all(type(side) is int and 0 < side <= LARGEST for side in pair):
        legal = f"a whole number of pixels from 1 to {LARGEST}, or (height, width)"
        raise ValueError(f"size must be {legal}, got {size!r}")
    return pair[0], pair[1]


def whole(field: Any) -> np.ndarray:
    """All rows, of which some may have to be made."""
    if isinstance(field, np.ndarray):
        return field
    numbers = np.array_split(np.arange(len(field)), -(-len(field) // 1024))
    first = np.asarray(field[numbers[0]])
    rows = np.empty((len(field), *first.shape[1:]), first.dtype)
    for some in numbers:
        rows[some] = field[some]
    return rows
