"""What the networks are made of. An image is [..., height, width, channels]; nothing is assumed of the dots.

Parameters are float32. A network computes in its `dtype`; statistics of norms and softmax stay in float32.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.nets import machine
from jaxdiff.nets.winograd.convolution import convolve, convolve_strided

NoiseEmbedding = Callable[[Array, int], Array]  # (c_noise, width) -> [..., width]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]
silu = nn.silu

# DDPM's initialisation: as wide as Glorot & Bengio 2010 have it, or zero where a block should start as nothing.
glorot = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()


LARGEST = 2**20  # of any size: a network of it would have more parameters than a machine holds
Rate = Annotated[float, "0 <= it < 1"]
Positive = Annotated[float, "it > 0"]


class Net(nn.Module):
    """A linen module that checks its fields and prints as the constructor call that makes it."""

    def __post_init__(self) -> None:
        for field in self._fields():
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        super().__post_init__()

    def __repr__(self) -> str:
        given = [f"{f.name}={getattr(self, f.name)!r}" for f in self._fields() if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(given)})"

    def _fields(self) -> list[dataclasses.Field]:
        return [field for field in dataclasses.fields(self) if field.init and field.name not in ("parent", "name")]

    def training(self) -> bool:
        """Whether there is a key for dropout: without one nothing is random."""
        return self.has_rng("dropout")


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """What a field may be, by its type; lists become tuples, so that the module has a hash."""
    name, kind = field.name, field.type
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        require(value > 0, f"{name} > 0", value)
    require(get_origin(kind) is not tuple or isinstance(value, tuple), f"{name} in a tuple", value)
    numbers = value if isinstance(value, tuple) else (value,)
    require(len(numbers) <= 250, f"at most 250 {name}", len(numbers))
    for number in numbers:
        require(not isinstance(number, int) or number <= LARGEST, f"{name} up to {LARGEST}", number)
    if kind is Rate:
        require(0 <= value < 1, f"0 <= {name} < 1", value)
    if kind is Positive:
        require(value > 0, f"{name} > 0", value)
    if kind in (NoiseEmbedding, NoiseEmbedding | None):
        legal = (value is None and kind != NoiseEmbedding) or (callable(value) and not isinstance(value, type))
        require(legal, "an embedding such as Positional() or GaussianFourier(), or None", value)
    if kind is Dtype:
        value = value if isinstance(value, str) else getattr(value, "__name__", value)
        require(value in get_args(Dtype), f"a dtype of {', '.join(get_args(Dtype))}", value)
    return value


def concrete(dtype: Dtype) -> Dtype:
    """ "auto" is bfloat16 on GPUs and TPUs that multiply in it, and float32 on others, and in a program for all."""
    return dtype if dtype != "auto" else "bfloat16" if machine.kind().bfloat16 else "float32"


def full(dtype: Dtype) -> Dtype:
    """What the last layers compute in: at least float32."""
    return "float64" if dtype == "float64" else "float32"


def along_channels(x: Array, vector: Array) -> Array:
    """A vector in the shape of x, along its last axis."""
    return lax.broadcast_in_dim(vector.astype(x.dtype), x.shape, (x.ndim - 1,))


def dense(features: int, zero: bool = False, dtype: Dtype = "auto", name: str | None = None) -> nn.Dense:
    """x W + b; on an image a 1x1 convolution."""
    return nn.Dense(features, dtype=concrete(dtype), kernel_init=zeros if zero else glorot, name=name)


class Conv(Net):
    """A 3x3 convolution; it keeps height and width, or divides them by `stride`."""

    features: int
    stride: int = 1
    padding: tuple[int, int] = (1, 1)  # before and after
    zero: bool = False
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", zeros if self.zero else glorot, (3, 3, x.shape[-1], self.features), jnp.float32)
        x, kernel = x.astype(concrete(self.dtype)), kernel.astype(concrete(self.dtype))
        if (self.stride, self.padding) == (1, (1, 1)):
            y = convolve(x, kernel)
        else:
            y = convolve_strided(x, kernel, self.stride, self.padding)
        return y + along_channels(y, self.param("bias", zeros, (self.features,), jnp.float32))


class GroupNorm(Net):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, over all pixels and a group of channels (Wu & He 2018).

    By default as many groups as possible, up to 32, of at least four channels. Given the vectors scale and shift, the
    result is y (1 + scale) + shift. Each pixel takes one multiplication and one addition.
    """

    groups: int | None = None
    epsilon: Positive = 1e-6
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
        channels = x.shape[-1]
        groups = default_groups(channels) if self.groups is None else self.groups
        require(channels % groups == 0, f"groups that divide the {channels} channels", groups)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))

        def over_group(v):
            v = v.reshape(*v.shape[:-1], groups, -1)
            return jnp.broadcast_to(jnp.mean(v, -1, keepdims=True), v.shape).reshape(*v.shape[:-2], channels)

        # the mean of squares would cancel where the mean is large, so count from the mean of one pixel
        x = x - lax.stop_gradient(over_group(x[..., 0, 0, :]))[..., None, None, :]
        mean, square = over_group(jnp.mean(x, (-3, -2))), over_group(jnp.mean(x * x, (-3, -2)))
        a = lax.rsqrt(jnp.maximum(square - mean * mean, 0) + self.epsilon)
        a = a * along_channels(a, self.param("scale", ones, (channels,), jnp.float32))
        b = along_channels(a, self.param("bias", zeros, (channels,), jnp.float32)) - mean * a
        if scale is not None and shift is not None:
            a, b = a * (1 + scale), b * (1 + scale) + shift
        return (x * a[..., None, None, :] + b[..., None, None, :]).astype(concrete(self.dtype))


