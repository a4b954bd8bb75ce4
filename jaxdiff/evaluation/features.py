"""What turns images into rows of numbers whose distances mean something."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.base.devices import Devices
from jaxdiff.data.examples import Images
from jaxdiff.nets.machine import in_full

# uint8 images [n, height, width, channels] -> features [n, d] and, of a classifier, logits [n, classes]
Compute = Callable[[Any, Any], tuple[Any, Any]]
LITE0, INCEPTION = "lite0", "inception"


@dataclass(frozen=True, eq=False)
class Features:
    """A function of images, by its name and a hash of all that its numbers depend on."""

    name: str
    hash: str
    compute: Compute  # (params, images)
    params: Any = None
    compiled: bool = True  # else it is called as it is, with numpy's arrays
    count: int | None = None  # how many, where it is known beforehand
    classes: tuple[str, ...] = ()  # that its logits are of, by name or number
    batch_size: int = 32  # what a CPU's cache holds; more for each device of another kind

    @property
    def is_inception(self) -> bool:
        """Whether a Fréchet distance of these features may be called FID (Heusel et al. 2017)."""
        return self.name == INCEPTION

    @cached_property
    def _group(self) -> Devices:
        return Devices()

    @cached_property
    def _ready(self) -> tuple[Any, Any]:
        return jax.jit(self.compute), self._group.replicate(self.params)

    @property
    def size(self) -> int:
        """Of a batch."""
        on_cpu = self._group.devices[0].platform == "cpu"
        return self._group.round_up(self._group.for_each(self.batch_size if on_cpu else 8 * self.batch_size))

    def check(self, images: Images) -> None:
        """Refuses images that it cannot take."""
        one = np.asarray(images[np.arange(1)])
        if self.compiled:
            jax.eval_shape(self.compute, self.params, one)
        else:
            self.of(one)

    def of(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Of at most `size` images, all by one program."""
        if not self.compiled:
            return _checked(self.name, *self.compute(self.params, images), len(images))
        run, params = self._ready
        padded = images[np.resize(np.arange(len(images)), self.size)]
        with in_full():
            found = run(params, self._group.shard(padded))
        rows, logits = (None if each is None else np.asarray(each)[: len(images)] for each in found)
        return _checked(self.name, rows, logits, len(images))

    def batches(self, images: Images, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Of all images from `start` on."""
        for first in range(start, len(images), self.size):
            yield self.of(np.asarray(images[np.arange(first, min(first + self.size, len(images)))]))


def _checked(name: str, rows: Any, logits: Any, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        rows = np.asarray(rows, np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"features must be numbers, [n, d]; {name} gave {type(rows).__name__}") from None
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] < 1:
        raise ValueError(f"features must be a row for each of {count} images, [n, d]; {name} gave {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise ValueError(f"features of {name} are not finite: look at its weights, and at the images")
    return rows, logits


def in_colour(images: Array) -> Array:
    """uint8 [..., 1 or 3] as floats from 0 to 255, [..., 3]."""
    return jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:-1], 3))
