"""EfficientNet-Lite0, a small classifier of ImageNet (Tan & Le 2019, in the form made for phones)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.nets.pretrained import Convolution, Depthwise

_STAGES = (  # repeats, kernel, stride, how much wider inside, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_NORMS = {  # PyTorch's module names them so, after each kind of convolution
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


class Lite0(nn.Module):
    """Images [n, height, width, 3], from 0 to 255, of any size -> (features [n, 1280], logits [n, 1000])."""

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        x = _relu6(Convolution(32, 3, 2, name="_conv_stem")((x - 127) / 128))
        blocks = [(k, 1 if i else s, w, c) for repeats, k, s, w, c in _STAGES for i in range(repeats)]
        for number, block in enumerate(blocks):
            x = Block(*block, name=f"_blocks.{number}")(x)
        features = jnp.mean(_relu6(Convolution(1280, name="_conv_head")(x)), (-3, -2))
        return features, nn.Dense(1000, name="_fc")(features)


class Block(nn.Module):
    """An inverted residual: widened, each channel convolved by itself, narrowed."""

    kernel: int
    stride: int
    wider: int
    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        if self.wider > 1:
            y = _relu6(Convolution(x.shape[-1] * self.wider, name="_expand_conv")(y))
        y = _relu6(Depthwise(self.kernel, self.stride, name="_depthwise_conv")(y))
        y = Convolution(self.channels, name="_project_conv")(y)
        return x + y if x.shape == y.shape else y


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0.0, 6.0)


def norm(path: str) -> tuple[str, str]:
    """PyTorch's names of a convolution and of the norm after it."""
    above, dot, last = path.rpartition(".")
    return path, f"{above}{dot}{_NORMS[last]}"
