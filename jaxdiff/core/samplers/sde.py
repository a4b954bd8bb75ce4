"""Samplers on the reverse SDE, correctors, and what is made of two samplers."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxdiff.base.checks import require, whole
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Image, Point, transition
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.core.samplers.ancestral import DDPM
from jaxdiff.core.samplers.base import Sampler, added_noise, is_single, or_arrive


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Euler-Maruyama on the reverse SDE, whose drift is infinite where alpha = 0."""

    needs_signal = True

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        x_0 = denoise(x, t.t)
        mean = x + (s.t - t.t) * (t.drift * x - t.diffusion**2 * t.score(x, x_0))
        return or_arrive(mean, x_0, s) + added_noise(key, x, s, t.diffusion * jnp.sqrt(t.t - s.t))


@dataclass(frozen=True)
class ReverseDiffusion(Sampler):
    """The reverse-diffusion predictor (Song et al. 2021a): the forward step's own mean and variance, turned round.

    For small steps of log alpha: a step from alpha = 0 would leave the variance of its noise beside the old one.
    """

    needs_signal = True

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        x_0 = denoise(x, t.t)
        alpha_ts, var_ts = transition(t, s)
        mean = (2 - alpha_ts) * x + var_ts * t.score(x, x_0)
        return or_arrive(mean, x_0, s) + added_noise(key, x, s, jnp.sqrt(var_ts))


@dataclass(frozen=True)
class Langevin(Sampler):
    """Langevin steps at the noise of s: a corrector; on its own, annealed Langevin dynamics (Song & Ermon 2019).

    The step size is 2 (snr sigma)², the paper's where |score| = sqrt(d) / sigma; norms over a batch couple images.
    """

    corrects = True
    snr: float = 0.16  # the step size is 2 (snr sigma)^2
    corrections: int = 1  # such steps at each noise level

    def __post_init__(self) -> None:
        require(0 < self.snr < 1, "0 < snr < 1", self)
        whole("corrections", self.corrections, 1, 2**31)

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        def correct(k: Array, x: Image) -> Image:
            z = normal(jax.random.fold_in(key, k), x.shape, x.dtype)
            step_size = 2 * (self.snr * s.sigma) ** 2
            return x + step_size * s.score(x, denoise(x, s.t)) + jnp.sqrt(2 * step_size) * z

        return lax.cond(s.sigma > 0, lambda: lax.fori_loop(0, self.corrections, correct, x), lambda: x)


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """After every step of the predictor, one of the corrector at the noise it arrived at (Song et al. 2021a)."""

    predictor: Sampler = ReverseDiffusion()  # steps from t to s
    corrector: Sampler = Langevin()  # corrects at s

    def __post_init__(self) -> None:
        both = is_single(self.predictor) and is_single(self.corrector)
        require(both, "two samplers without history, such as ReverseDiffusion() and Langevin()", self)
        fits = self.corrector.corrects and not self.predictor.corrects
        require(fits, "a predictor that steps, such as ReverseDiffusion(), and a corrector, such as Langevin()", self)

    @property
    def needs_signal(self) -> bool:  # type: ignore[override]
        return self.predictor.needs_signal

    def over(self, steps: int) -> "PredictorCorrector":
        return replace(self, predictor=self.predictor.over(steps), corrector=self.corrector.over(steps))

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        x = self.predictor.step(denoise, jax.random.fold_in(key, 0), x, t, s)
        return self.corrector.step(denoise, jax.random.fold_in(key, 1), x, t, s)


@dataclass(frozen=True)
class Resampling(Sampler):
    """Every step but the last taken `times` times, with noise put back between (RePaint, Lugmayr et al. 2022).

    So the inpainted region comes to agree with the known one.
    """

    sampler: Sampler = DDPM()  # whose steps are repeated
    times: int = 5  # how often each step is taken

    def __post_init__(self) -> None:
        require(is_single(self.sampler), "a sampler without history, such as DDPM()", self)
        whole("times", self.times, 1, 2**31)

    @property
    def needs_signal(self) -> bool:  # type: ignore[override]
        return self.sampler.needs_signal

    def over(self, steps: int) -> "Resampling":
        return replace(self, sampler=self.sampler.over(steps))

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        alpha_ts, var_ts = transition(t, s)

        def again(k: Array, x: Image) -> Image:
            stepped, back = jax.random.split(jax.random.fold_in(key, k))
            noisier = alpha_ts * x + jnp.sqrt(var_ts) * normal(back, x.shape, x.dtype)
            x_t = jnp.where(k > 0, noisier, x)
            return lax.cond((k > 0) & (s.sigma == 0), lambda: x, lambda: self.sampler.step(denoise, stepped, x_t, t, s))

        return lax.fori_loop(0, self.times, again, x)
