"""Samplers: each walks a denoiser down a grid of times, one image at a time, by steps that read like the paper.

A sampler is a frozen dataclass of its parameters, with

    init(x) -> carry                                          what a step hands to the next: the image, and any history
    step(denoise, process, key, carry, path, i) -> carry      from t = path[i] to s = path[i + 1]
    image(carry) -> x

`path` is the process on the whole grid, computed before the loop, and lets multistep samplers see the times behind
them. Throughout, t is now and s is next, x_0 the expected clean image, eps the noise that goes with it, h a step of
lambda, the half log-SNR. A step to sigma(s) = 0 is the last: it arrives at x_0, whatever the sampler.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxdiff.checks import require
from jaxdiff.denoise import Denoiser
from jaxdiff.process import Image, Index, Point, Process, Scalar, posterior_variance, transition
from jaxdiff.rng import KeyArray, normal


class Sampler:
    """A sampler whose carry is the image alone; multistep ones say otherwise."""

    needs_signal = False  # True if it cannot start where alpha = 0
    follows_ode = False  # True if it approximates the probability-flow ODE, and can so be walked up as well

    def init(self, x: Image) -> Any:
        return x

    def image(self, carry: Any) -> Image:
        return carry

    def step(self, denoise: Denoiser, process: Process, key: KeyArray, carry: Any, path: Point, i: Index) -> Any:
        raise NotImplementedError


def _added_noise(key: KeyArray, x: Image, s: Point, deviation: Scalar) -> Image:
    """Noise of this deviation, none on arrival at clean data."""
    return jnp.where(s.sigma > 0, deviation, 0.0) * normal(key, x.shape, x.dtype)


def _or_arrive(step: Image, x_0: Image, s: Point) -> Image:
    """The step; on arrival at clean data x_0, which steps in t would miss: sigma may go as the square root of t."""
    return jnp.where(s.sigma > 0, step, s.alpha * x_0)


# --- over the posterior p(x_s | x_t, x_0) ---------------------------------------------------------------------------


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020), between any two times, so that respaced steps need nothing more.

    `variance` runs from 0, the posterior's own ("fixed small"), to 1, that of the forward step ("fixed large"), with
    geometric interpolation between (Nichol & Dhariwal 2021). `noise` scales the noise added: 0 leaves it out.
    """

    variance: float = 0.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.variance <= 1, "0 <= variance <= 1", self)
        require(0 <= self.noise <= 1, "0 <= noise <= 1", self)

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        alpha_ts, var_ts = transition(t, s)
        mean = alpha_ts * (s.sigma / t.sigma) ** 2 * x + s.alpha * var_ts / t.sigma**2 * denoise(x, t.t)
        if not self.noise:
            return mean
        variance = posterior_variance(t, s) ** (1 - self.variance) * var_ts**self.variance
        return mean + _added_noise(key, x, s, self.noise * jnp.sqrt(variance))


