"""Averages of the parameters over training, which sample better than the last ones do.

Each step an average moves a share of its way to the parameters. The powers (Karras et al. 2024a) are made so that, from
those of a few checkpoints, the average of any other width can be put together after training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.base.checks import require


class Average(Protocol):
    """An average of the parameters over training, by how far it follows them in each step."""

    def share(self, step: Array) -> Array:
        """How far it moves in the step from `step` to step + 1: 1 - decay, without rounding."""
        ...


@dataclass(frozen=True)
class Ema:
    """The exponential moving average. At first it is shorter: at most (1 + step) / (10 + step) stays."""

    rate: float = 0.9999  # how much of the average stays in a step
    warmup: bool = True  # shorter at first

    def __post_init__(self) -> None:
        require(0 <= self.rate < 1, "0 <= rate < 1", self)

    def share(self, step: Array) -> Array:
        return jnp.maximum(1 - self.rate, 9 / (10 + step)) if self.warmup else jnp.asarray(1 - self.rate)


@dataclass(frozen=True)
class PowerEma:
    """Weights that grow as time^gamma, so that their deviation is always `width` of the time trained so far."""

    width: float = 0.05

    def __post_init__(self) -> None:
        require(0 < self.width < 0.28, "0 < width < 0.28", self)

    @property
    def gamma(self) -> float:
        return gamma_of(self.width)

    def share(self, step: Array) -> Array:
        return -jnp.expm1((self.gamma + 1) * jnp.log1p(-1 / (step + 1)))  # 1 - (step / (step + 1))^(gamma + 1)


def gamma_of(width: float) -> float:
    """The gamma whose density (gamma + 1) t^gamma on [0, 1] has this deviation; the widest, at 0, has 1 / sqrt(12)."""
    # (gamma + 1) = width² (gamma + 2)² (gamma + 3)
    cubic = np.polynomial.Polynomial([1, 1]) - width**2 * np.polynomial.Polynomial([2, 1]) ** 2 * [3, 1]
    return max(float(root.real) for root in cubic.roots() if abs(root.imag) < 1e-9)


def average(ema: Any, params: Any, share: Array) -> Any:
    """One step of an average."""
    return jax.tree.map(lambda old, new: old + share.astype(old.dtype) * (new - old), ema, params)


def profile(width: float, at: float, snapshots: Sequence[tuple[float, float, Any]]) -> Any:
    """The average of `width` at step `at`, as near as the snapshots (width, step, average) come to it.

    Their weights minimise the squared distance between the two densities over time.
    """
    require(bool(snapshots), "at least one snapshot", snapshots)
    gammas = np.array([gamma_of(width) for width, _, _ in snapshots] + [gamma_of(width)])
    steps = np.array([float(step) for _, step, _ in snapshots] + [float(at)])
    products = _inner(gammas[:, None], steps[:, None], gammas[None], steps[None])
    weights = np.linalg.lstsq(products[:-1, :-1], products[:-1, -1], rcond=None)[0]
    trees = [tree for _, _, tree in snapshots]
    return jax.tree.map(lambda *leaves: sum(float(w) * leaf for w, leaf in zip(weights, leaves, strict=True)), *trees)


def _inner(gamma: np.ndarray, step: np.ndarray, gamma_2: np.ndarray, step_2: np.ndarray) -> np.ndarray:
    """The integral of the product of two densities (gamma + 1) t^gamma / step^(gamma + 1) on [0, step]."""
    least = np.minimum(step, step_2)
    share, share_2 = (least / step) ** (gamma + 1), (least / step_2) ** (gamma_2 + 1)
    return (gamma + 1) * (gamma_2 + 1) / (gamma + gamma_2 + 1) * share * share_2 / least
