"""The UNet of the diffusion literature, DDPM's and its descendants', as one module and some of its values."""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.nets.blocks import Attention, Conditioning, Resample, ResBlock, Text, divides, numbers_of, parted, scaled
from jaxdiff.nets.layers import (
    Conv,
    Dtype,
    GaussianFourier,
    GroupNorm,
    Net,
    NoiseEmbedding,
    Positional,
    Positive,
    Rate,
    downsample,
    from_patches,
    full,
    silu,
    to_patches,
    upsample,
)


class ContractingPath(Net):
    """The first half of a UNet (Ronneberger et al. 2015), with all that the two halves share.

    A level is a size of the image: level 0 is its own, if `patch` is 1, each further one half of that. `multipliers`
    gives the channels of each level, `attention` the levels whose pixels look at each other, and at a text if there
    is one.
    """

    channels: int = 128  # of a level whose multiplier is 1
    multipliers: tuple[float, ...] = (1, 2, 2, 2)  # of each level, the largest size first
    blocks: int = 2  # of a level on the way down; one more on the way up
    attention: tuple[int, ...] = (1,)  # the levels that have it
    heads: int = 1  # of each attention
    head_channels: int | None = None  # if given, as many heads as there are such parts of the channels
    middle_attention: bool = True  # attention on the smallest level too, between two blocks
    dropout: Rate = 0.0  # in each block
    # how noise level and condition come in
    noise_embedding: NoiseEmbedding | None = Positional()  # None: the noise level is not used
    noise_width: int | None = None  # of the embedding of the noise level alone; by default `channels`
    embedding_width: int | None = None  # by default 4 `channels`
    scale_shift: bool = False  # the embedding scales and shifts a norm, rather than being added before it
    # how it resamples
    resample_in_block: bool = False  # a residual block halves and doubles the size, rather than a convolution
    down_padding: tuple[int, int] = (0, 1)  # of the strided convolution, else
    taps: tuple[float, ...] = (1.0, 1.0)  # the filter of the resampling in a block
    project_resampled: bool = False  # such a block has a 1x1 convolution beside it even where channels fit
    residual_input: bool = False  # the image itself, made smaller, is added at each level
    patch: int = 1  # level 0 has one pixel for patch x patch of the image, whose values are its channels
    skip_scale: float = 1.0  # the factor of each sum of a block
    # how it computes
    groups: int | None = None  # of each group norm; None: by the channels
    epsilon: Positive = 1e-6  # of each group norm
    remat: bool = False  # compute each block again when its gradient is wanted, rather than keep what is inside
    dtype: Dtype = "auto"  # that is computed in

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.multipliers) and min(self.widths) > 0, "multipliers > 0, one a level", self.multipliers)
        levels = range(len(self.multipliers))
        require(all(level in levels for level in self.attention), f"attention at levels of {levels}", self.attention)
        even = self.taps == self.taps[::-1]
        require(
            len(self.taps) in (2, 4) and even and sum(self.taps) > 0,
            "two or four taps, alike from both ends",
            self.taps,
        )
        require(
            self.down_padding in ((0, 1), (1, 0), (1, 1)), "down_padding (0, 1), (1, 0) or (1, 1)", self.down_padding
        )

    @property
    def widths(self) -> list[int]:
        """The channels of each level."""
        return [round(self.channels * multiplier) for multiplier in self.multipliers]

    def embed(self, x: Array, c_noise: Array, label: Any = None, text: Text | None = None, **labels: Any) -> Array:
        """The embedding of noise level, label and text."""
        divides(self.patch * 2 ** (len(self.multipliers) - 1), x)
        noise_width = self.channels if self.noise_width is None else self.noise_width
        width = 4 * self.channels if self.embedding_width is None else self.embedding_width
        make = Conditioning(
            width=width,
            noise_width=noise_width,
            noise_embedding=self.noise_embedding,
            dtype=self.dtype,
            name="embedding",
            **labels,
        )
        return make(numbers_of(x, c_noise), label, text)

    def block(self, name: str, x: Array, embedding: Array, width: int, resample: Resample = None) -> Array:
        res_block = nn.remat(ResBlock) if self.remat else ResBlock
        project = self.project_resampled and resample is not None
        return res_block(
            features=width,
            resample=resample,
            taps=self.taps,
            project=project,
            scale_shift=self.scale_shift,
            skip_scale=self.skip_scale,
            dropout=self.dropout,
            groups=self.groups,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name=name,
        )(x, embedding)

    def heads_of(self, width: int) -> int:
        if self.head_channels is None:
            return self.heads
        where = "" if not self.middle_attention else ", as of the middle unless middle_attention=False"
        legal = f"head_channels that divide the {width} channels of attention{where}"
        require(width % self.head_channels == 0, legal, self.head_channels)
        return width // self.head_channels

    def attend(self, name: str, x: Array, text: Text | None) -> Array:
        """Attention to the pixels, then to the text."""
        attention = nn.remat(Attention) if self.remat else Attention
        make = partial(
            attention,
            heads=self.heads_of(x.shape[-1]),
            skip_scale=self.skip_scale,
            groups=self.groups,
            epsilon=self.epsilon,
            dtype=self.dtype,
        )
        x = make(name=f"{name}_attention")(x)
        return x if text is None else make(name=f"{name}_text")(x, text)

    def descend(self, x: Array, embedding: Array, text: Text | None) -> list[Array]:
        """The image after each step of the way down."""
        x = to_patches(x, self.patch)
        image, x = x, Conv(self.channels, dtype=self.dtype, name="first")(x)
        skips = [x]
        for level, width in enumerate(self.widths):
            if level > 0:
                x, image = self.halved(level, x, image, embedding)
                skips.append(x)
            for i in range(self.blocks):
                x = self.block(f"down_{level}_{i}", x, embedding, width)
                if level in self.attention:
                    x = self.attend(f"down_{level}_{i}", x, text)
                skips.append(x)
        return skips

    def halved(self, level: int, x: Array, image: Array, embedding: Array) -> tuple[Array, Array]:
        width = x.shape[-1]
        if self.resample_in_block:
            x = self.block(f"down_{level}", x, embedding, width, "down")
        else:
            x = Conv(width, 2, self.down_padding, dtype=self.dtype, name=f"down_{level}")(x)
        if self.residual_input:
            edge = len(self.taps) // 2 - 1  # what lies outside is zero before the convolution, not between the two
            image = jnp.pad(image, [(0, 0)] * (image.ndim - 3) + [(edge, edge)] * 2 + [(0, 0)])
            image = Conv(width, dtype=self.dtype, name=f"image_{level}")(image)
            image = downsample(image, self.taps, pad=False)
            x = image = scaled(x + image, math.sqrt(0.5))
        return x, image

    def middle(self, x: Array, embedding: Array, text: Text | None) -> Array:
        x = self.block("middle_0", x, embedding, self.widths[-1])
        if self.middle_attention:
            x = self.attend("middle", x, text)
        return self.block("middle_1", x, embedding, self.widths[-1])