@dataclass(frozen=True)
class DDIM(Sampler):
    """Implicit models (Song et al. 2021): eta 0 is deterministic, eta 1 is DDPM."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "0 <= eta <= 1", self)

    @property
    def follows_ode(self) -> bool:  # type: ignore[override]
        return self.eta == 0

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        x_0 = denoise(x, t.t)
        eps = t.noise(x, x_0)
        if not self.eta:
            return s.perturb(x_0, eps)
        variance = self.eta**2 * posterior_variance(t, s)
        kept = jnp.sqrt(jnp.maximum(s.sigma**2 - variance, 0))
        return s.alpha * x_0 + kept * eps + _added_noise(key, x, s, jnp.sqrt(variance))


# --- on the probability-flow ODE, in t ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Euler(Sampler):
    """Euler's method on the probability-flow ODE."""

    follows_ode = True

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        x_0 = denoise(x, t.t)
        return _or_arrive(x + (s.t - t.t) * t.velocity(x, x_0), x_0, s)


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method on the probability-flow ODE, two evaluations a step but the last."""

    follows_ode = True

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        x_0 = denoise(x, t.t)
        here = t.velocity(x, x_0)

        def average() -> Image:
            euler = x + (s.t - t.t) * here
            there = s.velocity(euler, denoise(euler, s.t))
            return x + (s.t - t.t) * (here + there) / 2

        return lax.cond(s.sigma > 0, average, lambda: s.alpha * x_0)


@dataclass(frozen=True)
class AdaptiveODE(Sampler):
    """The probability-flow ODE solved to a tolerance by Tsitouras' 5(4) method, each image with steps of its own.

    One step of the grid is one whole solve: `grids.Uniform()(process, 1)`. Below `process.t_min` the last stretch to
    clean data is a single DDIM step. An image not done after `max_steps` steps (of six evaluations) comes out as NaN.
    """

    follows_ode = True
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 1000

    def __post_init__(self) -> None:
        require(self.rtol > 0 and self.atol > 0, "rtol > 0 and atol > 0", self)
        require(isinstance(self.max_steps, int) and self.max_steps >= 1, "max_steps >= 1, whole", self)

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
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


# --- on the probability-flow ODE of x / alpha, in sigma / alpha -----------------------------------------------------


@dataclass(frozen=True)
class EDM(Sampler):
    """Heun's method in the noise level, with churn (Karras et al. 2022); the step to clean data is Euler's.

    Before each step within s_min <= sigma / alpha <= s_max the level is raised by the factor
    1 + min(churn / steps, sqrt(2) - 1), by noise of deviation `s_noise`. Without churn it is deterministic.
    """

    churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        require(self.churn >= 0, "churn >= 0", self)
        require(0 <= self.s_min <= self.s_max, "0 <= s_min <= s_max", self)
        require(self.s_noise >= 0, "s_noise >= 0", self)

    @property
    def follows_ode(self) -> bool:  # type: ignore[override]
        return self.churn == 0

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        if self.churn:
            x, t = self._churned(process, key, x, t, steps=len(path.t) - 1)
        x_0 = denoise(x, t.t)
        eps = t.noise(x, x_0)
        euler = s.perturb(x_0, eps)

        def average() -> Image:
            there = s.noise(euler, denoise(euler, s.t))
            return euler + s.alpha * (s.ratio - t.ratio) * (there - eps) / 2

        return lax.cond((s.sigma > 0) & (t.alpha > 0) & (s.alpha > 0), average, lambda: euler)

    def _churned(self, process: Process, key: KeyArray, x: Image, t: Point, steps: int) -> tuple[Image, Point]:
        gamma = min(self.churn / steps, math.sqrt(2) - 1)
        factor = jnp.where((self.s_min <= t.ratio) & (t.ratio <= self.s_max), 1 + gamma, 1.0)
        most = process.at(1.0).ratio / t.ratio  # never noisier than the process; NaN, and so no churn, at alpha = 0
        factor = jnp.minimum(factor, most)
        t_hat = process.at(process.time(t.log_snr - 2 * jnp.log(factor)))
        added = self.s_noise * t.ratio * jnp.sqrt(factor**2 - 1) * normal(key, x.shape, x.dtype)
        churned = t_hat.alpha * (x / t.alpha + added), t_hat
        return jax.tree.map(lambda raised, left: jnp.where(factor > 1, raised, left), churned, (x, t))


# --- exponential integrators, in lambda: the linear part exact, x_0 a polynomial of lambda --------------------------


def _exponential_step(x: Image, x_0: Image, t: Point, s: Point, h: Scalar) -> Image:
    """The exact solution from t to s for a constant x_0, first order in general: DDIM in another form."""
    return s.sigma / t.sigma * x + _share(t, s, h) * x_0


def _share(t: Point, s: Point, h: Scalar) -> Scalar:
    """Of x_0 in x_s: without cancellation, and where h is infinite, at clean data or pure noise, as it reads then."""
    return jnp.where(jnp.isfinite(h), -s.alpha * jnp.expm1(-h), s.alpha - s.sigma / t.sigma * t.alpha)


@dataclass(frozen=True)
class DPMpp2S(Sampler):
    """DPM-Solver++(2S) (Lu et al. 2022): second order in one step, by an evaluation in its middle."""

    follows_ode = True

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        h = s.half_log_snr - t.half_log_snr
        x_0 = denoise(x, t.t)

        def second_order() -> Image:
            middle = process.at(process.time(t.log_snr + h))
            x_middle = _exponential_step(x, x_0, t, middle, h / 2)
            return _exponential_step(x, denoise(x_middle, middle.t), t, s, h)

        return lax.cond(jnp.isfinite(h), second_order, lambda: _exponential_step(x, x_0, t, s, h))


def _remember(x_0s: Float[Array, "n ..."], i: Index, x_0: Image) -> Float[Array, "n ..."]:
    """Writes what step i expected into row i mod n: a ring, so that the loop copies nothing."""
    return x_0s.at[_row(x_0s, i)].set(x_0, mode="promise_in_bounds")


def _recall(x_0s: Float[Array, "n ..."], i: Index) -> Image:
    """What step i expected, for the last n steps."""
    return x_0s.at[_row(x_0s, i)].get(mode="promise_in_bounds")


def _row(x_0s: Array, i: Index) -> Index:
    return lax.rem(jnp.asarray(i) + len(x_0s), len(x_0s))


class _History(NamedTuple):
    x: Image
    x_0s: Float[Array, "n ..."]


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """DPM-Solver++(2M), multistep (Lu et al. 2022): second order for one evaluation a step.

    `eta` 1 solves the reverse SDE instead of the ODE: 2M SDE; values between mix the two.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "0 <= eta <= 1", self)

    @property
    def follows_ode(self) -> bool:  # type: ignore[override]
        return self.eta == 0

    def init(self, x):
        return _History(x, jnp.zeros((2, *x.shape), x.dtype))

    def image(self, carry):
        return carry.x

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry.x, path[i], path[i + 1]
        h = s.half_log_snr - t.half_log_snr
        h_last = t.half_log_snr - path[i - 1].half_log_snr
        second_order = (i > 0) & jnp.isfinite(h) & jnp.isfinite(h_last)
        bend = jnp.where(second_order, h / (2 * h_last), 0.0)

        x_0s = _remember(carry.x_0s, i, denoise(x, t.t))
        x_0 = (1 + bend) * _recall(x_0s, i) - bend * _recall(x_0s, i - 1)
        if not self.eta:
            return _History(_exponential_step(x, x_0, t, s, h), x_0s)
        mean = _exponential_step(jnp.exp(-self.eta * h) * x, x_0, t, s, (1 + self.eta) * h)
        added = s.sigma * jnp.sqrt(-jnp.expm1(-2 * self.eta * h))
        return _History(mean + _added_noise(key, x, s, added), x_0s)


