"""From a network to a denoiser: what the network predicts, what it is shown, what it is told about the noise.

A denoiser is any function (x_t, t) -> E[x_0 | x_t] of one image. A conditional one takes a third argument, the
condition: a label, a sequence of embeddings, any tree of arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import struct

from jaxdiff.process import Discrete, Image, Process, Scalar

Denoiser = Callable[..., Image]  # (x_t, t, *condition) -> E[x_0 | x_t]
Network = Callable[..., Image]  # (scaled x_t, what it is told, *condition) -> F

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
        if not self.sigma_data > 0:
            raise ValueError(f"needs sigma_data > 0, got {self}")

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

    def __call__(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        return 1 / jnp.sqrt((alpha * self.sigma_data) ** 2 + sigma**2)


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
        raise ValueError(f"only a Discrete process numbers its steps, {process} does not: use ScaledTime")
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
        for name in ("prediction", "input_scale", "told"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"{name} must be a function such as those of jaxdiff.denoise "
                    f"(data, noise, velocity, score, flow, EDM(); unscaled, UnitVariance(); time, index, log_sigma, "
                    f"...), got {getattr(self, name)!r}"
                )

    def __call__(self, x_t: Image, t: Scalar, *condition: Any) -> Image:
        c_skip, c_out = self.prediction(self.process.alpha(t), self.process.sigma(t))
        return c_skip * x_t + c_out * self.output(x_t, t, *condition)

    def output(self, x_t: Image, t: Scalar, *condition: Any) -> Image:
        """F: what the network itself says, in the precision of its image."""
        c_in = self.input_scale(self.process.alpha(t), self.process.sigma(t))
        return self.network(c_in * x_t, self.told(self.process, t), *condition).astype(x_t.dtype)


@struct.dataclass
class Moved:
    """A denoiser made for one process, at work on another: at equal SNR the two differ by a factor only."""

    denoise: Denoiser
    made_for: Process = struct.field(pytree_node=False)
    used_on: Process = struct.field(pytree_node=False)

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        t_made = self.made_for.time(self.used_on.log_snr(t))
        size = jnp.hypot(self.made_for.alpha(t_made), self.made_for.sigma(t_made))
        return self.denoise(x * (size / jnp.hypot(self.used_on.alpha(t), self.used_on.sigma(t))), t_made, *condition)
