"""InceptionV3 (Szegedy et al. 2016) as the literature on FID has it: the graph of December 2015.

It has 1,008 classes and its own resizing, and differs from the usual one in three poolings: means leave out the
padding, and the last block takes a maximum.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array

from jaxdiff.nets.pretrained import Convolution

SIZE = 299  # pixels, of a side
TAPS = (64, 192, 768, 2048)  # features after two poolings, before the last blocks, and at the end


class Inception(nn.Module):
    """Images [n, height, width, 3], from 0 to 255, of any size -> (features [n, 2048], logits [n, 1008]).

    The logits are without the bias, as the Inception Score has them. With `taps`, the features at all four places.
    """

    taps: bool = False

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array | list[Array], Array]:
        x = (resized(x, SIZE) - 128) / 128
        x = _relu(32, 3, 2, name="Conv2d_1a_3x3")(x)
        x = _relu(32, 3, name="Conv2d_2a_3x3")(x)
        x = _relu(64, 3, padding=(1, 1), name="Conv2d_2b_3x3")(x)
        seen = [x := _largest(x)]
        x = _relu(80, 1, name="Conv2d_3b_1x1")(x)
        x = _relu(192, 3, name="Conv2d_4a_3x3")(x)
        seen.append(x := _largest(x))
        for name, channels in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = BlockA(channels, name=f"Mixed_{name}")(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, channels in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = BlockC(channels, name=f"Mixed_{name}")(x)
        seen.append(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(name="Mixed_7b")(x)
        x = BlockE(largest=True, name="Mixed_7c")(x)
        features = jnp.mean(x, (-3, -2))
        logits = nn.Dense(1008, use_bias=False, name="fc")(features)
        return [*(jnp.mean(each, (-3, -2)) for each in seen), features] if self.taps else features, logits


class _relu(nn.Module):
    """A convolution, what its norm did, and the positive part."""

    channels: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.relu(Convolution(self.channels, self.kernel, self.stride, self.padding, name="conv")(x))


def _row(channels: int, size: int, name: str) -> _relu:
    return _relu(channels, (1, size), padding=(0, size // 2), name=name)


def _column(channels: int, size: int, name: str) -> _relu:
    return _relu(channels, (size, 1), padding=(size // 2, 0), name=name)


class BlockA(nn.Module):
    """Branches of 1x1, 5x5, two 3x3 and a pooled one, side by side."""

    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        five = _relu(48, 1, name="branch5x5_1")(x)
        three = _relu(64, 1, name="branch3x3dbl_1")(x)
        three = _relu(96, 3, padding=(1, 1), name="branch3x3dbl_2")(three)
        parts = [
            _relu(64, 1, name="branch1x1")(x),
            _relu(64, 5, padding=(2, 2), name="branch5x5_2")(five),
            _relu(96, 3, padding=(1, 1), name="branch3x3dbl_3")(three),
            _relu(self.pooled, 1, name="branch_pool")(_mean(x)),
        ]
        return jnp.concatenate(parts, -1)


class BlockB(nn.Module):
    """Halves height and width by strided 3x3 convolutions and a pooled branch."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        twice = _relu(96, 3, padding=(1, 1), name="branch3x3dbl_2")(_relu(64, 1, name="branch3x3dbl_1")(x))
        twice = _relu(96, 3, 2, name="branch3x3dbl_3")(twice)
        return jnp.concatenate([_relu(384, 3, 2, name="branch3x3")(x), twice, _largest(x)], -1)


class BlockC(nn.Module):
    """Branches of 1x1, of 7x7 as rows and columns, once and twice, and a pooled one."""

    inside: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.inside
        once = _row(c, 7, "branch7x7_2")(_relu(c, 1, name="branch7x7_1")(x))
        twice = _column(c, 7, "branch7x7dbl_2")(_relu(c, 1, name="branch7x7dbl_1")(x))
        twice = _column(c, 7, "branch7x7dbl_4")(_row(c, 7, "branch7x7dbl_3")(twice))
        parts = [
            _relu(192, 1, name="branch1x1")(x),
            _column(192, 7, "branch7x7_3")(once),
            _row(192, 7, "branch7x7dbl_5")(twice),
            _relu(192, 1, name="branch_pool")(_mean(x)),
        ]
        return jnp.concatenate(parts, -1)


class BlockD(nn.Module):
    """Halves height and width after a 7x7 convolution as a row and a column."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        seven = _row(192, 7, "branch7x7x3_2")(_relu(192, 1, name="branch7x7x3_1")(x))
        seven = _column(192, 7, "branch7x7x3_3")(seven)
        three = _relu(320, 3, 2, name="branch3x3_2")(_relu(192, 1, name="branch3x3_1")(x))
        return jnp.concatenate([three, _relu(192, 3, 2, name="branch7x7x3_4")(seven), _largest(x)], -1)


class BlockE(nn.Module):
    """Branches of 1x1, of 3x3 split into a row and a column, and a pooled one."""

    largest: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        three = _relu(384, 1, name="branch3x3_1")(x)
        twice = _relu(384, 3, padding=(1, 1), name="branch3x3dbl_2")(_relu(448, 1, name="branch3x3dbl_1")(x))
        parts = [
            _relu(320, 1, name="branch1x1")(x),
            _row(384, 3, "branch3x3_2a")(three),
            _column(384, 3, "branch3x3_2b")(three),
            _row(384, 3, "branch3x3dbl_3a")(twice),
            _column(384, 3, "branch3x3dbl_3b")(twice),
            _relu(192, 1, name="branch_pool")(_largest(x, 1, 1) if self.largest else _mean(x)),
        ]
        return jnp.concatenate(parts, -1)


def _largest(x: Array, stride: int = 2, pad: int = 0) -> Array:
    return nn.max_pool(x, (3, 3), (stride, stride), ((pad, pad), (pad, pad)))


def _mean(x: Array) -> Array:
    """Of the 3x3 pixels about each, without the padding."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def resized(x: Array, size: int) -> Array:
    """Bilinear as TensorFlow 1 had it: place i of the result is place i * old / size, corners not aligned."""
    for axis in (-3, -2):
        old = x.shape[axis]
        places = jnp.arange(size) * (old / size)
        low = jnp.floor(places).astype(int)
        share = (places - low).reshape(*(1,) * (x.ndim + axis), -1, *(1,) * (-1 - axis))
        first, second = (jnp.take(x, jnp.minimum(low + more, old - 1), axis) for more in (0, 1))
        x = first + share * (second - first)
    return lax.convert_element_type(x, jnp.float32)


def norm(path: str) -> tuple[str, str]:
    """PyTorch's names of a convolution and of the norm after it."""
    return path, f"{path.removesuffix('conv')}bn"
