"""How likely a model finds images: log p along its ODE, or bounded; batch by batch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.base.checks import require, whole
from jaxdiff.base.devices import Devices
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.likelihood import FlowODE, rademacher, variational_bound
from jaxdiff.core.process import Process
from jaxdiff.core.rng import image_key
from jaxdiff.core.sampling import join, split
from jaxdiff.nets.machine import in_full

EXACT_UP_TO = 256  # numbers in an image: the exact trace takes as many backward passes


@dataclass(frozen=True)
class Likelihood:
    """How log p is found: by the probability-flow ODE, or by the variational bound, from so many `evaluations`.

    `probes` are those of the divergence; None: its exact trace in images of up to 256 numbers, else one. The 256 gray
    levels of stored images lie at -1, ..., 1; if they were `dequantized` in training, in the middles of 256 equal parts
    of [-1, 1].
    """

    bound: bool = False
    evaluations: int = 32
    probes: int | None = None
    ode: FlowODE = FlowODE()
    dequantized: bool = False

    def __post_init__(self) -> None:
        whole("evaluations", self.evaluations, 1, 2**16)
        require(self.probes is None or 1 <= self.probes <= 2**16, "probes from 1 to 65536, or None", self)

    @property
    def gap(self) -> float:
        """Between two gray levels."""
        return 2 / 256 if self.dequantized else 2 / 255

    @property
    def levels(self) -> np.ndarray:
        first = self.gap / 2 - 1 if self.dequantized else -1.0
        return np.asarray(first + self.gap * np.arange(256), np.float32)

    def batches(
        self,
        denoise: Denoiser,
        process: Process,
        images: Any,
        conditions: Any = None,
        *,
        t_max: float = 1.0,
        seed: int = 0,
        first: int = 0,
        batch_size: int = 32,
    ) -> Iterator[np.ndarray]:
        """log p of each image in nats: of floats in [-1, 1] the density, of uint8 the probability.

        `first` is the number of the first image: with the seed, a number names what is drawn for an image.
        """
        kind = np.dtype(getattr(images, "dtype", np.uint8))
        require(kind == np.uint8 or kind.kind == "f", "images of uint8, or floats in [-1, 1]", kind)
        group, count = Devices(), len(images)
        size = group.round_up(min(whole("batch_size", batch_size, 1), count))
        inputs, rest = split(denoise)
        inputs = group.replicate(inputs)
        given = () if conditions is None else (np.asarray(conditions),)
        for start in range(0, count, size):
            places = np.resize(np.arange(start, min(start + size, count)), size)
            own = (first + places).astype(np.uint32), np.asarray(images[places]), tuple(each[places] for each in given)
            with in_full():  # the ODE is solved to a tolerance that half precision never reaches
                found = _of_batch(rest, process, self, t_max, inputs, np.uint32(seed), *group.shard(own))
            yield np.asarray(found)[: min(size, count - start)]

    def of_one(self, denoise: Denoiser, process: Process, key: Array, image: Array, t_max: float) -> Array:
        for_place, for_rest = jax.random.split(key)
        stored = image.dtype == jnp.uint8
        levels = jnp.asarray(self.levels)
        x_0 = levels[image.astype(jnp.int32)] if stored else image
        if self.bound:
            return -variational_bound(
                denoise, process, x_0, for_rest, self.evaluations, levels if stored else None, t_max
            )
        if stored:  # the density at a place within the gray level, times its width: on average a lower bound too
            x_0 = x_0 + self.gap * (jax.random.uniform(for_place, x_0.shape) - 0.5)
        exact = self.probes is None and x_0.size <= EXACT_UP_TO
        probes = None if exact else rademacher(for_rest, self.probes or 1, x_0.shape)
        _, density = self.ode.noise(denoise, process, x_0, probes, t_max)
        return density + x_0.size * math.log(self.gap) if stored else density


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _of_batch(
    rest: Any, process: Process, how: Likelihood, t_max: float, inputs: Any, seed: Array, index: Array, images: Array,
    given: Any,
) -> Array:  # fmt: skip
    model = join(inputs, rest)

    def one(index: Array, image: Array, given: Any) -> Array:
        return how.of_one(lambda x, t: model(x, t, *given), process, image_key(seed, index), image, t_max)

    return jax.vmap(one)(index, images, given)


def bits_per_dimension(nats: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """-log2 p, for each number of an image."""
    return -np.asarray(nats) / (math.prod(shape) * math.log(2))
