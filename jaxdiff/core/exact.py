"""Denoisers in closed form, for mixtures of Gaussians: toys to look at, and oracles to hold samplers against."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.core.process import Image, Process, Scalar


@dataclass(frozen=True)
class Mixture:
    """p(x_0): isotropic Gaussians of one deviation around `means` (numbers or tuples), with these `shares`."""

    means: tuple[float | tuple[float, ...], ...] = (0.3,)  # one of each Gaussian
    deviation: float = 0.5  # of each of them, in each number
    shares: tuple[float, ...] = (1.0,)  # together 1

    def __post_init__(self) -> None:
        if len(self.means) != len(self.shares) or abs(sum(self.shares) - 1) > 1e-6 or min(self.shares) < 0:
            raise ValueError(f"needs a share for each mean, none negative, together 1, got {self}")
        if not self.deviation > 0:
            raise ValueError(f"needs deviation > 0, got {self}")

    def denoise(self, process: Process, x: Image, t: Scalar, label: Array | None = None) -> Image:
        """E[x_0 | x_t], or E[x_0 | x_t, label] of one component; a label of -1 means the whole mixture."""
        alpha, variance = process.alpha(t), self._variance(process, t)
        weights = jnp.exp(self.log_posterior(process, x, t))
        if label is not None:
            chosen = (jnp.arange(len(self.means)) == label).astype(weights.dtype)
            weights = jnp.where(label < 0, weights, chosen)
        mean = jnp.tensordot(weights, self._means(x), 1, precision="highest")  # also on a GPU or TPU
        return mean + alpha * self.deviation**2 / variance * (x - alpha * mean)

    def flow_map(self, process: Process, x: Image, t: Scalar, r: Scalar) -> Image:
        """x_r, where the probability-flow ODE through x_t is at time r; of one Gaussian only."""
        require(len(self.means) == 1, "one Gaussian: several have no flow map in closed form", self)
        (mean,) = self._means(x)
        growth = jnp.sqrt(self._variance(process, r) / self._variance(process, t))
        return process.alpha(r) * mean + growth * (x - process.alpha(t) * mean)

    def log_posterior(self, process: Process, x: Image, t: Scalar) -> Array:
        """log p(component | x_t) of every component: the perfect noise-aware classifier."""
        gap = x[None] - process.alpha(t) * self._means(x)
        squares = jnp.sum(gap**2, axis=tuple(range(1, gap.ndim)))
        return jax.nn.log_softmax(jnp.log(jnp.asarray(self.shares)) - squares / (2 * self._variance(process, t)))

    def _means(self, x: Image) -> Array:
        means = jnp.asarray(self.means, x.dtype)
        return means.reshape(len(self.means), *(1,) * (x.ndim - means.ndim + 1), *means.shape[1:])

    def _variance(self, process: Process, t: Scalar) -> Scalar:
        return (process.alpha(t) * self.deviation) ** 2 + process.sigma(t) ** 2
