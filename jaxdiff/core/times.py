"""Which times are trained on: (process, u) -> t, the quantile function of a distribution, for u in [0, 1).

They reach up to t = 1, where sampling starts; the loss clips them to `NetworkDenoiser.t_max`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxdiff.base.checks import require
from jaxdiff.core.process import Process, Scalar
from jaxdiff.core.tables import Discrete

Times = Callable[[Process, Scalar], Scalar]


@dataclass(frozen=True)
class UniformTimes:
    """Evenly in t, by default from where noise begins to 1."""

    low: float | None = None  # the smallest t; None: where noise begins, t_min
    high: float | None = None  # the largest t; None: 1

    def __post_init__(self) -> None:
        high = 1.0 if self.high is None else self.high
        legal = 0 < high <= 1 and (self.low is None or 0 < self.low < high)  # of t = 0 there is nothing to learn
        require(legal, "0 < low < high <= 1", self)

    def __call__(self, process: Process, u: Scalar) -> Scalar:
        low = process.t_min if self.low is None else self.low
        high = 1.0 if self.high is None else self.high
        require(low < high, f"high above {low:g}, where noise begins on {process}", self)
        return low + (high - low) * u


@dataclass(frozen=True)
class LogitNormal:
    """logit t ~ N(mean, deviation²): most often in the middle (Esser et al. 2024)."""

    mean: float = 0.0  # of logit t
    deviation: float = 1.0  # of logit t

    def __post_init__(self) -> None:
        require(self.deviation > 0, "deviation > 0", self)

    def __call__(self, process: Process, u: Scalar) -> Scalar:
        t = jax.nn.sigmoid(self.mean + self.deviation * jax.scipy.special.ndtri(u))
        return jnp.clip(t, process.t_min, 1.0)


@dataclass(frozen=True)
class LogNormal:
    """log(sigma / alpha) ~ N(mean, deviation²), by default as in EDM (Karras et al. 2022)."""

    mean: float = -1.2  # of log(sigma / alpha)
    deviation: float = 1.2  # of log(sigma / alpha)

    def __post_init__(self) -> None:
        require(self.deviation > 0, "deviation > 0", self)

    def __call__(self, process: Process, u: Scalar) -> Scalar:
        log_sigma = self.mean + self.deviation * jax.scipy.special.ndtri(u)
        return jnp.clip(process.time(-2 * log_sigma), process.t_min, 1.0)


def steps(process: Process, u: Scalar) -> Scalar:
    """Evenly over the entries of a discrete table."""
    if not isinstance(process, Discrete):
        raise ValueError(f"only a Discrete process has steps to draw from, {process} has none: use UniformTimes()")
    return (jnp.floor(u * process.steps) + 1) / process.steps
