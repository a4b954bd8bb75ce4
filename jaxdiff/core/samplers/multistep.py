"""Multistep samplers: exponential integrators that remember what earlier steps expected."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.base.checks import require
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Image, Point, Scalar
from jaxdiff.core.rng import KeyArray
from jaxdiff.core.samplers.base import Sampler, added_noise, exponential_step, share


class TwoSteps(NamedTuple):
    """What `DPMpp2M` keeps between steps."""

    x: Image  # the image now
    x_0: Image  # as expected one step ago
    half_log_snr: Scalar  # at that time; NaN before the first step


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """DPM-Solver++(2M), multistep (Lu et al. 2022): second order for one evaluation a step.

    `eta` 1 solves the reverse SDE instead of the ODE: 2M SDE; values between mix the two.
    """

    eta: float = 0.0  # the noise put in: 0 for the ODE, 1 for the reverse SDE

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "0 <= eta <= 1", self)

    @property
    def follows_ode(self) -> bool:  # type: ignore[override]
        return self.eta == 0

    def init(self, x: Image, t: Point) -> TwoSteps:
        return TwoSteps(x, jnp.zeros_like(x), jnp.full_like(t.half_log_snr, jnp.nan))

    def image(self, carry: TwoSteps) -> Image:
        return carry.x

    def step(self, denoise: Denoiser, key: KeyArray, carry: TwoSteps, t: Point, s: Point) -> TwoSteps:
        x, x_0_last, lambda_last = carry
        x_0 = denoise(x, t.t)
        h, h_last = s.half_log_snr - t.half_log_snr, t.half_log_snr - lambda_last
        known = (h_last != 0) & jnp.isfinite(h) & jnp.isfinite(h_last)
        bend = jnp.where(known, h / (2 * jnp.where(known, h_last, 1.0)), 0.0)
        bent = (1 + bend) * x_0 - bend * x_0_last
        if not self.eta:
            return TwoSteps(exponential_step(x, bent, t, s, h), x_0, t.half_log_snr)
        mean = exponential_step(jnp.exp(-self.eta * h) * x, bent, t, s, (1 + self.eta) * h)
        deviation = s.sigma * jnp.sqrt(-jnp.expm1(-2 * self.eta * h))
        return TwoSteps(mean + added_noise(key, x, s, deviation), x_0, t.half_log_snr)


class Expected(NamedTuple):
    """What was expected at one time."""

    half_log_snr: Scalar  # NaN before the first step
    x_0: Image  # the clean image


class Corrected(NamedTuple):
    """What `UniPC` keeps between steps."""

    x: Image  # as predicted at t, to be corrected once x_0 is known there
    behind: Image  # as corrected one step ago
    last: Point  # at that time; t itself at first
    history: tuple[Expected, ...]  # newest first


@dataclass(frozen=True)
class UniPC(Sampler):
    """Unified predictor-corrector (Zhao et al. 2023), B(h) = e^h - 1, data prediction, one evaluation a step.

    A predictor of order `order` and a corrector, one order better, that reuses the next evaluation. The first steps
    are of lower order; with order 3 their error hides the fourth order unless the grid starts at high noise.
    """

    follows_ode = True
    order: int = 2  # of the predictor: 1, 2 or 3

    def __post_init__(self) -> None:
        require(isinstance(self.order, int) and 1 <= self.order <= 3, "order 1, 2 or 3", self)

    def init(self, x: Image, t: Point) -> Corrected:
        nothing = Expected(jnp.full_like(t.half_log_snr, jnp.nan), jnp.zeros_like(x))
        return Corrected(x, x, t, (nothing,) * self.order)

    def image(self, carry: Corrected) -> Image:
        return carry.x

    def step(self, denoise: Denoiser, key: KeyArray, carry: Corrected, t: Point, s: Point) -> Corrected:
        now, (before, *older) = Expected(t.half_log_snr, denoise(carry.x, t.t)), carry.history
        x = unipc(carry.behind, before.x_0, carry.last, t, [now, *older])
        newer = [now, before, *older][: self.order]
        return Corrected(unipc(x, now.x_0, t, s, newer[1:]), x, t, tuple(newer))


def unipc(x: Image, x_0: Image, t: Point, s: Point, others: list[Expected]) -> Image:
    """From t to s with x_0 a polynomial of lambda: through x_0 at t and through those of the others that there are."""
    h = s.half_log_snr - t.half_log_snr
    first_order = exponential_step(x, x_0, t, s, h)
    if not others:
        return first_order
    steps = jnp.stack([other.half_log_snr for other in others]) - t.half_log_snr
    known = jnp.isfinite(steps) & (steps != 0) & jnp.isfinite(h)
    finite_h = jnp.where(known.any(), h, 1.0)
    r = jnp.where(known, jnp.where(known, steps, 1.0) / finite_h, 1.0)  # masked before too: else gradients are NaN
    rho_r = unipc_weights(finite_h, r, known) / r
    differences = [other.x_0 - x_0 for other in others]
    return first_order + share(t, s, h) * sum(map(jnp.multiply, rho_r, differences))


_TAU, _WEIGHT = np.polynomial.legendre.leggauss(16)
_TAU, _WEIGHT = (_TAU + 1) / 2, _WEIGHT / 2


def unipc_weights(h: Scalar, r: Float[Array, "n"], known: Array) -> Float[Array, "n"]:
    """The paper's rho: sum_k rho_k r_k^(j-1) = j! phi_(j+1)(-h) / phi_1(-h) over the known points; 1/2 for one.

    The right-hand side is the mean of tau^j on [0, 1] with density ~ e^(h tau); by quadrature, since the recursion
    for phi cancels to nothing in float32 where h is small.
    """
    j = np.arange(1, len(r) + 1)
    tau = jnp.asarray(_TAU, h.dtype)
    density = jnp.asarray(_WEIGHT, h.dtype) * jnp.exp(h * (tau - 1))
    targets = jnp.matmul(tau[None, :] ** j[:, None], density, precision="highest") / density.sum()
    powers = r[None, :] ** (j - 1)[:, None]
    solved = jnp.linalg.solve(jnp.where(known[None, :] & known[:, None], powers, jnp.eye(len(r))), targets)
    return jnp.where(known, jnp.where(known.sum() == 1, 0.5, solved), 0.0)