def default_groups(channels: int) -> int:
    """The most groups up to 32 that divide the channels, with at least four channels in each."""
    return max(g for g in range(1, 33) if channels % g == 0 and (channels >= 4 * g or g == 1))


def layer_norm(
    epsilon: float = 1e-6, affine: bool = True, dtype: Dtype = "auto", name: str | None = None
) -> nn.LayerNorm:
    """Mean 0 and deviation 1 over the channels of each token."""
    return nn.LayerNorm(epsilon, concrete(dtype), use_bias=affine, use_scale=affine, use_fast_variance=False, name=name)


class Embed(Net):
    """A learned vector for each of `count` integers. Others are refused; inside a compiled program they give NaN."""

    count: int
    features: int
    deviation: float = 0.02  # of the vectors at first
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, index: Array) -> Array:
        index = jnp.asarray(index)
        require(jnp.issubdtype(index.dtype, jnp.integer), "integers, such as labels or tokens", index.dtype)
        index = index.astype(jnp.promote_types(index.dtype, jnp.int32))
        legal = (index >= 0) & (index < self.count)
        if not isinstance(legal, jax.core.Tracer):
            require(bool(legal.all()), f"integers from 0 to {self.count - 1}", index.tolist())
        table = self.param(
            "embedding", nn.initializers.normal(self.deviation), (self.count, self.features), jnp.float32
        )
        rows = jnp.take(table.astype(concrete(self.dtype)), index, axis=0, mode="clip")
        return jnp.where(legal[..., None], rows, jnp.nan)


