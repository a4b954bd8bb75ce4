"""How noise is added: x_t = alpha(t) x_0 + sigma(t) eps, with eps ~ N(0, 1) and t in [0, 1]; t = 0 is data.

A process is those two functions. Everything else (log-SNR, drift, diffusion, velocity, posterior variance) follows
from them by autodiff, in `Process.at`, and by algebra, in the `Point` that it returns. The letters are those of the
papers: t is the time now, s < t the time after the next step, SNR = alpha² / sigma².
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int

Scalar = Float[Array, ""]
Image = Float[Array, "..."]  # one image, of any rank
Time = Scalar | float
Index = Int[Array, ""] | int


@struct.dataclass
class Point:
    """A process at one time, in which all steps and targets are written; or, with a leading axis, on a whole grid."""

    t: Scalar  # the time
    alpha: Scalar  # the factor of the data
    sigma: Scalar  # the deviation of the noise
    log_snr: Scalar  # log(alpha² / sigma²)
    alpha_dot: Scalar  # d alpha / dt
    sigma_dot: Scalar  # d sigma / dt
    process: "Process" = struct.field(pytree_node=False)  # of which it is a point

    def __getitem__(self, i: Index) -> "Point":
        return jax.tree.map(lambda values: values[i], self)

    @property
    def half_log_snr(self) -> Scalar:
        """lambda, in the letters of exponential integrators."""
        return self.log_snr / 2

    @property
    def ratio(self) -> Scalar:
        """sigma / alpha: the noise level in units of the data, which EDM calls sigma."""
        return self.sigma / self.alpha

    @property
    def drift(self) -> Scalar:
        """f of the SDE dx = f(t) x dt + g(t) dw with these marginals: f = d log alpha / dt."""
        return self.alpha_dot / self.alpha

    @property
    def diffusion(self) -> Scalar:
        """g of that SDE: g² = d sigma² / dt - 2 f sigma²."""
        return jnp.sqrt(2 * self.sigma * (self.sigma_dot - self.drift * self.sigma))

    def perturb(self, x_0: Image, eps: Image) -> Image:
        """x_t, from clean data and noise."""
        return self.alpha * x_0 + self.sigma * eps

    def noise(self, x_t: Image, x_0: Image) -> Image:
        """The eps with which `perturb` makes x_t of x_0."""
        return (x_t - self.alpha * x_0) / self.sigma

    def velocity(self, x_t: Image, x_0: Image) -> Image:
        """dx/dt of the probability-flow ODE where x_0 is the expected clean image: alpha' x_0 + sigma' eps.

        The same as f x - g² score / 2, but finite where alpha = 0 and f is not.
        """
        return self.alpha_dot * x_0 + self.sigma_dot * self.noise(x_t, x_0)

    def score(self, x_t: Image, x_0: Image) -> Image:
        """grad log p(x_t), where x_0 is the expected clean image: -eps / sigma."""
        return -self.noise(x_t, x_0) / self.sigma


def transition(t: Point, s: Point) -> tuple[Scalar, Scalar]:
    """p(x_t | x_s) = N(alpha_ts x_s, var_ts) for s < t: returns (alpha_ts, var_ts).

    var_ts = sigma_t² - alpha_ts² sigma_s², without the cancellation.
    """
    return t.alpha / s.alpha, -(t.sigma**2) * jnp.expm1(t.log_snr - s.log_snr)


def posterior_variance(t: Point, s: Point) -> Scalar:
    """The variance of p(x_s | x_t, x_0), DDPM's "fixed small" one."""
    _, var_ts = transition(t, s)
    return var_ts * (s.sigma / t.sigma) ** 2


