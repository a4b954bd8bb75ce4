"""What a network is trained on: one line of squared error, a weighting of log-SNR, a distribution of times.

All of it is for one example; a batch is `jax.vmap` over keys and examples, and a mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.base.checks import check, require, takes
from jaxdiff.core.denoise import NetworkDenoiser, promoted
from jaxdiff.core.process import Image, Point, Scalar
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.core.times import Times, UniformTimes
from jaxdiff.core.weightings import Weighting


@dataclass(frozen=True)
class DenoisingLoss:
    """|F - target|², the squared error of the network's output; the mean over the image.

    That is the default, for any prediction; with a weighting the loss is weighting(t) |x_0 - D(x_t, t)|².
    """

    weighting: Weighting | None = None  # of |x_0 - D|²; None: none but that of the output
    times: Times = UniformTimes()  # which are trained on

    def __post_init__(self) -> None:
        for choice in (self.times,) if self.weighting is None else (self.weighting, self.times):
            legal = callable(choice) and not isinstance(choice, type)
            require(legal, "functions such as simple and UniformTimes()", self)
        takes(self.times, "process", "u")
        if self.weighting is not None:
            takes(self.weighting, "point")

    def __call__(
        self,
        model: NetworkDenoiser,
        key: KeyArray,
        x_0: Image,
        condition: Any = None,
        u: Scalar | None = None,
        **_: Any,
    ) -> Scalar:
        """The loss of one example. `u` in [0, 1) places it in the distribution of times; drawn from `key` if None."""
        require(isinstance(model, NetworkDenoiser), "a NetworkDenoiser to train", model)
        require(jnp.issubdtype(x_0.dtype, jnp.floating), "images of floating point numbers", x_0.dtype)
        for_noise, for_time = jax.random.split(key)
        t = jnp.minimum(self.times(model.process, jax.random.uniform(for_time) if u is None else u), model.t_max)
        point = model.process.at(t)
        x_t = point.perturb(x_0, normal(for_noise, x_0.shape, x_0.dtype)).astype(x_0.dtype)
        loss = jnp.mean(error_of_output(model, point, x_t, x_0, condition))
        if self.weighting is None:
            return loss
        weight = self.weighting(point)
        check(jnp.shape(weight) == (), f"a weighting must give one number, got an array of shape {jnp.shape(weight)}")
        return weight * model.prediction(point.alpha, point.sigma)[1] ** 2 * loss


def given(condition: Any) -> tuple[Any, ...]:
    """The further arguments of a denoiser."""
    return () if condition is None else (condition,)


def error_of_output(model: NetworkDenoiser, t: Point, x_t: Image, x_0: Image, condition: Any) -> Image:
    """|F - target|² for this x_0, of each number."""
    c_skip, c_out = model.prediction(t.alpha, t.sigma)
    return (model.output(x_t, t.t, *given(condition)) - (x_0 - c_skip * x_t) / c_out) ** 2


def dropped(key: KeyArray, condition: Any, null: Any, share: float) -> Any:
    """The condition, or with that probability the null one: each example flips a coin of its own."""
    require(0 <= share <= 1, "0 <= share <= 1", share)
    coin = jax.random.bernoulli(key, share)
    return jax.tree.map(lambda null, given: jnp.where(coin, *promoted(given, null)[::-1]), null, condition)


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

    distance: Distance = absolute  # of the reconstruction
    kl: float = 1e-6  # the weight of the KL
    terms: tuple[tuple[float, Distance], ...] = ()  # (weight, distance) of each further one

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
