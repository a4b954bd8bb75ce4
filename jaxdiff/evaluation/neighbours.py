"""Nearest neighbours among rows of numbers, and what they say of two sets: fidelity and variety apart."""

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.evaluation.distances import Estimate
from jaxdiff.evaluation.summary import Summary

_BLOCK = 2**23  # distances at a time: 34 MB, about what caches hold


def nearest(queries: np.ndarray, rows: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The distances from each query to its k nearest rows, [n, k], and which these are; memory of one block."""
    found = [_nearest(*block, k) for _, block in _blocks(queries, rows)]
    distances, indices = (np.concatenate(part)[: len(queries)] for part in zip(*jax.device_get(found), strict=True))
    return np.sqrt(np.maximum(distances, 0)), indices


def _blocks(queries: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[Array, Array, Array]]]:
    """The numbers of some queries, all blocks of one size; these queries, and the rows with their squares."""
    there, size = jnp.asarray(rows, jnp.float32), max(min(_BLOCK // len(rows), len(queries)), 1)
    squares = jnp.sum(there**2, 1)
    for first in range(0, len(queries), size):
        numbers = np.resize(np.arange(first, min(first + size, len(queries))), size)
        yield numbers, (jnp.asarray(queries[numbers], jnp.float32), there, squares)


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


class Fidelity(NamedTuple):
    """Shares of images, by balls about each image that reach to its k-th neighbour of the same set."""

    precision: Estimate  # samples within a ball of the reference, k = 3 (Kynkäänniemi et al. 2019)
    recall: Estimate  # reference within a ball of the samples, k = 3
    density: Estimate  # balls of the reference that a sample is in, of k = 5 (Naeem et al. 2020)
    coverage: Estimate  # balls of the reference that have a sample in them, k = 5


def fidelity(samples: Summary, reference: Summary) -> Fidelity:
    """Precision, recall, density and coverage of the features of two sets."""
    own, theirs = _reach(samples), _reach(reference)
    found = [
        _crossed(*block, own[numbers, 3], theirs[:, 3], theirs[:, 5])
        for numbers, block in _blocks(samples.rows, reference.rows)
    ]
    within, balls, recalled, least = (np.stack(part) for part in zip(*jax.device_get(found), strict=True))
    count = len(samples.rows)
    return Fidelity(
        _share(within.ravel()[:count]),
        _share(np.asarray(recalled.any(0))),
        _share(balls.ravel()[:count] / 5),
        _share(np.sqrt(np.maximum(least.min(0), 0)) <= theirs[:, 5]),
    )


@lru_cache(maxsize=2)  # of real images they are wanted for each set of samples
def _reach(images: Summary) -> np.ndarray:
    """How far the nearest of the same set are, [n, 6]; each is its own nearest."""
    return nearest(images.rows, images.rows, 6)[0]


@jax.jit
def _crossed(
    queries: Array, rows: Array, squares: Array, own: Array, near: Array, far: Array
) -> tuple[Array, Array, Array, Array]:
    """Whether each query is in the ball of a row, in how many larger ones; and whether a row is in the ball of one of
    the queries, and how near, squared, these come to it."""
    found = _squared(queries, rows, squares)
    inside, balls = found <= near[None] ** 2, found <= far[None] ** 2
    return jnp.any(inside, 1), jnp.sum(balls, 1), jnp.any(found <= own[:, None] ** 2, 0), jnp.min(found, 0)


def _share(each: np.ndarray) -> Estimate:
    return Estimate(float(np.mean(each)), float(np.std(each) / math.sqrt(len(each))))
