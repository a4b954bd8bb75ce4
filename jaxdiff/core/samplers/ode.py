"""One-step samplers on the probability-flow ODE."""

import math
from dataclasses import dataclass, replace
from typing import Any

import diffrax
import jax.numpy as jnp
from jax import lax

from jaxdiff.base.checks import require, whole
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Image, Point
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.core.samplers.base import Sampler, exponential_step, or_arrive

# --- in t -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Euler(Sampler):
    """Euler's method on the probability-flow ODE."""

    follows_ode = True

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        x_0 = denoise(x, t.t)
        return or_arrive(x + (s.t - t.t) * t.velocity(x, x_0), x_0, s)


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method on the probability-flow ODE, two evaluations a step but the last."""

    follows_ode = True

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        x_0 = denoise(x, t.t)
        here = t.velocity(x, x_0)

        def average() -> Image:
            euler = x + (s.t - t.t) * here
            there = s.velocity(euler, denoise(euler, s.t))
            return x + (s.t - t.t) * (here + there) / 2

        return lax.cond(s.sigma > 0, average, lambda: s.alpha * x_0)


@dataclass(frozen=True)
class AdaptiveODE(Sampler):
    """The probability-flow ODE solved to a tolerance (Tsitouras 2011, order 5(4)), each image with steps of its own.

    One step of the grid is one whole solve: `grids.Uniform()(process, 1)`. Below `process.t_min` the last stretch to
    clean data is a single DDIM step. An image not done after `max_steps` steps (of six evaluations) comes out as NaN.
    """

    follows_ode = True
    rtol: float = 1e-5  # tolerance of the error of a step, relative to the image
    atol: float = 1e-5  # absolute tolerance, added to that
    max_steps: int = 1000  # of one image, which is NaN if it needs more

    def __post_init__(self) -> None:
        require(self.rtol > 0 and self.atol > 0, "rtol > 0 and atol > 0", self)
        whole("max_steps", self.max_steps, 1, 2**31)

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        process = t.process
        end = process.at(jnp.maximum(s.t, jnp.minimum(process.t_min, t.t)))
        span = t.t - end.t

        def velocity(left: Any, x: Any, _: Any) -> Image:
            now = end.t + left * span
            return span * process.at(now).velocity(x, denoise(x, now))

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            diffrax.Tsit5(),
            t0=1.0,  # to 0, whatever the times: diffrax checks unknown ones by a callback, which cannot be exported
            t1=0.0,
            dt0=-0.01,
            y0=x,
            stepsize_controller=diffrax.PIDController(self.rtol, self.atol),
            max_steps=self.max_steps,
            throw=False,
        )
        x = jnp.where(diffrax.is_successful(solution.result), solution.ys[0], jnp.nan)

        def arrive() -> Image:
            x_0 = denoise(x, end.t)
            return s.perturb(x_0, end.noise(x, x_0))

        return lax.cond(s.t < end.t, arrive, lambda: x)


# --- of x / alpha, in sigma / alpha -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EDM(Sampler):
    """Heun's method in the noise level, with churn (Karras et al. 2022); the step to clean data is Euler's.

    Before each step within s_min <= sigma / alpha <= s_max the level is raised by the factor
    1 + min(churn / churn_steps, sqrt(2) - 1), by noise of deviation `s_noise`. Without churn it is deterministic.
    """

    churn: float = 0.0  # the paper's S_churn: how much noise is put in, over all steps; 0 for the ODE
    s_min: float = 0.0  # the lowest level sigma / alpha that is churned
    s_max: float = math.inf  # the highest level that is
    s_noise: float = 1.0  # the factor of the noise put in
    churn_steps: int | None = None  # over which churn is spread; None: those of the grid

    def __post_init__(self) -> None:
        require(self.churn >= 0, "churn >= 0", self)
        require(0 <= self.s_min <= self.s_max, "0 <= s_min <= s_max", self)
        require(self.s_noise >= 0, "s_noise >= 0", self)

    @property
    def follows_ode(self) -> bool:  # type: ignore[override]
        return self.churn == 0

    def over(self, steps: int) -> "EDM":
        return self if self.churn_steps else replace(self, churn_steps=steps)

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        if self.churn:
            x, t = self._churned(key, x, t)
        x_0 = denoise(x, t.t)
        eps = t.noise(x, x_0)
        euler = s.perturb(x_0, eps)

        def average() -> Image:
            there = s.noise(euler, denoise(euler, s.t))
            return euler + s.alpha * (s.ratio - t.ratio) * (there - eps) / 2

        return lax.cond((s.sigma > 0) & (t.alpha > 0) & (s.alpha > 0), average, lambda: euler)

    def _churned(self, key: KeyArray, x: Image, t: Point) -> tuple[Image, Point]:
        """The image and its time, raised to a higher level of noise."""
        require(self.churn_steps is not None, "churn_steps, the number of steps that churn is spread over", self)
        gamma = min(self.churn / (self.churn_steps or 1), math.sqrt(2) - 1)
        log_snr = jnp.maximum(t.log_snr - 2 * math.log1p(gamma), t.process.log_snr(1.0))  # not noisier than the process

        def raised() -> tuple[Image, Point]:
            t_hat = t.process.at_log_snr(log_snr)
            added = self.s_noise * t.ratio * jnp.sqrt(jnp.expm1(t.log_snr - log_snr)) * normal(key, x.shape, x.dtype)
            return t_hat.alpha * (x / t.alpha + added), t_hat

        inside = (self.s_min <= t.ratio) & (t.ratio <= self.s_max)
        return lax.cond(inside & (log_snr < t.log_snr), raised, lambda: (x, t))


# --- in lambda --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DPMpp2S(Sampler):
    """DPM-Solver++(2S) (Lu et al. 2022): second order in one step, by an evaluation in its middle."""

    follows_ode = True

    def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        h = s.half_log_snr - t.half_log_snr
        x_0 = denoise(x, t.t)

        def second_order() -> Image:
            middle = t.process.at_log_snr(t.log_snr + h)
            x_middle = exponential_step(x, x_0, t, middle, h / 2)
            return exponential_step(x, denoise(x_middle, middle.t), t, s, h)

        return lax.cond(jnp.isfinite(h), second_order, lambda: exponential_step(x, x_0, t, s, h))