def attend(q: Array, k: Array, v: Array, heads: int, mask: Array | None = None) -> Array:
    """softmax(q k^T / sqrt(d)) v in each head: [..., tokens, channels]; a mask is False where there is nothing."""
    *lead, length, channels = q.shape
    require(k.shape[-2] > 0, "a sequence of at least one token", k.shape)
    require(heads > 0 and channels % heads == 0, f"heads that divide the {channels} channels", heads)
    q, k, v = (a.reshape(-1, a.shape[-2], heads, channels // heads) for a in (q, k, v))
    if mask is not None:
        mask = jnp.broadcast_to(mask.astype(bool), (*lead, k.shape[1])).reshape(-1, 1, 1, k.shape[1])
    plain, fused = (partial(jax.nn.dot_product_attention, implementation=i) for i in ("xla", "cudnn"))
    if mask is None and _fused(q, k):  # of a mask cuDNN asks for a number for each weight
        y = lax.platform_dependent(*_mapped_alike(q, k, v), cuda=fused, default=plain)
    else:
        y = plain(q, k, v, None, mask)
    if mask is not None:  # nothing to see is zero, not the mean of what is masked
        y = jnp.where(mask.any(-1, keepdims=True), y, 0)
    return y.reshape(*lead, length, channels)


@jax.custom_vjp
def _mapped_alike(*arrays: Array) -> tuple[Array, ...]:
    """The same, but mapped by `vmap` all or none, as cuDNN asks for. XLA drops a choice between equals."""
    either = sum(array.ravel()[0] for array in arrays) > 0
    return tuple(lax.select(either, array, array) for array in arrays)


_mapped_alike.defvjp(lambda *arrays: (_mapped_alike(*arrays), None), lambda _, gradients: gradients)


def _fused(q: Array, k: Array) -> bool:
    """Whether cuDNN's attention, which keeps no weights (and has no jvp), can do it, on a machine that has it."""
    even = q.shape[1] % 2 == k.shape[1] % 2 == 0  # as JAX asks for in training
    return q.size > 0 and even and q.dtype.itemsize == 2 and q.shape[-1] in range(8, 129, 8) and machine.kind().cudnn


# --- patches ----------------------------------------------------------------------------------------------------------


def to_patches(x: Array, patch: int) -> Array:
    """[..., rows patch, columns patch, channels] -> [..., rows, columns, patch patch channels]."""
    *lead, height, width, channels = x.shape
    x = x.reshape(*lead, height // patch, patch, width // patch, patch, channels).swapaxes(-4, -3)
    return x.reshape(*lead, height // patch, width // patch, -1)


def from_patches(x: Array, patch: int) -> Array:
    """The inverse of `to_patches`."""
    *lead, rows, columns, _ = x.shape
    x = x.reshape(*lead, rows, columns, patch, patch, -1).swapaxes(-4, -3)
    return x.reshape(*lead, rows * patch, columns * patch, -1)


# --- half and double size; taps are those of the filter, such as (1, 1) or (1, 3, 3, 1) ------------------------------


def downsample(x: Array, taps: tuple[float, ...] = (1.0, 1.0), pad: bool = True) -> Array:
    """x filtered, then every second pixel of it, in height and in width; taps (1, 1) take the mean of 2x2 pixels."""
    for axis in (x.ndim - 3, x.ndim - 2):
        x = _padded(x, axis, len(taps) // 2 - 1) if pad else x
        last = x.shape[axis] - len(taps) + 1
        parts = [lax.slice_in_dim(x, k, k + last, 2, axis) for k in range(len(taps))]
        x = _weighted(parts, taps)
    return x


def upsample(x: Array, taps: tuple[float, ...] = (1.0, 1.0)) -> Array:
    """The transpose of `downsample`, times 4; taps (1, 1) repeat each pixel."""
    for axis in (x.ndim - 3, x.ndim - 2):
        size, edge = x.shape[axis], len(taps) // 2 - 1
        padded = _padded(x, axis, edge)
        shifted = [lax.slice_in_dim(padded, k, k + size, 1, axis) for k in range(2 * edge + 1)]
        pair = [_weighted(shifted[: edge + 1], taps[-1::-2]), _weighted(shifted[edge:], taps[-2::-2])]  # even, odd
        x = jnp.stack(pair, axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def _padded(x: Array, axis: int, edge: int) -> Array:
    return jnp.pad(x, [(edge, edge) if a == axis else (0, 0) for a in range(x.ndim)]) if edge else x


def _weighted(parts: list[Array], taps: tuple[float, ...]) -> Array:
    return sum((part * (tap / sum(taps)) for part, tap in zip(parts, taps, strict=True)), jnp.zeros((), parts[0].dtype))


# --- the noise level as a vector --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Positional:
    """sin(w c) and cos(w c) for `width` / 2 frequencies w, geometric from 1 to 1 / `period` (Vaswani et al. 2017).

    For c_noise in the hundreds, such as step numbers. Where it stays below 1 take `ScaledTime` or `GaussianFourier`.
    """

    period: float = 10000.0
    shift: int = 1  # 1: the last frequency is 1 / period; 0: it would be the next
    sine_first: bool = True

    def __post_init__(self) -> None:
        require(self.period > 1 and self.shift in (0, 1), "period > 1 and shift 0 or 1", self)

    def __call__(self, c_noise: Array, width: int) -> Array:
        half = width // 2
        frequencies = jnp.exp(-math.log(self.period) * jnp.arange(half) / max(half - self.shift, 1))
        return _waves(c_noise, frequencies, width, self.sine_first)


@dataclass(frozen=True)
class GaussianFourier:
    """sin(2 pi f c) and cos(2 pi f c), frequencies f ~ N(0, scale²) that are not trained (Tancik et al. 2020)."""

    scale: float = 16.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.scale > 0, "scale > 0", self)

    def __call__(self, c_noise: Array, width: int) -> Array:
        # numpy's old generator never changes; a trained network must find its frequencies again
        turns = self.scale * np.random.RandomState(self.seed).standard_normal(width // 2)
        return _waves(c_noise, jnp.asarray(2 * np.pi * turns, jnp.float32), width, sine_first=True)


def _waves(c_noise: Array, frequencies: Array, width: int, sine_first: bool) -> Array:
    require(width % 2 == 0, "an even width for sines and cosines", width)
    c_noise = jnp.broadcast_to(c_noise[..., None], (*c_noise.shape, width // 2)).astype(jnp.float32)
    angle = c_noise * along_channels(c_noise, frequencies)
    waves = (jnp.sin(angle), jnp.cos(angle))
    return jnp.concatenate(waves if sine_first else waves[::-1], -1)
