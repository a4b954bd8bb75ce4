"""From stored images, uint8 from 0 to 255, to what is trained on, numbers in [-1, 1]; on the device, one at a time."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, UInt8

from jaxdiff.data.examples import LARGEST


@dataclass(frozen=True)
class Augment:
    """What chance may do to an image of the training data: each image throws its own coins."""

    flip: bool = False  # left and right, half of the images
    pad: int = 0  # moved by up to so many pixels; what comes in at the edges is its mirror image
    dequantize: bool = False  # uniform noise of one gray level, so that the densities of models are comparable

    def __post_init__(self) -> None:
        if not 0 <= self.pad <= LARGEST:
            raise ValueError(f"needs pad from 0 to {LARGEST}, got {self}")

    def __call__(self, key: Array, image: UInt8[Array, "h w c"]) -> Float[Array, "h w c"]:
        for_flip, for_place, for_noise = jax.random.split(key, 3)
        if self.flip:
            image = jnp.where(jax.random.bernoulli(for_flip), image[:, ::-1], image)
        if self.pad:
            padded = jnp.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)), "reflect")
            row, column = jax.random.randint(for_place, (2,), 0, 2 * self.pad + 1)
            image = lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), image.shape)
        if self.dequantize:
            return (image + jax.random.uniform(for_noise, image.shape)) / 128 - 1
        return plain(image)


def plain(image: ArrayLike) -> Float[Array, "..."]:
    """uint8, 0 to 255, as -1 to 1."""
    return jnp.asarray(image).astype(jnp.float32) / 127.5 - 1
