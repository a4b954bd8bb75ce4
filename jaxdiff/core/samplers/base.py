"""What a sampler is, and what the steps of several share."""

from typing import Any

import jax.numpy as jnp

from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Image, Point, Scalar
from jaxdiff.core.rng import KeyArray, normal


class FlowMap:
    """(x_t, t, r, *condition) -> x_r, for r <= t: see `jaxdiff.core.flow_maps`."""

    only_to_data = False  # True if it knows r = 0 alone

    def __call__(self, x_t: Image, t: Scalar, r: Scalar, *condition: Any) -> Image:
        raise NotImplementedError


class Sampler:
    """A frozen dataclass of parameters with a `step` from time t to time s < t, both of them Points of the process:

        @dataclass(frozen=True)
        class Euler(Sampler):
            def step(self, denoise: Denoiser, key: KeyArray, x: Image, t: Point, s: Point) -> Image:
                return x + (s.t - t.t) * t.velocity(x, denoise(x, t.t))

    One that remembers earlier steps hands on more than the image: `init` makes what the first step gets, `image` finds
    the image in it.
    """

    needs_signal = False  # True if it cannot start where alpha = 0
    follows_ode = False  # True if it approximates the probability-flow ODE, and so can go up it as well
    corrects = False  # True if its step stays at s, where the image is already
    jumps = False  # True if its step takes a flow map in place of a denoiser
    only_to_data = False  # True if all of these jumps are to r = 0

    def over(self, steps: int) -> "Sampler":
        """The same for a grid of so many steps, if their number matters."""
        return self

    def init(self, x: Image, t: Point) -> Any:
        """The carry before the first step, from t."""
        return x

    def step(self, denoise: Denoiser, key: KeyArray, x: Any, t: Point, s: Point) -> Any:
        """From carry to carry, or from image to image where the carry is the image."""
        raise NotImplementedError

    def image(self, carry: Any) -> Image:
        """The image in a carry."""
        return carry


def is_single(sampler: object) -> bool:
    """Whether it walks a denoiser and its carry is the image alone."""
    return isinstance(sampler, Sampler) and type(sampler).init is Sampler.init and not sampler.jumps


def walks_ode(sampler: object) -> bool:
    """Whether it takes a denoiser along the probability-flow ODE."""
    return isinstance(sampler, Sampler) and sampler.follows_ode and not sampler.jumps


def added_noise(key: KeyArray, x: Image, s: Point, deviation: Scalar) -> Image:
    """Noise of this deviation, none on arrival at clean data."""
    return jnp.where(s.sigma > 0, deviation, 0.0) * normal(key, x.shape, x.dtype)


def or_arrive(step: Image, x_0: Image, s: Point) -> Image:
    """The step; on arrival at clean data x_0, which steps in t would miss: sigma may go as the square root of t."""
    return jnp.where(s.sigma > 0, step, s.alpha * x_0)


# --- exponential integrators, in lambda: the linear part exact, x_0 a polynomial of lambda --------------------------


def exponential_step(x: Image, x_0: Image, t: Point, s: Point, h: Scalar) -> Image:
    """x_s = sigma_s / sigma_t x + alpha_s (1 - e^-h) x_0: exact for a constant x_0, DDIM in another form."""
    return s.sigma / t.sigma * x + share(t, s, h) * x_0


def share(t: Point, s: Point, h: Scalar) -> Scalar:
    """The coefficient of x_0 in x_s, alpha_s (1 - e^-h), without cancellation; where h is infinite, its limit."""
    finite = jnp.isfinite(h)
    of_finite = -s.alpha * jnp.expm1(-jnp.where(finite, h, 0.0))  # masked first, else its gradient is NaN
    return jnp.where(finite, of_finite, s.alpha - s.sigma / t.sigma * t.alpha)
