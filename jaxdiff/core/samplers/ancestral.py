"""Samplers over the posterior p(x_s | x_t, x_0)."""

from dataclasses import dataclass

import jax.numpy as jnp

from jaxdiff.base.checks import require
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Image, Point, transition
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.core.samplers.base import Sampler, added_noise


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020), between any two times, so that respaced steps need nothing more.

    `variance` runs from 0, the posterior's own ("fixed small"), to 1, that of the forward step ("fixed large"), with
    geometric interpolation between (Nichol & Dhariwal 2021). `noise` scales the noise added: 0 leaves it out.
    """

    variance: float = 0.0  # that of the noise: 0 the posterior's, 1 the forward step's
    noise: float = 1.0  # the factor of the noise added, from 0 to 1

    def __post_init__(self) -> None:
        require(0 <= self.variance <= 1, "0 <= variance <= 1", self)
        require(0 <= self.noise <= 1, "0 <= noise <= 1", self)

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        alpha_ts, var_ts = transition(t, s)
        mean = alpha_ts * (s.sigma / t.sigma) ** 2 * x + s.alpha * var_ts / t.sigma**2 * denoise(x, t.t)
        if not self.noise:
            return mean
        ratio = jnp.where(s.sigma > 0, s.sigma / t.sigma, 1.0)
        return mean + added_noise(key, x, s, self.noise * jnp.sqrt(var_ts) * ratio ** (1 - self.variance))


@dataclass(frozen=True)
class DDIM(Sampler):
    """Implicit models (Song et al. 2021b): eta 0 is deterministic, eta 1 is DDPM; eta scales the noise added."""

    eta: float = 0.0  # the factor of the noise added: 0 none, 1 as in DDPM

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "0 <= eta <= 1", self)

    @property
    def follows_ode(self) -> bool:  # type: ignore[override]
        return self.eta == 0

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        x_0 = denoise(x, t.t)
        eps = t.noise(x, x_0)
        if not self.eta:
            return s.perturb(x_0, eps)
        fall = t.log_snr - s.log_snr
        finite = jnp.isfinite(fall)
        renewed = self.eta**2 * jnp.where(finite, -jnp.expm1(jnp.where(finite, fall, 0.0)), 1.0)
        return s.perturb(x_0, jnp.sqrt(1 - renewed) * eps + jnp.sqrt(renewed) * normal(key, x.shape, x.dtype))
