"""From a network to a denoiser, D(x_t, t) = c_skip x_t + c_out F(c_in x_t, c_noise).

A denoiser is any function (x_t, t) -> E[x_0 | x_t] of one image. A conditional one takes a third argument, the
condition: a label, a sequence of embeddings, any tree of arrays.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from jaxdiff.core.c_noise import CNoise, index
from jaxdiff.core.inputs import InputScale, unscaled
from jaxdiff.core.predictions import Prediction, noise
from jaxdiff.core.process import Image, Process, Scalar

Denoiser = Callable[..., Image]  # (x_t, t, *condition) -> E[x_0 | x_t]
Network = Callable[..., Image]  # (c_in x_t, c_noise, *condition) -> F


def promoted(given: Any, null: Any) -> tuple[Array, Array]:
    """A condition and the null one in a type that holds both: -1 must stay -1 beside unsigned labels."""
    given, null = jnp.asarray(given), jnp.asarray(null)
    dtype = jnp.promote_types(given.dtype, null.dtype)
    return given.astype(dtype), null.astype(dtype)


@struct.dataclass
class NetworkDenoiser:
    """The denoiser that a network is: D(x_t, t) = c_skip x_t + c_out F(c_in x_t, c_noise).

    `network` is any callable (x, c_noise, *condition) -> F: `nets.Bound(module, params)`, or a function of your own.
    """

    network: Network  # (c_in x_t, c_noise, *condition) -> F
    process: Process = struct.field(pytree_node=False)  # how noise is added
    prediction: Prediction = struct.field(pytree_node=False, default=noise)  # what F is: c_skip and c_out
    input_scale: InputScale = struct.field(pytree_node=False, default=unscaled)  # c_in
    c_noise: CNoise = struct.field(pytree_node=False, default=index)  # the noise level as the network gets it
    told: tuple[Any, ...] = ()  # further numbers that the network gets beside c_noise: c_noise is then [k]

    def __post_init__(self) -> None:
        if not isinstance(self.process, Process):
            raise ValueError(f"process must be one of jaxdiff.core.process, such as VP(), got {self.process!r}")
        for name, module in (("prediction", "predictions"), ("input_scale", "inputs"), ("c_noise", "c_noise")):
            value = getattr(self, name)
            if not callable(value) or isinstance(value, type):
                raise ValueError(f"{name} must be a function such as those of jaxdiff.core.{module}, got {value!r}")

    @property
    def t_max(self) -> float:
        """The largest t at which c_skip, c_out, c_in and c_noise are finite: 1, or `process.t_max`."""
        with jax.ensure_compile_time_eval():
            t = jnp.ones(())
            levels = self.process.alpha(t), self.process.sigma(t)
            asked = (*self.prediction(*levels), self.input_scale(*levels), self.c_noise(self.process, t))
            return 1.0 if all(jnp.isfinite(number).all() for number in asked) else self.process.t_max

    def __call__(self, x_t: Image, t: Scalar, *condition: Any) -> Image:
        c_skip, c_out = self.prediction(self.process.alpha(t), self.process.sigma(t))
        return c_skip * x_t + c_out * self.output(x_t, t, *condition)

    def output(self, x_t: Image, t: Scalar, *condition: Any) -> Image:
        """F: the network's own output, in the precision of its image."""
        c_in = self.input_scale(self.process.alpha(t), self.process.sigma(t))
        c_noise = jnp.asarray(self.c_noise(self.process, t))
        if self.told:
            c_noise = jnp.stack([c_noise, *(jnp.asarray(number, c_noise.dtype) for number in self.told)])
        F = jnp.asarray(self.network(c_in * x_t, c_noise, *condition), x_t.dtype)
        if F.shape != x_t.shape:
            raise ValueError(f"the network must return the shape of its image, {x_t.shape}, it returned {F.shape}")
        return F

    def told_also(self, number: Scalar | float) -> "NetworkDenoiser":
        """The same, whose network gets one more number, before the others."""
        return self.replace(told=(number, *self.told))  # type: ignore[attr-defined]


@struct.dataclass
class Moved:
    """A denoiser trained on one process, used on another: at equal SNR their x_t differ only by a factor.

    For processes of the same SNR range: beyond the noisy end of its own the denoiser is asked at that end, and nearer
    to clean data than it was trained at times that it has not seen.
    """

    denoise: Denoiser  # on the process it was trained on
    made_for: Process = struct.field(pytree_node=False)  # that process
    used_on: Process = struct.field(pytree_node=False)  # the one of x_t and t

    def __call__(self, x: Image, t: Scalar, *condition: Any) -> Image:
        t_made = self.time(t)
        size = jnp.hypot(self.made_for.alpha(t_made), self.made_for.sigma(t_made))
        return self.denoise(x * (size / jnp.hypot(self.used_on.alpha(t), self.used_on.sigma(t))), t_made, *condition)

    def time(self, t: Scalar) -> Scalar:
        """The time on `made_for` with the SNR that `used_on` has at t."""
        most, least = self.made_for.log_snr(0.0), self.made_for.log_snr(1.0)
        return self.made_for.time(jnp.clip(self.used_on.log_snr(t), least, most))
