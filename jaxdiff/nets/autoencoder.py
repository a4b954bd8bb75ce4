"""A convolutional autoencoder with KL-regularised latents (Rombach et al. 2022), and the codec it makes."""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.nets.blocks import Attention, ResBlock, divides
from jaxdiff.nets.layers import (
    Conv,
    Dtype,
    GroupNorm,
    Net,
    Positive,
    dense,
    from_patches,
    full,
    silu,
    to_patches,
    upsample,
)


@struct.dataclass
class DiagonalGaussian:
    """N(mean, variance), each number of it independent."""

    mean: Array
    log_variance: Array

    def sample(self, key: Array) -> Array:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_variance / 2) * noise

    def kl(self) -> Array:
        """KL(self || N(0, 1)) of each number, in nats."""
        return (self.mean**2 + jnp.exp(self.log_variance) - 1 - self.log_variance) / 2


_SHARED = ("blocks", "attention", "patch", "groups", "epsilon", "remat", "dtype")


class Stack(Net):
    """What encoder and decoder share."""

    widths: tuple[int, ...]
    blocks: int
    attention: bool
    patch: int
    groups: int | None
    epsilon: Positive
    remat: bool
    quant: bool
    dtype: Dtype

    def block(self, name: str, x: Array, width: int) -> Array:
        block = nn.remat(ResBlock) if self.remat else ResBlock
        return block(width, groups=self.groups, epsilon=self.epsilon, dtype=self.dtype, name=name)(x)

    def middle(self, x: Array) -> Array:
        x = self.block("middle_0", x, x.shape[-1])
        if self.attention:
            x = Attention(groups=self.groups, epsilon=self.epsilon, dtype=self.dtype, name="middle_attention")(x)
        return self.block("middle_1", x, x.shape[-1])

    def last(self, x: Array, channels: int) -> Array:
        norm = GroupNorm(self.groups, self.epsilon, full(self.dtype), name="last_norm")
        return Conv(channels, dtype=full(self.dtype), name="last")(silu(norm(x)))


class Encoder(Stack):
    """An image -> mean and log-variance of its latents."""

    latent: int

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = Conv(self.widths[0], dtype=self.dtype, name="first")(to_patches(x, self.patch))
        for level, width in enumerate(self.widths):
            if level > 0:
                x = Conv(x.shape[-1], 2, (0, 1), dtype=self.dtype, name=f"down_{level}")(x)
            for i in range(self.blocks):
                x = self.block(f"down_{level}_{i}", x, width)
        x = self.last(self.middle(x), 2 * self.latent)
        x = dense(2 * self.latent, dtype=full(self.dtype), name="quant")(x) if self.quant else x
        mean, log_variance = jnp.split(x, 2, -1)
        return DiagonalGaussian(mean, jnp.clip(log_variance, -30.0, 20.0))


class Decoder(Stack):
    """Latents -> an image."""

    channels: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        z = dense(z.shape[-1], dtype=full(self.dtype), name="quant")(z) if self.quant else z
        x = self.middle(Conv(self.widths[-1], dtype=self.dtype, name="first")(z))
        for level, width in reversed(list(enumerate(self.widths))):
            for i in range(self.blocks + 1):
                x = self.block(f"up_{level}_{i}", x, width)
            if level > 0:
                x = Conv(width, dtype=self.dtype, name=f"up_{level}")(upsample(x))
        return from_patches(self.last(x, self.patch**2 * self.channels), self.patch)


