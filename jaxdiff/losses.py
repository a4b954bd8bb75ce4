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

from jaxdiff.checks import require
from jaxdiff.denoise import NetworkDenoiser, promoted
from jaxdiff.process import Discrete, Image, Point, Process, Scalar
from jaxdiff.rng import KeyArray, normal
from jaxdiff.rng import stratified as stratified

# --- how much each noise level counts: Point -> the weight of |x_0 - D(x_t, t)|² ------------------------------------

Weighting = Callable[[Point], Scalar]


def _snr(point: Point) -> Scalar:
    return jnp.exp(point.log_snr)


def simple(point: Point) -> Scalar:
    """The plain squared error of the noise, DDPM's L_simple (Ho et al. 2020): SNR."""
    return _snr(point)


def uniform(point: Point) -> Scalar:
    """The plain squared error of the clean image: 1."""
    return jnp.ones_like(point.log_snr)


def flow(point: Point) -> Scalar:
    """The plain squared error of the flow eps - x_0 (Lipman et al. 2023): (1 + alpha / sigma)²."""
    return (1 + point.alpha / point.sigma) ** 2


def likelihood(point: Point) -> Scalar:
    """-(d SNR / dt) / 2: integrated over t, the variational bound in nats a dimension (Kingma et al. 2021)."""
    return _snr(point) * point.sigma_dot / point.sigma - point.alpha * point.alpha_dot / point.sigma**2


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma): no task outweighs the others by more than that (Hang et al. 2023)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        require(self.gamma > 0, "gamma > 0", self)

    def __call__(self, point: Point) -> Scalar:
        return jnp.minimum(_snr(point), self.gamma)


@dataclass(frozen=True)
class P2:
    """SNR / (k + SNR)^gamma: less for the noise that nobody sees (Choi et al. 2022)."""

    gamma: float = 1.0
    k: float = 1.0

    def __post_init__(self) -> None:
        require(self.gamma >= 0 and self.k > 0, "gamma >= 0 and k > 0", self)

    def __call__(self, point: Point) -> Scalar:
        return _snr(point) / (self.k + _snr(point)) ** self.gamma


@dataclass(frozen=True)
class EDM:
    """SNR + 1 / sigma_data²: unit weight on the network of `denoise.EDM` (Karras et al. 2022)."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "sigma_data > 0", self)

    def __call__(self, point: Point) -> Scalar:
        return _snr(point) + 1 / self.sigma_data**2


@dataclass(frozen=True)
class Sigmoid:
    """sigmoid(bias - log-SNR) times the weight of the likelihood: the same on any schedule (Kingma & Gao 2023)."""

    bias: float = 0.0

    def __call__(self, point: Point) -> Scalar:
        return likelihood(point) * jax.nn.sigmoid(self.bias - point.log_snr)


# --- which times are trained on: (process, u) -> t, a quantile function of u in [0, 1) ------------------------------

Times = Callable[[Process, Scalar], Scalar]


@dataclass(frozen=True)
class Uniform:
    """Evenly in t, by default over the process's range."""

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        low, high = self.low or 0.0, 1.0 if self.high is None else self.high
        require(0 <= low < high <= 1, "0 <= low < high <= 1", self)

    def __call__(self, process: Process, u: Scalar) -> Scalar:
        low = process.t_min if self.low is None else self.low
        high = process.t_max if self.high is None else self.high
        return low + (high - low) * u


@dataclass(frozen=True)
class LogitNormal:
    """logit t ~ N(mean, deviation²): most often in the middle (Esser et al. 2024)."""

    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        require(self.deviation > 0, "deviation > 0", self)

    def __call__(self, process: Process, u: Scalar) -> Scalar:
        t = jax.nn.sigmoid(self.mean + self.deviation * jax.scipy.special.ndtri(u))
        return jnp.clip(t, process.t_min, process.t_max)


@dataclass(frozen=True)
class LogNormal:
    """log(sigma / alpha) ~ N(mean, deviation²), by default as in EDM (Karras et al. 2022)."""

    mean: float = -1.2
    deviation: float = 1.2

    def __post_init__(self) -> None:
        require(self.deviation > 0, "deviation > 0", self)

    def __call__(self, process: Process, u: Scalar) -> Scalar:
        log_sigma = self.mean + self.deviation * jax.scipy.special.ndtri(u)
        return jnp.clip(process.time(-2 * log_sigma), process.t_min, process.t_max)


def steps(process: Process, u: Scalar) -> Scalar:
    """Evenly over the entries of a discrete table."""
    if not isinstance(process, Discrete):
        raise ValueError(f"only a Discrete process has steps to draw from, {process} has none: use Uniform()")
    return (jnp.floor(u * process.steps) + 1) / process.steps


# --- the loss -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DenoisingLoss:
    """weighting(t) |x_0 - D(x_t, t)|², as a squared error of the network against its target; the mean over the image.

    With probability `drop` an example's condition is replaced by `null`, for classifier-free guidance: each example
    flips a coin of its own.
    """

    weighting: Weighting = simple
    times: Times = Uniform()
    drop: float = 0.0
    null: Any = None

    def __post_init__(self) -> None:
        for choice in (self.weighting, self.times):
            require(callable(choice) and not isinstance(choice, type), "functions such as simple and Uniform()", self)
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
        t = self.times(model.process, jax.random.uniform(for_time) if u is None else u)
        point = model.process.at(t)
        x_t = point.perturb(x_0, normal(for_noise, x_0.shape, x_0.dtype)).astype(x_0.dtype)
        if self.drop:
            dropped = jax.random.bernoulli(for_drop, self.drop)
            condition = jax.tree.map(partial(_choose, dropped), self.null, condition)
        given = () if condition is None else (condition,)
        c_skip, c_out = model.prediction(point.alpha, point.sigma)
        target = (x_0 - c_skip * x_t) / c_out
        return self.weighting(point) * c_out**2 * jnp.mean((model.output(x_t, t, *given) - target) ** 2)


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
    """distance(x, reconstruction) + kl KL(latents || N(0, 1)), both for each number of the image.

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