class UNet(ContractingPath):
    """(x, c_noise, condition) -> an image of the size of x: down, across, and up beside what was seen on the way down.

    x is [..., height, width, channels], `c_noise` a number for each image or k of them, [..., k], `condition`
    a label, a text, or both in a tuple.
    """

    out_channels: int | None = None  # by default those of the image
    classes: int | None = None  # it takes a label, one of 0 .. classes - 1,
    null_label: bool = True  # or the label `classes`, which stands for none
    text: bool = False  # it takes a text: attention to its sequence, and its pooled vector if there is one
    attend_last: bool = False  # on the way up, attention after the last block of a level only

    def __post_init__(self) -> None:
        super().__post_init__()
        looks = bool(self.attention) or self.middle_attention
        require(looks or not self.text, "attention at some level, to see the text", self.attention)

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: object = None) -> Array:
        out = x.shape[-1] if self.out_channels is None else self.out_channels
        label, text = parted(condition, self.classes is not None, self.text)
        vector = self.embed(x, c_noise, label, text, classes=self.classes, null_label=self.null_label)
        skips = self.descend(x, vector, text)
        h = self.middle(skips[-1], vector, text)
        for level, width in reversed(list(enumerate(self.widths))):
            for i in range(self.blocks + 1):
                h = self.block(f"up_{level}_{i}", jnp.concatenate([h, skips.pop()], -1), vector, width)
                if level in self.attention and (i == self.blocks or not self.attend_last):
                    h = self.attend(f"up_{level}_{i}", h, text)
            if level > 0:
                h = self.doubled(level, h, vector)
        # the answer in full precision, whatever came before
        h = silu(GroupNorm(self.groups, self.epsilon, full(self.dtype), name="last_norm")(h))
        h = Conv(self.patch**2 * out, zero=True, dtype=full(self.dtype), name="last")(h)
        return from_patches(h, self.patch)

    def doubled(self, level: int, x: Array, embedding: Array) -> Array:
        width = x.shape[-1]
        if self.resample_in_block:
            return self.block(f"up_{level}", x, embedding, width, "up")
        return Conv(width, dtype=self.dtype, name=f"up_{level}")(upsample(x))


# Ho et al. 2020: 35,746,307 parameters
DDPM_CIFAR10 = UNet(dropout=0.1)

# DDPM++ and NCSN++ (Song et al. 2021a) for 32x32, in the form of Karras et al. 2022
DDPMPP = UNet(
    multipliers=(2, 2, 2),
    blocks=4,
    attend_last=True,
    dropout=0.13,
    resample_in_block=True,
    project_resampled=True,
    skip_scale=math.sqrt(0.5),
)
NCSNPP = DDPMPP.clone(
    noise_embedding=GaussianFourier(), noise_width=256, taps=(1.0, 3.0, 3.0, 1.0), residual_input=True
)

# Dhariwal & Nichol 2021, for ImageNet at 64x64 and 128x128
ADM_64 = UNet(
    channels=192,
    multipliers=(1, 2, 3, 4),
    blocks=3,
    attention=(1, 2, 3),
    head_channels=64,
    dropout=0.1,
    noise_embedding=Positional(shift=0, sine_first=False),
    scale_shift=True,
    classes=1000,
    resample_in_block=True,
    epsilon=1e-5,
)
ADM_128 = ADM_64.clone(
    channels=256, multipliers=(1, 1, 2, 3, 4), blocks=2, attention=(2, 3, 4), heads=4, head_channels=None, dropout=0.0
)

# the small score network of VE tutorials, for 28x28
SCORE = UNet(
    channels=32, multipliers=(1, 2, 4), blocks=1, attention=(), noise_embedding=GaussianFourier(30.0), noise_width=256
)

# digits of 28x28, with labels
DIGITS = UNet(channels=32, multipliers=(1, 2, 2), attention=(2,), groups=8, classes=10)