class _Corrected(NamedTuple):
    x: Image  # as predicted at t, to be corrected once x_0 is known there
    behind: Image  # as corrected one step ago
    x_0s: Float[Array, "n ..."]


@dataclass(frozen=True)
class UniPC(Sampler):
    """Unified predictor-corrector (Zhao et al. 2023), B(h) = e^h - 1, data prediction, one evaluation a step.

    A predictor of order `order` and a corrector, one order better, that reuses the next evaluation. The first steps
    are of lower order: 3 becomes 4 only on a grid that starts from much noise.
    """

    follows_ode = True
    order: int = 2

    def __post_init__(self) -> None:
        require(isinstance(self.order, int) and 1 <= self.order <= 3, "order 1, 2 or 3", self)

    def init(self, x):
        return _Corrected(x, x, jnp.zeros((self.order + 1, *x.shape), x.dtype))

    def image(self, carry):
        return carry.x

    def step(self, denoise, process, key, carry, path, i):
        x_0s = _remember(carry.x_0s, i, denoise(carry.x, path[i].t))
        corrected = self._update(carry.behind, x_0s, path, i - 1, corrector=True)
        x = jnp.where(i > 0, corrected, carry.x)
        return _Corrected(self._update(x, x_0s, path, i, corrector=False), x, x_0s)

    def _update(self, x: Image, x_0s: Array, path: Point, i: Index, corrector: bool) -> Image:
        """From t to s with x_0 a polynomial through the points behind t, and through s too if it is known there."""
        t, s = path[i], path[i + 1]
        h = s.half_log_snr - t.half_log_snr
        behind = [-k for k in range(1, self.order)]
        others = [1, *behind] if corrector else behind  # newest first: the oldest may be missing
        first_order = _exponential_step(x, _recall(x_0s, i), t, s, h)
        if not others:
            return first_order
        lambdas = jnp.stack([path[i + k].half_log_snr for k in others])
        known = jnp.stack([i + k >= 0 for k in others]) & jnp.isfinite(lambdas) & jnp.isfinite(h)
        r = jnp.where(known, (lambdas - t.half_log_snr) / h, 1.0)
        rho_r = _unipc_weights(jnp.where(jnp.isfinite(h), h, 1.0), r, known) / r
        differences = [_recall(x_0s, i + k) - _recall(x_0s, i) for k in others]
        return first_order + _share(t, s, h) * sum(map(jnp.multiply, rho_r, differences))


_TAU, _WEIGHT = np.polynomial.legendre.leggauss(16)
_TAU, _WEIGHT = (_TAU + 1) / 2, _WEIGHT / 2


def _unipc_weights(h: Scalar, r: Float[Array, "n"], known: Array) -> Float[Array, "n"]:
    """The paper's rho: sum_k rho_k r_k^(j-1) = j! phi_(j+1)(-h) / phi_1(-h) over the known points; 1/2 for one.

    The right-hand side is the mean of tau^j on [0, 1] with density ~ e^(h tau); by quadrature, since the recursion
    for phi cancels to nothing in float32 where h is small.
    """
    j = np.arange(1, len(r) + 1)
    tau = jnp.asarray(_TAU, h.dtype)
    density = jnp.asarray(_WEIGHT, h.dtype) * jnp.exp(h * (tau - 1))
    targets = (tau[None, :] ** j[:, None]) @ density / density.sum()
    powers = r[None, :] ** (j - 1)[:, None]
    solved = jnp.linalg.solve(jnp.where(known[None, :] & known[:, None], powers, jnp.eye(len(r))), targets)
    return jnp.where(known, jnp.where(known.sum() == 1, 0.5, solved), 0.0)


