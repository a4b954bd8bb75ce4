"""Latent models: the autoencoder that a run is built on, and all images of a data set encoded once."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.base import files
from jaxdiff.base.devices import Devices
from jaxdiff.data import Examples
from jaxdiff.data.augment import plain
from jaxdiff.data.examples import mixed
from jaxdiff.nets.autoencoder import Codec

BATCH = 256


def measured(network: Any, variables: Any, examples: Examples, most: int = 10_000) -> Codec:
    """A codec whose latents have mean 0 and deviation 1 on the images of the data, or on some of them."""
    some = np.sort(mixed(len(examples), most))
    rows = [some[start : start + BATCH] for start in range(0, len(some), BATCH)]
    return Codec.measured(network, variables, (plain(examples.images[r]) for r in rows))


def moments(codec: Codec, x: Array, flip: bool) -> Array:
    """Mean and deviation of the latents of x, [..., height, width, 2 channels].

    With `flip`, [..., 2, height, width, 2 channels]: those of its mirror image too, which are not those of x mirrored.
    """
    found = codec.moments(x)
    return jnp.stack([found, codec.moments(x[..., ::-1, :])], -4) if flip else found


def moments_of(codec: Codec, examples: Examples, path: Path, flip: bool = False) -> np.ndarray:
    """The moments of every image, kept in a file."""
    first = np.asarray(_moments(codec, _padded(examples, 0), flip))
    shape = (len(examples), *first.shape[1:])
    kept = _kept(path, shape)
    if kept is not None:
        return kept
    with files.beside(path) as new:
        with open(new, "wb") as file:
            file.write(files.npy_header("<f4", shape))
            for start in range(0, len(examples), BATCH):
                rows = min(BATCH, len(examples) - start)
                found = np.asarray(_moments(codec, _padded(examples, start), flip), np.float32)
                file.write(np.ascontiguousarray(found[:rows]).data)
        if _kept(path, shape) is None:  # another process, which has mapped its own, may have been quicker
            os.replace(new, path)
    for old in path.parent.glob("latents*.npy"):  # of data that the run began with
        if old != path:
            old.unlink()
    return np.load(path, mmap_mode="r")


def _kept(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The file, if it is there and whole."""
    try:
        stored = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == shape and stored.dtype == np.float32 else None


def _padded(examples: Examples, start: int) -> np.ndarray:
    """A batch, the last one filled up: one program serves all."""
    return examples.images[np.arange(start, start + BATCH) % len(examples)]


@partial(jax.jit, static_argnums=2)
def _moments(codec: Codec, images: jax.Array, flip: bool) -> jax.Array:
    return moments(codec, plain(images), flip)


def encoded(codec: Codec | None, images: np.ndarray) -> np.ndarray:
    """The means of the latents of images, a few at a time."""
    return images if codec is None else in_parts(_encode, codec, images)


def decoded(codec: Codec | None, x: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] of what was sampled, a few at a time."""
    return x if codec is None else in_parts(_decode, codec, x)


def in_parts(function: Callable[[Any, Any], Any], network: Any, x: Any, size: int = 16) -> Any:
    """function(network, x) of trees of arrays, a few rows of x at a time on all devices: it may take much memory."""
    group, count = Devices(), len(jax.tree.leaves(x)[0])
    size, network = group.round_up(min(size, count)), group.replicate(network)
    parts = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        parts.append(jax.device_get(function(network, group.shard(jax.tree.map(lambda leaf: leaf[rows], x)))))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


@jax.jit
def _decode(codec: Codec, z: Array) -> Array:
    return codec.decode(z)


@jax.jit
def _encode(codec: Codec, images: jax.Array) -> jax.Array:
    return codec.encode(images)
