"""The diffusion transformer (Peebles & Xie 2023), for pixels and for latents."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.nets.blocks import Conditioning, divides, numbers_of, parted
from jaxdiff.nets.layers import (
    Dtype,
    Net,
    NoiseEmbedding,
    Positional,
    Positive,
    Rate,
    attend,
    dense,
    from_patches,
    full,
    layer_norm,
    to_patches,
)


class DiTBlock(Net):
    """x + gate attention(norm(x)), then x + gate mlp(norm(x)); scale, shift and gate come from the embedding."""

    heads: int  # of its attention
    dropout: Rate = 0.0
    mlp_epsilon: Positive = 1e-6
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        width, drop = x.shape[-1], nn.Dropout(self.dropout, deterministic=not self.training())

        def linear(name, features=width):
            return dense(features, dtype=self.dtype, name=name)

        six = dense(6 * width, zero=True, dtype=self.dtype, name="embedding")(embedding)[..., None, :]
        shift_0, scale_0, gate_0, shift_1, scale_1, gate_1 = jnp.split(six, 6, -1)
        h = layer_norm(affine=False, dtype=self.dtype)(x) * (1 + scale_0) + shift_0
        h = attend(linear("q")(h), linear("k")(h), linear("v")(h), self.heads)
        x = x + gate_0 * drop(linear("out")(h))
        h = layer_norm(self.mlp_epsilon, affine=False, dtype=self.dtype)(x) * (1 + scale_1) + shift_1
        h = nn.gelu(linear("mlp_0", 4 * width)(h), approximate=True)
        return x + gate_1 * drop(linear("mlp_1")(h))


class DiT(Net):
    """(x, c_noise, label) -> an image of the size of x, through tokens of patch x patch pixels."""

    width: int = 384  # of each token
    depth: int = 12  # how many blocks
    heads: int = 6  # of each attention
    patch: int = 2
    out_channels: int | None = None  # by default those of the image
    dropout: Rate = 0.0  # in each block
    noise_embedding: NoiseEmbedding = Positional(sine_first=False)  # as in diffusers; the paper has shift=0
    classes: int | None = None  # it takes a label, one of 0 .. classes - 1, or `classes`, which stands for none
    own_embedding: bool = False  # each block embeds noise level and label for itself
    mlp_epsilon: Positive = 1e-6  # of the second norm of a block
    remat: bool = False  # compute each block again when its gradient is wanted, rather than keep what is inside
    dtype: Dtype = "auto"  # that is computed in

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width % 4 == 0 and self.width % self.heads == 0, "a width that 4 and the heads divide", self)

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: object = None) -> Array:
        divides(self.patch, x)
        label, _ = parted(condition, self.classes is not None, text=False)
        numbers = numbers_of(x, c_noise)
        channels, x = x.shape[-1], to_patches(x, self.patch)
        *lead, rows, columns, _ = x.shape
        h = dense(self.width, dtype=self.dtype, name="first")(x.reshape(*lead, rows * columns, -1))
        h = h + jnp.broadcast_to(positions(rows, columns, self.width), h.shape).astype(h.dtype)
        block = nn.remat(DiTBlock) if self.remat else DiTBlock
        vectors = [
            self.embed(numbers, label, f"embedding_{i}" if self.own_embedding else "embedding")
            for i in range(self.depth if self.own_embedding else 1)
        ]
        for i in range(self.depth):
            make = block(
                heads=self.heads,
                dropout=self.dropout,
                mlp_epsilon=self.mlp_epsilon,
                dtype=self.dtype,
                name=f"block_{i}",
            )
            h = make(h, vectors[i if self.own_embedding else 0])
        # the answer in full precision, whatever came before
        dtype, out = full(self.dtype), channels if self.out_channels is None else self.out_channels
        both = dense(2 * self.width, zero=True, dtype=dtype, name="last_embedding")(vectors[0])[..., None, :]
        shift, scale = jnp.split(both, 2, -1)
        h = layer_norm(affine=False, dtype=dtype)(h) * (1 + scale) + shift
        h = dense(self.patch**2 * out, zero=True, dtype=dtype, name="last")(h)
        return from_patches(h.reshape(*lead, rows, columns, -1), self.patch)

    def embed(self, numbers: Array, label: Any, name: str) -> Array:
        """The embedding of noise level and label."""
        make = Conditioning(
            width=self.width,
            noise_width=256,
            noise_embedding=self.noise_embedding,
            classes=self.classes,
            dtype=self.dtype,
            name=name,
        )
        return make(numbers, label)


def positions(rows: int, columns: int, width: int) -> Array:
    """Sines and cosines of the column, then of the row: [rows columns, width]."""
    wave = Positional(shift=0)
    across, down = (wave(jnp.arange(n), width // 2) for n in (columns, rows))
    shape = (rows, columns, width // 2)
    both = jnp.broadcast_to(across[None], shape), jnp.broadcast_to(down[:, None], shape)
    return jnp.concatenate(both, -1).reshape(rows * columns, width)


# the published sizes, with patch 2; DIT_XL.clone(patch=4) is XL/4
DIT_S = DiT()
DIT_B = DiT(width=768, heads=12)
DIT_L = DiT(width=1024, depth=24, heads=16)
DIT_XL = DiT(width=1152, depth=28, heads=16)
