"""What the image networks share: residual blocks, attention, and the embedding of noise level, label and text."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import lax
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.nets.layers import (
    Conv,
    Dtype,
    Embed,
    GroupNorm,
    Net,
    NoiseEmbedding,
    Positive,
    Rate,
    attend,
    concrete,
    dense,
    downsample,
    silu,
    upsample,
)


@struct.dataclass
class Text:
    """A text as an image network sees it: a sequence to attend to, and one vector for the whole."""

    sequence: Array  # [..., length, width], of any length and width
    mask: Array | None = None  # [..., length], False where there is nothing
    pooled: Array | None = None  # [..., width]


def parted(condition: Any, labelled: bool, text: bool) -> tuple[Any, Text | None]:
    """The label and the text of a condition, which is a label, a Text or its bare sequence, or (label, text)."""
    if labelled and text:
        pair = isinstance(condition, tuple) and len(condition) == 2
        label, words = condition if pair else (None, None)
    else:
        label, words = (condition, None) if labelled else (None, condition)
    legal = _is_label(label) == labelled and _is_text(words) == text
    if not legal or (condition is not None and not labelled and not text):
        wanted = {(False, False): "no condition", (True, False): "a label", (False, True): "a text"}
        needed = wanted.get((labelled, text), "a condition (label, text)")
        got = "none" if condition is None else f"shapes {jax.tree.map(jnp.shape, condition)}"
        raise ValueError(f"this network takes {needed}, got {got}; to drop a label or a text give the null one")
    return label, words if words is None or isinstance(words, Text) else Text(words)


def _is_label(value: Any) -> bool:
    return isinstance(value, int | float | np.ndarray | np.generic | jax.Array)


def _is_text(value: Any) -> bool:
    return isinstance(value, Text) or (isinstance(value, np.ndarray | jax.Array) and value.ndim >= 2)


def numbers_of(x: Array, c_noise: Array) -> Array:
    """The numbers that each image of x comes with, [..., k]: c_noise has one for each, or k."""
    lead = x.shape[:-3]
    several = c_noise if jnp.ndim(c_noise) > len(lead) else jnp.asarray(c_noise)[..., None]
    return jnp.broadcast_to(several, (*lead, several.shape[-1]))


class Conditioning(Net):
    """The embedding, one vector: of the noise level, a label, and the pooled text (Ho et al. 2020).

    Further numbers beside the noise level, such as the length of a jump, count for nothing at first, so that a network
    can learn what they mean that was trained without them.
    """

    width: int
    noise_width: int  # of the embedding of the noise level
    noise_embedding: NoiseEmbedding | None  # None: the noise level is not used
    classes: int | None = None  # None: there are no labels
    null_label: bool = True  # `classes` is a label too
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, numbers: Array, label: Any = None, text: Text | None = None) -> Array:
        *lead, many = numbers.shape
        vector = jnp.zeros((*lead, self.width), concrete(self.dtype))
        require(many == 1 or self.noise_embedding is not None, "a noise_embedding, for further numbers too", None)
        if self.noise_embedding is not None:
            vector = self.embedded("noise", numbers[..., 0])
            for i in range(1, many):
                vector = vector + self.embedded(f"number_{i}", numbers[..., i], zero=True)
        if self.classes is not None:
            label = jnp.broadcast_to(label, lead) if jnp.ndim(label) == 0 else jnp.asarray(label)
            require(label.shape == tuple(lead), f"one label an image, of shape {tuple(lead)}", label.shape)
            # vectors of deviation 1, as large as the noise level's, so that labels matter from the first step on
            embed = Embed(self.classes + self.null_label, self.width, 1.0, self.dtype, name="label")
            vector = vector + embed(label)
        if text is not None and text.pooled is not None:
            vector = vector + dense(self.width, dtype=self.dtype, name="text")(text.pooled)
        return silu(vector)

    def embedded(self, name: str, number: Array, zero: bool = False) -> Array:
        assert self.noise_embedding is not None
        h = self.noise_embedding(number, self.noise_width)
        h = silu(dense(self.width, dtype=self.dtype, name=f"{name}_0")(h))
        return dense(self.width, zero, dtype=self.dtype, name=f"{name}_1")(h)


Resample = Literal["down", "up"] | None


class ResBlock(Net):
    """x + conv(silu(norm(conv(silu(norm(x)))))); the embedding enters at the second norm (Ho et al. 2020)."""

    features: int  # channels of the result
    resample: Resample = None  # half or double the size, in the block (Brock et al. 2019)
    taps: tuple[float, ...] = (1.0, 1.0)  # the filter for that
    project: bool = False  # convolve the input (1x1) before the sum even where its channels fit
    scale_shift: bool = False  # the embedding scales and shifts the norm, rather than being added before it
    skip_scale: float = 1.0  # times the sum
    dropout: Rate = 0.0
    groups: int | None = None
    epsilon: Positive = 1e-6
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None = None) -> Array:
        def norm(name):
            return GroupNorm(self.groups, self.epsilon, self.dtype, name=name)

        h = Conv(self.features, dtype=self.dtype, name="conv_0")(self.resampled(silu(norm("norm_0")(x))))
        scale = shift = None
        if embedding is not None:
            width = self.features * (2 if self.scale_shift else 1)
            projected = dense(width, dtype=self.dtype, name="embedding")(embedding)
            if self.scale_shift:
                scale, shift = jnp.split(projected, 2, -1)
            else:
                h = h + projected[..., None, None, :]
        h = nn.Dropout(self.dropout, deterministic=not self.training())(silu(norm("norm_1")(h, scale, shift)))
        h = Conv(self.features, zero=True, dtype=self.dtype, name="conv_1")(h)
        x = self.resampled(x)
        if self.project or x.shape[-1] != self.features:
            x = dense(self.features, dtype=self.dtype, name="skip")(x)
        return scaled(x.astype(h.dtype) + h, self.skip_scale)

    def resampled(self, x: Array) -> Array:
        if self.resample is None:
            return x
        return downsample(x, self.taps) if self.resample == "down" else upsample(x, self.taps)


class Attention(Net):
    """x + attention of each pixel to all pixels, or to the tokens of a text."""

    heads: int = 1
    skip_scale: float = 1.0
    groups: int | None = None
    epsilon: Positive = 1e-6
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, x: Array, text: Text | None = None) -> Array:
        *lead, height, width, channels = x.shape

        def linear(name, zero=False):
            return dense(channels, zero, dtype=self.dtype, name=name)

        h = GroupNorm(self.groups, self.epsilon, self.dtype, name="norm")(x)
        pixels = h.reshape(*lead, height * width, channels)
        seen, mask = (pixels, None) if text is None else (text.sequence, text.mask)
        require(seen.shape[:-2] == tuple(lead), f"one text an image, [{lead}, length, width]", seen.shape)
        h = attend(linear("q")(pixels), linear("k")(seen), linear("v")(seen), self.heads, mask)
        return scaled(x.astype(h.dtype) + linear("out", zero=True)(h).reshape(x.shape), self.skip_scale)


def scaled(x: Array, factor: float) -> Array:
    """factor x, in the dtype of x; nothing is computed for 1."""
    return x if factor == 1 else x * jnp.asarray(factor, x.dtype)


def divides(factor: int, x: Array) -> None:
    """Refuses an image whose sides `factor` does not divide, with the nearest sizes that would do."""
    require(x.ndim >= 3, "an image [..., height, width, channels]", x.shape)
    height, width = x.shape[-3:-1]
    if height % factor or width % factor:
        near = [[max(-(-(side - less) // factor), 1) * factor for side in (height, width)] for less in (factor - 1, 0)]
        sizes = " and ".join(f"{h}x{w}" for h, w in near)
        raise ValueError(f"needs a height and width divisible by {factor}, got {height}x{width}: {sizes} would do")


class SelfConditioned(Net):
    """F(x, F(x, 0)): a network that is called twice, the second time with its first answer (Chen et al. 2023).

        SelfConditioned(UNet(out_channels=3))  # it sees six channels: the image, and the answer beside it

    In training half of the examples get 0 for the first answer.
    """

    network: nn.Module

    def __call__(self, x: Array, c_noise: Array, condition: Any = None) -> Array:
        answer = self.network(jnp.concatenate([x, jnp.zeros_like(x)], -1), c_noise, condition)
        require(answer.shape == x.shape, f"a network with out_channels={x.shape[-1]}", self.network)
        if self.training():
            seen = jax.random.bernoulli(self.make_rng("dropout"), 0.5, (*x.shape[:-3], 1, 1, 1))
            answer = lax.stop_gradient(jnp.where(seen, answer, 0))
        return self.network(jnp.concatenate([x, answer], -1), c_noise, condition)
