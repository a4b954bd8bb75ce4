"""Noise that depends on (seed, image index, step) alone, so that image i is image i in any batch, on any devices."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Key, UInt32

KeyArray = Key[Array, ""]


def image_key(seed: int | Array, index: int | Array) -> KeyArray:
    """The key of one image."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), index)


def uniform_bits(key: KeyArray, size: int) -> UInt32[Array, "size"]:
    """Threefry of the counters 0, 1, ...: both words of every block are used, and the first two of any kind of key.

    `jax.random.bits` folds the two words into one, so that an array can be sharded along any axis; images are
    sharded between, never within, so half of the work is enough.
    """
    counters = jnp.arange(size + size % 2, dtype=jnp.uint32)
    return threefry_2x32(jax.random.key_data(key)[:2], counters)[:size]


def normal(key: KeyArray, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Standard normal noise for one image: the inverse error function of 23 random bits a number."""
    wide = jnp.promote_types(dtype, jnp.float32)  # in half precision the ends would round to 1, and erf_inv(1) is inf
    bits = uniform_bits(key, math.prod(shape)) >> 9
    odd = (2 * bits + 1).astype(wide) * 2.0**-23 - 1  # in (-1, 1), symmetric, never 0 or an end
    return (math.sqrt(2) * lax.erf_inv(odd)).reshape(shape).astype(dtype)


def first_noise(key: KeyArray, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """What the image of that key starts from; its steps draw from the keys folded with 1, 2, ..."""
    return normal(jax.random.fold_in(key, 0), shape, dtype)


def stratified(key: KeyArray, index: Array, total: int) -> Array:
    """u for example `index` of a global batch of `total`, given the batch's one key: spread evenly, shifted jointly."""
    return (jax.random.uniform(key) + index / total) % 1.0
