"""Guidance and other transforms, from denoiser to denoiser; they compose freely, and no sampler knows of them.

The scale means the same throughout: at every noise level the score is that of p(x_t) p(y|x_t)^scale. 0 is
unconditional, 1 the plain conditional model, above 1 sharpens. (At 0 and 1 these are the marginals of one diffusion,
and every sampler arrives at p(x) p(y|x)^scale; else they are not, and only Langevin dynamics converges to it.)
Floats among scales, thresholds and intervals are data: changing them compiles nothing anew.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from jaxdiff.core.denoise import Denoiser, promoted
from jaxdiff.core.process import Image, Process, Scalar

LogProb = Callable[..., Scalar]  # (x_t, t, *condition) -> log p(y | x_t)


@struct.dataclass
class ClassifierGuidance:
    """Classifier guidance: adds scale * grad log p(y | x_t) to the score (Dhariwal & Nichol 2021).

    On top of a model that is `conditional` on y already, which has one power of p(y|x) in it, scale - 1 is added.
    Several add up by nesting. The gradient is taken in float32 (or more), whatever the networks compute in.
    """

    denoise: Denoiser  # what is guided
    log_prob: LogProb  # (x_t, t, *condition) -> log p(y | x_t)
    process: Process = struct.field(pytree_node=False)  # on which both were trained
    scale: float = 1.0  # the power of p(y | x_t)
    conditional: bool = struct.field(pytree_node=False, default=False)  # whether `denoise` is told y already

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        asked = jnp.minimum(t, self.process.t_max)  # what the classifier was trained on; c_noise may be infinite beyond
        log_prob = lambda x: self.log_prob(x, asked, *condition).astype(wide.dtype)  # noqa: E731
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        # at pure noise the gradient is 0 and its factor infinite: of a learned one noise would be left, so no guidance
        reach = jnp.where(alpha > 0, sigma**2 / alpha, 0.0)
        power = self.scale - 1 if self.conditional else self.scale
        return self.denoise(x, t, *condition) + (power * reach * jax.grad(log_prob)(wide)).astype(x.dtype)


@struct.dataclass
class Unconditional:
    """A denoiser that takes no condition, where one is given: under a classifier that does, say."""

    denoise: Denoiser  # (x_t, t) -> E[x_0 | x_t]

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        return self.denoise(x, t)


@struct.dataclass
class ClassifierFreeGuidance:
    """Classifier-free guidance: from the expectation under the null condition to that under the given one, and beyond.

    Both evaluations are one batched call (Ho & Salimans 2022). `rescale` takes back, by that share, what guidance adds
    to the deviation of x_0. The paper rescales the output of its network, which is v (Lin et al. 2024); x_0 means the
    same for all networks, and at pure noise, where v = -x_0, the two agree.
    """

    denoise: Denoiser  # a conditional one
    null: Any  # the condition that stands for none
    scale: float = 1.0  # 0 the null condition, 1 the given one, above 1 beyond it
    rescale: float = 0.0  # the share of the added deviation that is taken back

    def __call__(self, x: Image, t: Scalar, condition: Any = None) -> Image:
        if condition is None or self.null is None:
            raise ValueError("classifier-free guidance needs a condition (sample's `conditions`) and a null one")
        both = jax.tree.map(lambda given, null: jnp.stack(promoted(given, null)), condition, self.null)
        given, null = jax.vmap(self.denoise, in_axes=(None, None, 0))(x, t, both)
        guided = null + self.scale * (given - null)
        variances = jnp.stack([jnp.var(given), jnp.var(guided)])
        of_given, of_guided = jnp.where(jnp.all(variances > 0), variances, 1.0)  # sqrt has no gradient at 0
        return guided * (1 - self.rescale + self.rescale * jnp.sqrt(of_given / of_guided))


@struct.dataclass
class Autoguidance:
    """Autoguidance: away from a worse version of the same model (Karras et al. 2024b). Scale 1 is the model alone."""

    denoise: Denoiser  # the model
    worse: Denoiser  # a smaller one, or one less trained
    scale: float = 1.0  # 0 the worse one, 1 the model, above 1 beyond it

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        worse = self.worse(x, t, *condition)
        return worse + self.scale * (self.denoise(x, t, *condition) - worse)


@struct.dataclass
class Within:
    """One denoiser where low <= sigma / alpha <= high, else another: guidance in an interval.

    See Kynkäänniemi et al. 2024. Only the one that is needed runs, unless images are at different times.
    """

    denoise: Denoiser  # within the interval
    otherwise: Denoiser  # outside it
    process: Process = struct.field(pytree_node=False)  # of which sigma / alpha is asked
    low: float = 0.0  # the smallest sigma / alpha within
    high: float = math.inf  # the largest

    def __post_init__(self) -> None:
        _require("low < high", self.low, self.high)

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        ratio = self.process.at(t).ratio
        inside = (self.low <= ratio) & (ratio <= self.high)
        return lax.cond(inside, lambda: self.denoise(x, t, *condition), lambda: self.otherwise(x, t, *condition))


@struct.dataclass
class Clip:
    """Static thresholding: the expected clean image, cut off at the range of the data."""

    denoise: Denoiser  # what is cut off
    low: float = -1.0  # the smallest value of the data
    high: float = 1.0  # the largest

    def __post_init__(self) -> None:
        _require("low < high", self.low, self.high)

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        return jnp.clip(self.denoise(x, t, *condition), self.low, self.high)


@struct.dataclass
class DynamicThreshold:
    """Cut off at a quantile of the image's magnitudes, scaled to [-1, 1] (Saharia et al. 2022)."""

    denoise: Denoiser  # what is cut off
    quantile: float = 0.995  # of the magnitudes; where it is below 1, the limit is 1

    def __post_init__(self) -> None:
        _require("0 < quantile <= 1", 0.0, self.quantile, math.nextafter(1, 2))

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        x_0 = self.denoise(x, t, *condition)
        limit = jnp.maximum(1.0, jnp.quantile(jnp.abs(x_0), self.quantile))
        return jnp.clip(x_0, -limit, limit) / limit


def _require(legal: str, *rising: Any) -> None:
    """Checks plain numbers only: inside a compiled program the fields are traced."""
    if all(isinstance(value, int | float) for value in rising) and not all(a < b for a, b in pairwise(rising)):
        raise ValueError(f"needs {legal}, got {rising}")