class Autoencoder(Net):
    """encode: image -> DiagonalGaussian of its latents; decode: latents -> image. Levels after the first halve it."""

    image_channels: int = 3
    latent_channels: int = 4
    channels: int = 128
    multipliers: tuple[float, ...] = (1, 2, 4, 4)
    blocks: int = 2  # of a level of the encoder; one more in the decoder
    attention: bool = True  # in the middle
    patch: int = 1  # level 0 has one pixel for patch x patch of the image, whose values are its channels
    quant: bool = True  # a 1x1 convolution on either side of the latents
    groups: int | None = None
    epsilon: Positive = 1e-6
    remat: bool = False  # compute each block again when its gradient is wanted, rather than keep what is inside
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.multipliers) and min(self.widths) > 0, "multipliers > 0, one a level", self.multipliers)

    @property
    def widths(self) -> list[int]:
        """The channels of each level."""
        return [round(self.channels * multiplier) for multiplier in self.multipliers]

    def setup(self) -> None:
        shared = {name: getattr(self, name) for name in ("widths", "quant", *_SHARED)}
        self.encoder = Encoder(latent=self.latent_channels, **shared)
        self.decoder = Decoder(channels=self.image_channels, **shared)

    def encode(self, x: Array) -> DiagonalGaussian:
        divides(self.patch * 2 ** (len(self.multipliers) - 1), x)
        require(x.shape[-1] == self.image_channels, f"images of {self.image_channels} channels", x.shape)
        return self.encoder(x)

    def decode(self, z: Array) -> Array:
        divides(1, z)
        require(z.shape[-1] == self.latent_channels, f"latents of {self.latent_channels} channels", z.shape)
        return self.decoder(z)

    def __call__(self, x: Array) -> Array:
        """The reconstruction of x from the mean of its latents."""
        return self.decode(self.encode(x).mean)


@struct.dataclass
class Codec:
    """A trained autoencoder as a diffusion model uses it: latents of mean 0 and deviation 1, as measured on data."""

    network: Autoencoder = struct.field(pytree_node=False)
    variables: dict
    mean: Array  # [latent channels], as is
    deviation: Array

    @classmethod
    def measured(cls, network: Autoencoder, variables: dict, batches: Iterable[Array]) -> "Codec":
        """With the mean and deviation of the latents of some batches of images, channel by channel."""
        count, total, square = 0, 0.0, 0.0
        for batch in batches:
            latents = _latents(network, variables, batch)
            z = np.asarray(latents.mean, np.float64).reshape(-1, network.latent_channels)
            variance = np.exp(np.asarray(latents.log_variance, np.float64)).reshape(z.shape)
            count, total, square = count + len(z), total + z.sum(0), square + (z**2 + variance).sum(0)
        require(count > 0, "at least one batch of images to measure", count)
        mean = total / count
        deviation = np.sqrt(square / count - mean**2)
        return cls(network, variables, jnp.asarray(mean, jnp.float32), jnp.asarray(deviation, jnp.float32))

    def encode(self, x: Array, key: Array | None = None) -> Array:
        """The latents of an image: drawn with a key, else their mean."""
        latents = _latents(self.network, self.variables, x)
        z = latents.mean if key is None else latents.sample(key)
        return (z - jnp.broadcast_to(self.mean, z.shape)) / jnp.broadcast_to(self.deviation, z.shape)

    def moments(self, x: Array) -> Array:
        """Mean and deviation of the latents of an image, one after the other along the channels."""
        latents = _latents(self.network, self.variables, x)
        mean, deviation = latents.mean, jnp.exp(latents.log_variance / 2)
        mean = mean - jnp.broadcast_to(self.mean, mean.shape)
        both = jnp.concatenate([mean, deviation], -1)
        return both / jnp.broadcast_to(jnp.tile(self.deviation, 2), both.shape)

    def decode(self, z: Array) -> Array:
        z = z * jnp.broadcast_to(self.deviation, z.shape) + jnp.broadcast_to(self.mean, z.shape)
        return jnp.asarray(self.network.apply(self.variables, z, method="decode"))


@partial(jax.jit, static_argnums=0)
def _latents(network: Autoencoder, variables: dict, x: Array) -> DiagonalGaussian:
    latents = network.apply(variables, x, method="encode")
    assert isinstance(latents, DiagonalGaussian)
    return latents


# Stable Diffusion's: 83,653,863 parameters, latents of an eighth
SD_VAE = Autoencoder()
# small ones, latents of a quarter: 7x7x4 for 28x28, 8x8x4 for 32x32
KL_28 = Autoencoder(image_channels=1, channels=32, multipliers=(1, 2, 4), blocks=1, attention=False, groups=8)
KL_32 = Autoencoder(channels=64, multipliers=(1, 2, 4), blocks=1, groups=16)
# one for 128x128, 16x16x8, of which a CPU trains on 20 images a second
KL_128 = Autoencoder(latent_channels=8, channels=48, multipliers=(1, 2), blocks=1, attention=False, patch=4, groups=16)
