"""Two small networks, to read first: a perceptron, and a UNet of strided and transposed convolutions."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.nets.blocks import Conditioning, divides, numbers_of, parted
from jaxdiff.nets.layers import Conv, Dtype, GroupNorm, Net, NoiseEmbedding, Positional, dense, from_patches, full, silu


class MLP(Net):
    """(x, c_noise, label) -> an image of the size of x: linear layers and SiLU on all numbers of the image at once."""

    widths: tuple[int, ...] = (512, 512, 512)
    noise_embedding: NoiseEmbedding | None = Positional()
    classes: int | None = None  # it takes a label, one of 0 .. classes - 1, or `classes`, which stands for none
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.widths) and min(self.widths) > 0, "widths > 0, one a layer", self.widths)

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: object = None) -> Array:
        divides(1, x)
        vector = _embed(self, x, c_noise, condition, 128)
        h = x.reshape(*x.shape[:-3], -1)
        for i, width in enumerate(self.widths):
            shift = dense(width, dtype=self.dtype, name=f"embedding_{i}")(vector)
            h = silu(dense(width, dtype=self.dtype, name=f"layer_{i}")(h) + shift)
        return dense(math.prod(x.shape[-3:]), zero=True, dtype=full(self.dtype), name="last")(h).reshape(x.shape)


class SmallUNet(Net):
    """(x, c_noise, label) -> an image of the size of x: halved by strided convolutions, doubled by transposed ones.

    On the way back each level also sees what it was on the way down.
    """

    widths: tuple[int, ...] = (32, 64, 128)  # channels of each level, of the bottleneck last
    noise_embedding: NoiseEmbedding | None = Positional()
    classes: int | None = None  # it takes a label, one of 0 .. classes - 1, or `classes`, which stands for none
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.widths) and min(self.widths) > 0, "widths > 0, one a level", self.widths)

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: object = None) -> Array:
        divides(2 ** (len(self.widths) - 1), x)
        vector = _embed(self, x, c_noise, condition, 4 * self.widths[0])

        def block(name, h, width, stride=1):
            h = Conv(width, stride=stride, dtype=self.dtype, name=name)(h)
            h = h + dense(width, dtype=self.dtype, name=f"{name}_embedding")(vector)[..., None, None, :]
            return silu(GroupNorm(dtype=self.dtype, name=f"{name}_norm")(h))

        skips = [block("first", x, self.widths[0])]
        for level, width in enumerate(self.widths[1:], 1):
            skips.append(block(f"down_{level}", skips[-1], width, stride=2))
        h = block("bottleneck", skips.pop(), self.widths[-1])
        for level, width in reversed(list(enumerate(self.widths[:-1], 1))):
            h = from_patches(dense(4 * width, dtype=self.dtype, name=f"up_{level}")(h), 2)  # a transposed convolution
            h = block(f"up_{level}_block", jnp.concatenate([h, skips.pop()], -1), width)
        return Conv(x.shape[-1], zero=True, dtype=full(self.dtype), name="last")(h)


def _embed(net: MLP | SmallUNet, x: Array, c_noise: Array, condition: object, width: int) -> Array:
    label, _ = parted(condition, net.classes is not None, text=False)
    make = Conditioning(
        width=width,
        noise_width=width,
        noise_embedding=net.noise_embedding,
        classes=net.classes,
        dtype=net.dtype,
        name="embedding",
    )
    return make(numbers_of(x, c_noise), label)
