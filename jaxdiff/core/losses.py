"""What a network is trained on: one line of squared error, a weighting of log-SNR, a distribution of times.

All of it is for one example; a batch is `jax.vmap` over keys and examples, and a mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.core.denoise import NetworkDenoiser, promoted
from jaxdiff.core.process import Image, Scalar
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.core.times import Times, UniformTimes
from jaxdiff.core.weightings import Weighting


@dataclass(frozen=True)
class DenoisingLoss:
    """|F - target|², the squared error of the network's output; the mean over the image.

    That is the default, for any prediction; with a weighting the loss is weighting(t) |x_0 - D(x_t, t)|².
    With probability `drop` an example's condition is replaced by `null`, for classifier-free guidance: each example
    flips a coin of its own.
    """

    weighting: Weighting | None = None
    times: Times = UniformTimes()
    drop: float = 0.0
    null: Any = None

    def __post_init__(self) -> None:
        for choice in (self.times,) if self.weighting is None else (self.weighting, self.times):
            legal = callable(choice) and not isinstance(choice, type)
            require(legal, "functions such as simple and UniformTimes()", self)
        require(0 <= self.drop <= 1, "0 <= drop <= 1", self)
        require(not self.drop or self.null is not None, "a null condition to drop to", self)

    def __call__(
        self, model: NetworkDenoiser, key: KeyArray, x_0: Image, condition: Any = None, u: Scalar | None = None
    ) -> Scalar:
        """The loss of one example. `u` in [0, 1) places it in the distribution of times; drawn from `key` if None."""
        require(isinstance(model, NetworkDenoiser), "a NetworkDenoiser to train", model)
        require(jnp.issubdtype(x_0.dtype, jnp.floating), "images of floating point numbers", x_0.dtype)
        require(not self.drop or condition is not None, "the condition that it is to drop now and then", self)
        for_noise, for_time, for_drop = jax.random.split(key, 3)
        t = jnp.minimum(self.times(model.process, jax.random.uniform(for_time) if u is None else u), model.t_max)
        point = model.process.at(t)
        x_t = point.perturb(x_0, normal(for_noise, x_0.shape, x_0.dtype)).astype(x_0.dtype)
        if self.drop:
            dropped = jax.random.bernoulli(for_drop, self.drop)
            condition = jax.tree.map(partial(_choose, dropped), self.null, condition)
        given = () if condition is None else (condition,)
        c_skip, c_out = model.prediction(point.alpha, point.sigma)
        target = (x_0 - c_skip * x_t) / c_out
        loss = jnp.mean((model.output(x_t, t, *given) - target) ** 2)
        return loss if self.weighting is None else self.weighting(point) * c_out**2 * loss


def _choose(dropped: Array, null: Array, given: Array) -> Array:
    given, null = promoted(given, null)
    return jnp.where(dropped, null, given)


# --- the loss of an autoencoder -------------------------------------------------------------------------------------

Distance = Callable[[Image, Image], Scalar]


def absolute(x: Image, y: Image) -> Scalar:
    """L1, the mean |x - y|."""
    return jnp.mean(jnp.abs(x - y))


def squared(x: Image, y: Image) -> Scalar:
    """L2, the mean (x - y)²."""
    return jnp.mean((x - y) ** 2)


@dataclass(frozen=True)
class AutoencoderLoss:
    """distance(x, reconstruction) + kl KL(latents || N(0, 1)), both per dimension of the image.

    `terms` are more distances, each with its weight: a perceptual one, or how a discriminator tells them apart.
    """

    distance: Distance = absolute
    kl: float = 1e-6
    terms: tuple[tuple[float, Distance], ...] = ()

    def __post_init__(self) -> None:
        require(callable(self.distance), "a distance such as absolute or squared", self.distance)
        require(self.kl >= 0, "kl >= 0", self.kl)
        legal = all(isinstance(term, tuple) and len(term) == 2 and callable(term[1]) for term in self.terms)
        require(legal, "terms ((weight, distance), ...)", self.terms)

    def __call__(self, model: Any, key: KeyArray, x: Image) -> Scalar:
        """The loss of one image; `model` has encode and decode: an Autoencoder bound to its variables."""
        latents = model.encode(x)
        y = model.decode(latents.sample(key))
        more = sum((weight * term(x, y) for weight, term in self.terms), jnp.zeros(()))
        return self.distance(x, y) + self.kl * jnp.sum(latents.kl()) / x.size + more
