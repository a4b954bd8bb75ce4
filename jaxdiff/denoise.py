"""From a network to a denoiser: what the network predicts, what it is shown, what it is told about the noise.

A denoiser is any function (x_t, t) -> E[x_0 | x_t] of one image. A conditional one takes a third argument, the
condition: a label, a sequence of embeddings, any tree of arrays.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from jaxdiff.process import Discrete, Image, Process, Scalar

Denoiser = Callable[..., Image]  # (x_t, t, *condition) -> E[x_0 | x_t]
Network = Callable[..., Image]  # (scaled x_t, what it is told, *condition) -> F


def promoted(given: Any, null: Any) -> tuple[Array, Array]:
    """A condition and the null one in a type that holds both: -1 must stay -1 beside unsigned labels."""
    given, null = jnp.asarray(given), jnp.asarray(null)
    dtype = jnp.promote_types(given.dtype, null.dtype)
    return given.astype(dtype), null.astype(dtype)


# --- what the network predicts: (alpha, sigma) -> (c_skip, c_out), with x_0 = c_skip x_t + c_out F ---------------

Prediction = Callable[[Scalar, Scalar], tuple[Scalar, Scalar]]


def data(alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
    """F is x_0 itself."""
    return jnp.zeros_like(alpha), jnp.ones_like(alpha)


def noise(alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
    """F is eps (Ho et al. 2020). Undefined where alpha = 0: a table with zero terminal SNR wants `velocity`."""
    return 1 / alpha, -sigma / alpha


def velocity(alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
    """F is v = alpha eps - sigma x_0 (Salimans & Ho 2022)."""
    norm = alpha**2 + sigma**2
    return alpha / norm, -sigma / norm


def score(alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
    """F is the score of x_t, -eps / sigma (Song et al. 2021)."""
    return 1 / alpha, sigma**2 / alpha


def flow(alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
    """F is eps - x_0, which on the `Flow` process is dx/dt (Lipman et al. 2023)."""
    return 1 / (alpha + sigma), -sigma / (alpha + sigma)


@dataclass(frozen=True)
class EDM:
    """F has unit variance for data of deviation `sigma_data`, whatever the noise (Karras et al. 2022)."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_sigma_data(self)

    def __call__(self, alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
        variance = (alpha * self.sigma_data) ** 2 + sigma**2
        return alpha * self.sigma_data**2 / variance, sigma * self.sigma_data / jnp.sqrt(variance)


# --- what it is shown: (alpha, sigma) -> c_in, the factor of x_t ----------------------------------------------------

InputScale = Callable[[Scalar, Scalar], Scalar]


def unscaled(alpha: Scalar, sigma: Scalar) -> Scalar:
    """x_t as it is."""
    return jnp.ones_like(alpha)


@dataclass(frozen=True)
class UnitVariance:
    """x_t divided by its deviation, for data of deviation `sigma_data`."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_sigma_data(self)

    def __call__(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        return 1 / jnp.sqrt((alpha * self.sigma_data) ** 2 + sigma**2)


def _check_sigma_data(value: EDM | UnitVariance) -> None:
    if not 0 < value.sigma_data < math.inf:
        raise ValueError(f"needs sigma_data > 0, got {value}")


# --- what it is told about the noise: (process, t) -> a number ------------------------------------------------------

Told = Callable[[Process, Scalar], Scalar]


def time(process: Process, t: Scalar) -> Scalar:
    """t, from 0 to 1."""
    return t


@dataclass(frozen=True)
class ScaledTime:
    """t times a factor, 1000 say: for networks whose embedding was made for step numbers."""

    factor: float = 1000.0

    def __call__(self, process: Process, t: Scalar) -> Scalar:
        return self.factor * t


def index(process: Process, t: Scalar) -> Scalar:
    """The step number, from 0; a fraction between two entries of the table."""
    if not isinstance(process, Discrete):
        raise ValueError(f"only a Discrete process numbers its steps, {process} does not: use time or ScaledTime()")
    return process.index(t)


def log_sigma(process: Process, t: Scalar) -> Scalar:
    """log(sigma / alpha)."""
    return -process.log_snr(t) / 2


def quarter_log_sigma(process: Process, t: Scalar) -> Scalar:
    """log(sigma / alpha) / 4, EDM's c_noise."""
    return log_sigma(process, t) / 4


def quarter_log_snr(process: Process, t: Scalar) -> Scalar:
    """log-SNR / 4."""
    return process.log_snr(t) / 4


# --- the two together -----------------------------------------------------------------------------------------------


_CHOICES = {
    "prediction": "data, noise, velocity, score, flow or EDM()",
    "input_scale": "unscaled or UnitVariance()",
    "told": "index, time, ScaledTime(), log_sigma, quarter_log_sigma or quarter_log_snr",
}


@struct.dataclass
class NetworkDenoiser:
    """The denoiser that a network is: D(x_t, t) = c_skip x_t + c_out F(c_in x_t, told).

    `network` is any callable (x, told, *condition) -> F; `jax.tree_util.Partial(net.apply, params)` carries its
    parameters as data, so that new parameters need no new compilation.
    """

    network: Network
    process: Process = struct.field(pytree_node=False)
    prediction: Prediction = struct.field(pytree_node=False, default=noise)
    input_scale: InputScale = struct.field(pytree_node=False, default=unscaled)
    told: Told = struct.field(pytree_node=False, default=index)

    def __post_init__(self) -> None:
        if not isinstance(self.process, Process):
            raise ValueError(f"process must be one of jaxdiff.process, such as VP(), got {self.process!r}")
        if isinstance(self.process, Discrete) and self.process.alpha_bar[-1] == 0 and self.prediction in (noise, score):
            raise ValueError(
                "where a table ends without signal, noise tells nothing of the image: predict velocity or data"
            )
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if not callable(value) or isinstance(value, type):
                raise ValueError(f"{name} must be a function such as {choices} of jaxdiff.denoise, got {value!r}")

    def __call__(self, x_t: Image, t: Scalar, *condition: Any) -> Image:
        c_skip, c_out = self.prediction(self.process.alpha(t), self.process.sigma(t))
        return c_skip * x_t + c_out * self.output(x_t, t, *condition)

    def output(self, x_t: Image, t: Scalar, *condition: Any) -> Image:
        """F: what the network itself says, in the precision of its image."""
        c_in = self.input_scale(self.process.alpha(t), self.process.sigma(t))
        F = jnp.asarray(self.network(c_in * x_t, self.told(self.process, t), *condition), x_t.dtype)
        if F.shape != x_t.shape:
            raise ValueError(f"the network must return the shape of its image, {x_t.shape}, it returned {F.shape}")
        return F


@struct.dataclass
class Moved:
    """A denoiser made for one process, at work on another: at equal SNR the two differ by a factor only.

    For processes of the same SNR range; beyond its own range the denoiser is asked at the nearer end of it.
    """

    denoise: Denoiser
    made_for: Process = struct.field(pytree_node=False)
    used_on: Process = struct.field(pytree_node=False)

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        most, least = self.made_for.log_snr(0.0), self.made_for.log_snr(1.0)
        t_made = self.made_for.time(jnp.clip(self.used_on.log_snr(t), least, most))
        size = jnp.hypot(self.made_for.alpha(t_made), self.made_for.sigma(t_made))
        return self.denoise(x * (size / jnp.hypot(self.used_on.alpha(t), self.used_on.sigma(t))), t_made, *condition)
