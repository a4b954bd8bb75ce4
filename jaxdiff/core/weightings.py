"""How much each noise level counts: Point -> the weight of |x_0 - D(x_t, t)|² in the loss.

Without a weighting the loss is the squared error of the network's own output. With noise prediction that is `simple`,
with others `velocity`, `uniform`, `flow` or `EDMWeighting`. Any weighting can be combined with any prediction.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxdiff.base.checks import require
from jaxdiff.core.process import Point, Scalar


class Weighting(Protocol):
    """Point -> its weight: any function or frozen dataclass that gives one number."""

    def __call__(self, point: Point) -> Scalar: ...


def _snr(point: Point) -> Scalar:
    return jnp.exp(point.log_snr)


def simple(point: Point) -> Scalar:
    """The plain squared error of the noise, DDPM's L_simple (Ho et al. 2020): SNR."""
    return _snr(point)


def uniform(point: Point) -> Scalar:
    """The plain squared error of the clean image: 1."""
    return jnp.ones_like(point.log_snr)


def velocity(point: Point) -> Scalar:
    """The plain squared error of the velocity where alpha² + sigma² = 1 (Salimans & Ho 2022): SNR + 1."""
    return _snr(point) + 1


def flow(point: Point) -> Scalar:
    """The plain squared error of the flow eps - x_0 (Lipman et al. 2023): (1 + alpha / sigma)²."""
    return (1 + point.alpha / point.sigma) ** 2


def likelihood(point: Point) -> Scalar:
    """-(d SNR / dt) / 2: integrated over t, the diffusion term of the variational bound (Kingma et al. 2021)."""
    return _snr(point) * point.sigma_dot / point.sigma - point.alpha * point.alpha_dot / point.sigma**2


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma): low noise levels weigh at most gamma (Hang et al. 2023)."""

    gamma: float = 5.0  # the largest weight of the noise level

    def __post_init__(self) -> None:
        require(self.gamma > 0, "gamma > 0", self)

    def __call__(self, point: Point) -> Scalar:
        return jnp.minimum(_snr(point), self.gamma)


@dataclass(frozen=True)
class P2:
    """SNR / (k + SNR)^gamma: less weight at low noise, whose detail is imperceptible (Choi et al. 2022)."""

    gamma: float = 1.0  # 0 for SNR itself; larger for less weight at low noise
    k: float = 1.0  # the SNR at which that begins

    def __post_init__(self) -> None:
        require(self.gamma >= 0 and self.k > 0, "gamma >= 0 and k > 0", self)

    def __call__(self, point: Point) -> Scalar:
        return _snr(point) / (self.k + _snr(point)) ** self.gamma


@dataclass(frozen=True)
class EDMWeighting:
    """SNR + 1 / sigma_data²: unit weight on the network of `predictions.EDMPreconditioning` (Karras et al. 2022)."""

    sigma_data: float = 0.5  # the deviation of the data

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "sigma_data > 0", self)

    def __call__(self, point: Point) -> Scalar:
        return _snr(point) + 1 / self.sigma_data**2


@dataclass(frozen=True)
class Sigmoid:
    """sigmoid(bias - log-SNR) times `likelihood`: with uniform times on any schedule the same (Kingma & Gao 2023)."""

    bias: float = 0.0  # the log-SNR at which the sigmoid is 1/2

    def __call__(self, point: Point) -> Scalar:
        return likelihood(point) * jax.nn.sigmoid(self.bias - point.log_snr)
