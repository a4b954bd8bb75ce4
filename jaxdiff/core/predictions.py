"""What a network predicts: (alpha, sigma) -> (c_skip, c_out), with x_0 = c_skip x_t + c_out F."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from jaxdiff.base.checks import require
from jaxdiff.core.process import Scalar

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
    """F is the score of x_t, -eps / sigma (Song et al. 2021a). Undefined where alpha = 0."""
    return 1 / alpha, sigma**2 / alpha


def flow(alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
    """F is eps - x_0, which on the `Flow` process is dx/dt (Lipman et al. 2023)."""
    return 1 / (alpha + sigma), -sigma / (alpha + sigma)


@dataclass(frozen=True)
class EDMPreconditioning:
    """F has unit variance for data of deviation `sigma_data`, whatever the noise (Karras et al. 2022)."""

    sigma_data: float = 0.5  # the deviation of the data

    def __post_init__(self) -> None:
        require(0 < self.sigma_data < math.inf, "sigma_data > 0", self)

    def __call__(self, alpha: Scalar, sigma: Scalar) -> tuple[Scalar, Scalar]:
        variance = (alpha * self.sigma_data) ** 2 + sigma**2
        return alpha * self.sigma_data**2 / variance, sigma * self.sigma_data / jnp.sqrt(variance)