class Process(ABC):
    """x_t = alpha(t) x_0 + sigma(t) eps. A subclass gives `alpha`, `sigma` and, in closed form if it can, `time`.

    If sigma(0) > 0, samples keep that much noise.
    """

    @abstractmethod
    def alpha(self, t: Time) -> Scalar:
        """The factor of the data at time t: falls from 1."""

    @abstractmethod
    def sigma(self, t: Time) -> Scalar:
        """The deviation of the noise at time t: rises."""

    def log_snr(self, t: Time) -> Scalar:
        """log(alpha² / sigma²): falls with t, from +inf where sigma(0) = 0, to -inf where alpha(1) = 0."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time(self, log_snr: Scalar) -> Scalar:
        """The inverse of `log_snr`; by bisection, within [0, 1], unless the subclass knows better."""
        return _bisected(self, jnp.asarray(log_snr, float))

    @property
    def t_min(self) -> float:
        """The smallest time that is trained on, and at which `LogSNR` and `Karras` evaluate: the log-SNR is finite."""
        return 1e-3

    @property
    def t_max(self) -> float:
        """The largest time with finite log-SNR: 1, or 0.999 where alpha(1) = 0."""
        with jax.ensure_compile_time_eval():
            return 1.0 if self.alpha(1.0) > 0 else 1.0 - 1e-3

    def at(self, t: Time) -> Point:
        """All there is to know at time t. The derivatives are autodiff's, never written by hand.

        Where the log-SNR is infinite (sigma = 0 or alpha = 0) no gradient flows to t: it would be infinite too.
        """
        t = jnp.asarray(t, float)
        t = jnp.where(jnp.isfinite(self.log_snr(lax.stop_gradient(t))), t, lax.stop_gradient(t))
        both = lambda t: (self.alpha(t), self.sigma(t))  # noqa: E731
        (alpha, sigma), (alpha_dot, sigma_dot) = jax.jvp(both, (t,), (jnp.ones_like(t),))
        return Point(t, alpha, sigma, self.log_snr(t), alpha_dot, sigma_dot, self)

    def at_log_snr(self, log_snr: Scalar) -> Point:
        """The same at the time of this log-SNR."""
        return self.at(self.time(log_snr))

    def perturb(self, x_0: Image, eps: Image, t: Time) -> Image:
        """x_t, from clean data and noise."""
        return self.at(t).perturb(x_0, eps)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _bisected(process: Process, log_snr: Scalar) -> Scalar:
    """The time of this log-SNR. Bisection has no gradient, the inverse of a function has: 1 over that function's."""

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        noisier = process.log_snr(middle) < log_snr
        return jnp.where(noisier, low, middle), jnp.where(noisier, middle, high)

    return lax.fori_loop(0, 64, halve, (jnp.zeros_like(log_snr), jnp.ones_like(log_snr)))[1]


@_bisected.defjvp
def _(process: Process, log_snr: tuple[Scalar], change: tuple[Scalar]) -> tuple[Scalar, Scalar]:
    t = _bisected(process, *log_snr)
    _, slope = jax.jvp(process.log_snr, (t,), (jnp.ones_like(t),))
    return t, change[0] * jnp.where(jnp.isfinite(slope), 1 / slope, 0.0)  # not where alpha or sigma is 0


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving, beta(t) linear from beta_min to beta_max: the limit of DDPM (Song et al. 2021a)."""

    beta_min: float = 0.1  # beta(0)
    beta_max: float = 20.0  # beta(1)

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max and self.beta_min + self.beta_max < 349):
            raise ValueError(
                f"needs 0 < beta_min <= beta_max, together below 349, or alpha(1) would be 0 in float32, got {self}"
            )

    def _log_alpha(self, t: Time) -> Scalar:
        return jnp.asarray(-0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min)

    def alpha(self, t: Time) -> Scalar:
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Time) -> Scalar:
        return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))

    def time(self, log_snr: Scalar) -> Scalar:
        return self._time_of(jax.nn.softplus(-log_snr) / 2)

    def _time_of(self, minus_log_alpha: Scalar) -> Scalar:
        slope = self.beta_max - self.beta_min
        return 4 * minus_log_alpha / (self.beta_min + jnp.sqrt(self.beta_min**2 + 4 * minus_log_alpha * slope))


@dataclass(frozen=True)
class SubVP(VP):
    """VP's alpha with less noise: sigma = 1 - alpha² (Song et al. 2021a)."""

    def sigma(self, t: Time) -> Scalar:
        return -jnp.expm1(2 * self._log_alpha(t))

    def time(self, log_snr: Scalar) -> Scalar:
        return self._time_of(jnp.arcsinh(jnp.exp(-log_snr / 2) / 2))  # 1/alpha - alpha = sigma/alpha


