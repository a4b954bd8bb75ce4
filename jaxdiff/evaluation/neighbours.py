"""Nearest neighbours among rows of numbers, and what they say of two sets: fidelity and variety apart."""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.evaluation.distances import Estimate

_BLOCK = 2**23  # distances at a time: 34 MB, about what caches hold


def nearest(queries: np.ndarray, rows: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The distances from each query to its k nearest rows, [n, k], and which these are; memory of one block."""
    found = [_nearest(block, *there, k) for block, there in _blocks(queries, rows)]
    distances, indices = (np.concatenate(part)[: len(queries)] for part in zip(*jax.device_get(found), strict=True))
    return np.sqrt(np.maximum(distances, 0)), indices


def within(queries: np.ndarray, rows: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Of how many rows each query lies within the radius."""
    reach = jnp.asarray(radii)
    counts = [_within(block, *there, reach) for block, there in _blocks(queries, rows)]
    return np.concatenate(jax.device_get(counts))[: len(queries)]


def _blocks(queries: np.ndarray, rows: np.ndarray) -> Iterator[tuple[Array, tuple[Array, Array]]]:
    """Queries, all blocks of one size, and the rows with their squares."""
    there, size = jnp.asarray(rows, jnp.float32), max(min(_BLOCK // len(rows), len(queries)), 1)
    squares = jnp.sum(there**2, 1)
    for first in range(0, len(queries), size):
        block = queries[np.resize(np.arange(first, min(first + size, len(queries))), size)]
        yield jnp.asarray(block, jnp.float32), (there, squares)


def _squared(queries: Array, rows: Array, squares: Array) -> Array:
    product = jnp.matmul(queries, rows.T, precision="highest")
    return jnp.sum(queries**2, 1)[:, None] + squares[None] - 2 * product


@partial(jax.jit, static_argnames="k")
def _nearest(queries: Array, rows: Array, squares: Array, k: int) -> tuple[Array, Array]:
    found = _squared(queries, rows, squares)
    if k == 1:
        index = jnp.argmin(found, 1)[:, None]
        return jnp.take_along_axis(found, index, 1), index
    negative, index = jax.lax.top_k(-found, k)
    return -negative, index


@jax.jit
def _within(queries: Array, rows: Array, squares: Array, radii: Array) -> Array:
    return jnp.sum(_squared(queries, rows, squares) <= radii[None] ** 2, 1)


class Fidelity(NamedTuple):
    """Shares of images, by balls about each image that reach to its k-th neighbour of the same set."""

    precision: Estimate  # samples within a ball of the reference, k = 3 (Kynkäänniemi et al. 2019)
    recall: Estimate  # reference within a ball of the samples, k = 3
    density: Estimate  # balls of the reference that a sample is in, of k = 5 (Naeem et al. 2020)
    coverage: Estimate  # balls of the reference that have a sample in them, k = 5


def fidelity(samples: np.ndarray, reference: np.ndarray) -> Fidelity:
    own, theirs = (nearest(rows, rows, 6)[0] for rows in (samples, reference))  # each is its own nearest
    density = within(samples, reference, theirs[:, 5]) / 5
    return Fidelity(
        _share(within(samples, reference, theirs[:, 3]) > 0),
        _share(within(reference, samples, own[:, 3]) > 0),
        _share(density),
        _share(nearest(reference, samples)[0][:, 0] <= theirs[:, 5]),
    )


def _share(each: np.ndarray) -> Estimate:
    return Estimate(float(np.mean(each)), float(np.std(each) / math.sqrt(len(each))))
