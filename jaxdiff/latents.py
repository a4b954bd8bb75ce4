"""Latent models: the autoencoder that a run is built on, and all images of a data set encoded once."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.augment import plain
from jaxdiff.data import Examples
from jaxdiff.nets.autoencoder import Autoencoder, Codec

BATCH = 256


def measured(network: Autoencoder, variables: Any, examples: Examples, most: int = 10_000) -> Codec:
    """A codec whose latents have mean 0 and deviation 1 on the first images of the data."""
    count = min(most, len(examples))
    rows = [np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    return Codec.measured(network, variables, (plain(examples.images[r]) for r in rows))


def moments_of(codec: Codec, examples: Examples, path: Path) -> np.ndarray:
    """Mean and deviation of the latents of every image, [n, height, width, 2 channels], kept in a file."""
    if path.exists():
        stored = np.load(path, mmap_mode="r")
        if len(stored) == len(examples):
            return stored
    first = np.asarray(_moments(codec, _padded(examples, 0)))
    beside = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    stored = np.lib.format.open_memmap(beside, "w+", np.float32, (len(examples), *first.shape[1:]))
    for start in range(0, len(examples), BATCH):
        rows = min(BATCH, len(examples) - start)
        stored[start : start + rows] = np.asarray(_moments(codec, _padded(examples, start)))[:rows]
    stored.flush()
    os.replace(beside, path)
    return np.load(path, mmap_mode="r")


def _padded(examples: Examples, start: int) -> np.ndarray:
    """A batch, the last one filled up: one program serves all."""
    return examples.images[np.arange(start, start + BATCH) % len(examples)]


@jax.jit
def _moments(codec: Codec, images: jax.Array) -> jax.Array:
    return codec.moments(plain(images))