# --- on the reverse SDE ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """Euler-Maruyama on the reverse SDE, whose drift is infinite where alpha = 0."""

    needs_signal = True

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        x_0 = denoise(x, t.t)
        mean = x + (s.t - t.t) * (t.drift * x - t.diffusion**2 * t.score(x, x_0))
        return _or_arrive(mean, x_0, s) + _added_noise(key, x, s, t.diffusion * jnp.sqrt(t.t - s.t))


@dataclass(frozen=True)
class ReverseDiffusion(Sampler):
    """The reverse-diffusion predictor (Song et al. 2021): the forward step's own mean and variance, turned round."""

    def step(self, denoise, process, key, carry, path, i):
        x, t, s = carry, path[i], path[i + 1]
        x_0 = denoise(x, t.t)
        alpha_ts, var_ts = transition(t, s)
        mean = (2 - alpha_ts) * x + var_ts * t.score(x, x_0)
        return _or_arrive(mean, x_0, s) + _added_noise(key, x, s, jnp.sqrt(var_ts))


@dataclass(frozen=True)
class Langevin(Sampler):
    """Langevin steps at the noise of s: a corrector; on its own, annealed Langevin dynamics (Song & Ermon 2019).

    The step size is 2 (snr sigma)², the expectation of the paper's: norms over the batch would tie images together.
    """

    snr: float = 0.16
    corrections: int = 1

    def __post_init__(self) -> None:
        require(0 < self.snr < 1, "0 < snr < 1", self)
        require(isinstance(self.corrections, int) and self.corrections >= 1, "corrections >= 1, whole", self)

    def step(self, denoise, process, key, carry, path, i):
        s = path[i + 1]

        def correct(k: Array, x: Image) -> Image:
            z = normal(jax.random.fold_in(key, k), x.shape, x.dtype)
            step_size = 2 * (self.snr * s.sigma) ** 2
            return x + step_size * s.score(x, denoise(x, s.t)) + jnp.sqrt(2 * step_size) * z

        return lax.cond(s.sigma > 0, lambda: lax.fori_loop(0, self.corrections, correct, carry), lambda: carry)


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """After every step of the predictor, one of the corrector at the noise it arrived at (Song et al. 2021)."""

    predictor: Sampler = ReverseDiffusion()
    corrector: Sampler = Langevin()

    def __post_init__(self) -> None:
        parts = (self.predictor, self.corrector)
        single = all(isinstance(part, Sampler) and type(part).init is Sampler.init for part in parts)
        require(single, "two samplers without history, such as ReverseDiffusion() and Langevin()", self)

    @property
    def needs_signal(self) -> bool:  # type: ignore[override]
        return self.predictor.needs_signal

    def step(self, denoise, process, key, carry, path, i):
        x = self.predictor.step(denoise, process, jax.random.fold_in(key, 0), carry, path, i)
        return self.corrector.step(denoise, process, jax.random.fold_in(key, 1), x, path, i)


@dataclass(frozen=True)
class Resampling(Sampler):
    """Every step but the last taken `times` times, with noise put back between (RePaint, Lugmayr et al. 2022).

    What is painted into an image so gets the time to agree with what is known of it.
    """

    sampler: Sampler = DDPM()
    times: int = 5

    def __post_init__(self) -> None:
        single = isinstance(self.sampler, Sampler) and type(self.sampler).init is Sampler.init
        require(single, "a sampler without history, such as DDPM()", self)
        require(isinstance(self.times, int) and self.times >= 1, "times >= 1, whole", self)

    @property
    def needs_signal(self) -> bool:  # type: ignore[override]
        return self.sampler.needs_signal

    def step(self, denoise, process, key, carry, path, i):
        t, s = path[i], path[i + 1]
        alpha_ts, var_ts = transition(t, s)

        def again(k: Array, x: Image) -> Image:
            stepped, back = jax.random.split(jax.random.fold_in(key, k))
            noisier = alpha_ts * x + jnp.sqrt(var_ts) * normal(back, x.shape, x.dtype)
            return self.sampler.step(denoise, process, stepped, jnp.where(k > 0, noisier, x), path, i)

        return lax.fori_loop(0, jnp.where(s.sigma > 0, self.times, 1), again, carry)
