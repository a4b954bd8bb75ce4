"""A classifier of noisy images, for classifier guidance: the first half of a UNet and attention pooling."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.nets.layers import GroupNorm, attend, dense, full, silu
from jaxdiff.nets.unet import ContractingPath


class EncoderUNet(ContractingPath):
    """(x, c_noise) -> the logits of p(label | x_t): [..., classes], for images of any size that the levels divide.

    The pooling is attention, asked by the mean of the pixels (Radford et al. 2021).
    """

    multipliers: tuple[float, ...] = (1, 2, 2)
    attention: tuple[int, ...] = (2,)
    classes: int = 10

    @nn.compact
    def __call__(self, x: Array, c_noise: Array) -> Array:
        vector, dtype = self.embed(x, c_noise), full(self.dtype)
        x = self.middle(self.descend(x, vector, None)[-1], vector, None)
        x = silu(GroupNorm(self.groups, self.epsilon, dtype, name="last_norm")(x))
        pixels = x.reshape(*x.shape[:-3], -1, x.shape[-1])
        mean = jnp.mean(pixels, -2, keepdims=True)
        q, k, v = (dense(x.shape[-1], dtype=dtype, name=n)(a) for n, a in (("q", mean), ("k", pixels), ("v", pixels)))
        pooled = mean + attend(q, k, v, self.heads_of(x.shape[-1]))
        self.sow("intermediates", "pooled", pooled[..., 0, :])  # features, for those who compare images
        return dense(self.classes, zero=True, dtype=dtype, name="logits")(pooled[..., 0, :])