@dataclass(frozen=True)
class Cosine(Process):
    """A quarter turn from data to noise: alpha = cos(pi t / 2), sigma = sin(pi t / 2)."""

    def alpha(self, t: Time) -> Scalar:
        return jnp.sin(math.pi / 2 * (1.0 - t))  # exactly 0 at t = 1, as the cosine is not in floating point

    def sigma(self, t: Time) -> Scalar:
        return jnp.sin(math.pi / 2 * t)

    def time(self, log_snr: Scalar) -> Scalar:
        return 2 / math.pi * jnp.arctan(jnp.exp(-log_snr / 2))


@dataclass(frozen=True)
class Flow(Process):
    """A straight line from data to noise: alpha = 1 - t, sigma = t.

    That of flow matching (Lipman et al. 2023) and rectified flow (Liu et al. 2023).
    """

    def alpha(self, t: Time) -> Scalar:
        return jnp.asarray(1.0 - t)

    def sigma(self, t: Time) -> Scalar:
        return jnp.asarray(t, float)

    def time(self, log_snr: Scalar) -> Scalar:
        return jax.nn.sigmoid(-log_snr / 2)


class _Exploding(Process):
    """alpha = 1: the data stay, the noise grows."""

    def alpha(self, t: Time) -> Scalar:
        return jnp.ones_like(t, float)


def _check_levels(process: "VE | LinearVE") -> None:
    if not 1e-18 < process.sigma_min < process.sigma_max < 1e18:  # float32 has their squares
        raise ValueError(f"needs 1e-18 < sigma_min < sigma_max < 1e18, got {process}")


@dataclass(frozen=True)
class VE(_Exploding):
    """Variance exploding, sigma geometric from sigma_min to sigma_max (Song & Ermon 2019; Song et al. 2021a).

    The noise begins with sigma_min: right after t = 0, where there is none, as with every process.
    """

    sigma_min: float = 0.01  # right after t = 0
    sigma_max: float = 50.0  # at t = 1

    def __post_init__(self) -> None:
        _check_levels(self)

    @property
    def t_min(self) -> float:
        return 1e-5  # the paper's epsilon

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Time) -> Scalar:
        return jnp.where(jnp.asarray(t) > 0, self.sigma_min * jnp.exp(t * self._log_ratio), 0.0)

    def time(self, log_snr: Scalar) -> Scalar:
        t = (-log_snr / 2 - math.log(self.sigma_min)) / self._log_ratio
        return jnp.where(log_snr < math.inf, jnp.maximum(t, self.t_min), 0.0)


@dataclass(frozen=True)
class PowerVE(_Exploding):
    """The VE of score-model tutorials: diffusion g(t) = base^t, so sigma² = (base^(2t) - 1) / (2 ln base)."""

    base: float = 25.0  # of the power: above 1

    def __post_init__(self) -> None:
        if not 1 < self.base < 1e18:
            raise ValueError(f"needs 1 < base < 1e18, got {self}")

    def sigma(self, t: Time) -> Scalar:
        rate = 2 * math.log(self.base)
        return jnp.sqrt(jnp.expm1(rate * t) / rate)

    def time(self, log_snr: Scalar) -> Scalar:
        rate = 2 * math.log(self.base)
        return jnp.log1p(rate * jnp.exp(-log_snr)) / rate


@dataclass(frozen=True)
class LinearVE(_Exploding):
    """EDM's process: noise is time itself, sigma = t sigma_max; it matters from sigma_min up (Karras et al. 2022)."""

    sigma_min: float = 0.002  # at t_min: the smallest that is trained on
    sigma_max: float = 80.0  # at t = 1

    def __post_init__(self) -> None:
        _check_levels(self)

    @property
    def t_min(self) -> float:
        return self.sigma_min / self.sigma_max

    def sigma(self, t: Time) -> Scalar:
        return jnp.asarray(t * self.sigma_max)

    def time(self, log_snr: Scalar) -> Scalar:
        return jnp.exp(-log_snr / 2) / self.sigma_max
