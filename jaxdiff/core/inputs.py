"""How the noisy image is scaled for the network: (alpha, sigma) -> c_in, the factor of x_t."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from jaxdiff.base.checks import require
from jaxdiff.core.process import Scalar

InputScale = Callable[[Scalar, Scalar], Scalar]


def unscaled(alpha: Scalar, sigma: Scalar) -> Scalar:
    """x_t as it is."""
    return jnp.ones_like(alpha)


@dataclass(frozen=True)
class UnitVariance:
    """x_t divided by its deviation, for data of deviation `sigma_data`."""

    sigma_data: float = 0.5  # the deviation of the data

    def __post_init__(self) -> None:
        require(0 < self.sigma_data < math.inf, "sigma_data > 0", self)

    def __call__(self, alpha: Scalar, sigma: Scalar) -> Scalar:
        return 1 / jnp.sqrt((alpha * self.sigma_data) ** 2 + sigma**2)
