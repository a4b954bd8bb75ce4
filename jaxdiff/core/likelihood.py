"""log p(x_0) of one image: along the probability-flow ODE, or bounded by the variational bound.

Both are integrals over l = log-SNR, in which all processes are one. With c² = sigmoid(l), y = c x_t / alpha is what x_t
would be if alpha² + sigma² were 1, and (Song et al. 2021a; Kingma et al. 2021)

    dy/dl = c (D(x_t) - c y) / 2,    d log p(y) / dl = - div dy/dl
    -log p(x_0) <= 1/2 ∫ exp(l) E|x_0 - D(x_t)|² dl + what the two ends cost

The prior is what samplers start from: x_t ~ N(0, sigma²) at the noisiest time.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.base.checks import require, whole
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Image, Process, Scalar
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.nets import machine

AT_ONCE = 64  # backward passes


class Range(NamedTuple):
    """The log-SNR at which images end as data, and at which they begin as noise."""

    data: Scalar  # where images end as data, the larger
    noise: Scalar  # where they begin as noise


def range_of(process: Process, t_max: float = 1.0) -> Range:
    """All that is finite, up to the time t_max."""
    return Range(process.log_snr(process.t_min), process.log_snr(min(t_max, process.t_max)))


def _c(log_snr: Scalar) -> Scalar:
    return jnp.sqrt(jax.nn.sigmoid(log_snr))


def _denoised(denoise: Denoiser, process: Process, y: Image, log_snr: Scalar) -> Image:
    """D(x_t), of y."""
    t = process.time(log_snr)
    return denoise(y * process.alpha(t) / _c(log_snr), t)


def _normal_log_density(x: Image) -> Scalar:
    return -jnp.sum(x**2 + math.log(2 * math.pi)) / 2


# --- the probability-flow ODE -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlowODE:
    """The probability-flow ODE from data to noise and back, and the density that it gives to each image.

    Solved by a 5(4) method (Tsitouras 2011) to a tolerance, or in `steps` equal steps of log-SNR. The divergence is the
    exact trace if there are no probes, N backward passes for N pixels; with probes e (of +-1) it is the mean of e . J e
    (Hutchinson 1990), one backward pass each. An image not done after `max_steps` comes out as NaN.
    """

    rtol: float = 1e-5  # tolerance of the error of a step, relative
    atol: float = 1e-5  # absolute tolerance, added to that
    steps: int | None = None  # equal ones of log-SNR; None: to the tolerance
    max_steps: int = 2000  # of one image, which is NaN if it needs more

    def __post_init__(self) -> None:
        require(self.rtol > 0 and self.atol > 0, "rtol > 0 and atol > 0", self)
        whole("max_steps", self.max_steps, 1, 2**31)
        if self.steps is not None:
            whole("steps", self.steps, 1, 2**20)

    def noise(
        self, denoise: Denoiser, process: Process, x_0: Image, probes: Array | None = None, t_max: float = 1.0
    ) -> tuple[Image, Scalar]:
        """The noise N(0, 1) from which x_0 comes, and log p(x_0) in nats."""
        ends = range_of(process, t_max)
        y, gained = self._solve(denoise, process, _c(ends.data) * x_0, ends.data, ends.noise, probes)
        noise = y / _c(-ends.noise)
        return noise, _normal_log_density(noise) + gained + self._scale(ends, x_0)

    def image(
        self, denoise: Denoiser, process: Process, noise: Image, probes: Array | None = None, t_max: float = 1.0
    ) -> tuple[Image, Scalar]:
        """The way back: x_0, and log p(x_0) in nats."""
        ends = range_of(process, t_max)
        y, lost = self._solve(denoise, process, _c(-ends.noise) * noise, ends.noise, ends.data, probes)
        return y / _c(ends.data), _normal_log_density(noise) - lost + self._scale(ends, noise)

    @staticmethod
    def _scale(ends: Range, x: Image) -> Scalar:
        """What the densities gain by dy = c dx_0 at one end and dy = s d noise at the other."""
        return x.size * (jnp.log(_c(ends.data)) - jnp.log(_c(-ends.noise)))

    def _solve(
        self, denoise: Denoiser, process: Process, y: Image, start: Scalar, stop: Scalar, probes: Array | None
    ) -> tuple[Image, Scalar]:
        """y at the other end, and the integral of the divergence on the way."""
        span = stop - start

        def field(u: Any, state: tuple[Image, Scalar], _: Any) -> tuple[Image, Scalar]:
            log_snr = start + u * span
            c = _c(log_snr)

            def velocity(y: Image) -> Image:
                return span * c * (_denoised(denoise, process, y, log_snr) - c * y) / 2

            return with_divergence(velocity, state[0], probes)

        how: dict[str, Any] = {"dt0": 0.01, "stepsize_controller": diffrax.PIDController(self.rtol, self.atol)}
        if self.steps is not None:
            how = {"dt0": 1 / self.steps, "stepsize_controller": diffrax.ConstantStepSize()}
        most = self.max_steps if self.steps is None else self.steps + 1  # one more, for what rounding leaves
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, y0=(y, jnp.zeros((), y.dtype)), max_steps=most,
            throw=False, **how,
        )  # fmt: skip
        done = diffrax.is_successful(solution.result)
        return jax.tree.map(lambda leaf: jnp.where(done, leaf[0], jnp.nan), solution.ys)


def with_divergence(field: Denoiser, y: Image, probes: Array | None) -> tuple[Image, Scalar]:
    """A vector field at y, and its divergence: by backward passes, which all networks have that can be trained."""
    with machine.differentiable():
        value, pull = jax.vjp(field, y)
    along = jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape) if probes is None else probes
    each = jax.lax.map(lambda e: jnp.sum(e * pull(e)[0]), along, batch_size=min(len(along), AT_ONCE))
    return value, jnp.sum(each) if probes is None else jnp.mean(each)


def rademacher(key: KeyArray, count: int, shape: tuple[int, ...]) -> Array:
    """Probes of +-1."""
    return jnp.sign(normal(key, (count, *shape)))


# --- the variational bound --------------------------------------------------------------------------------------------


def variational_bound(
    denoise: Denoiser,
    process: Process,
    x_0: Image,
    key: KeyArray,
    evaluations: int = 16,
    levels: Array | None = None,
    t_max: float = 1.0,
) -> Scalar:
    """An unbiased estimate of an upper bound of -log p(x_0) in nats, from so many noise levels spread evenly.

    If `levels` are given, the values that a pixel can have, x_0 has only these and p(x_0) is a probability; else it is
    a density.
    """
    ends = range_of(process, t_max)
    for_ends, for_place, for_noise = jax.random.split(key, 3)
    places = (jnp.arange(evaluations) + jax.random.uniform(for_place)) / evaluations

    def loss(place: Scalar, key: KeyArray) -> Scalar:
        log_snr = ends.data + place * (ends.noise - ends.data)
        y = _c(log_snr) * x_0 + _c(-log_snr) * normal(key, x_0.shape, x_0.dtype)
        return jnp.exp(log_snr) * jnp.sum((x_0 - _denoised(denoise, process, y, log_snr)) ** 2)

    losses = jax.lax.map(lambda both: loss(*both), (places, jax.random.split(for_noise, evaluations)))
    diffusion = (ends.data - ends.noise) / 2 * jnp.mean(losses)
    prior = jnp.exp(ends.noise) * jnp.sum(x_0**2) / 2  # KL(q(x_t | x_0) || N(0, sigma²)) at the noisiest time
    return diffusion + prior + _reconstruction(x_0, ends.data, for_ends, levels)


def _reconstruction(x_0: Image, log_snr: Scalar, key: KeyArray, levels: Array | None) -> Scalar:
    """E[-log p(x_0 | x_t)] at the time of the least noise, where p is as q would have it if all levels were alike."""
    if levels is None:
        return x_0.size / 2 * (math.log(2 * math.pi) + 1 - log_snr)
    seen = x_0 + jnp.exp(-log_snr / 2) * normal(key, x_0.shape, x_0.dtype)
    apart = lambda x: x[..., None] - levels.reshape(*(1,) * x.ndim, -1)  # noqa: E731
    scores = -jnp.exp(log_snr) / 2 * apart(seen) ** 2
    chosen = jnp.argmin(jnp.abs(apart(x_0)), -1, keepdims=True)
    return -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(scores), chosen, -1))
