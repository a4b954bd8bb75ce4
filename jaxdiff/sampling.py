"""From a denoiser to images: the maths of one image, mapped over a batch once, here at the edge."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxdiff.denoise import Denoiser
from jaxdiff.grids import Times, checked
from jaxdiff.parallel import Devices
from jaxdiff.process import Image, Process
from jaxdiff.rng import KeyArray, image_key, normal
from jaxdiff.samplers import Sampler


def walk(
    denoise: Denoiser,
    process: Process,
    sampler: Sampler,
    times: Times,
    key: KeyArray,
    carry: Any,
    start: int | Array = 0,
    stop: int | Array | None = None,
) -> Any:
    """One image down the grid, or down a part of it: from carry to carry. Step i draws from fold_in(key, i + 1)."""

    path = jax.vmap(process.at)(times)

    def step(i: Array, carry: Any) -> Any:
        return sampler.step(denoise, process, jax.random.fold_in(key, i + 1), carry, path, i)

    return lax.fori_loop(start, len(times) - 1 if stop is None else stop, step, carry)


@dataclass(frozen=True)
class Progress:
    """What a callback is shown: these images are `step` of `steps` steps down."""

    indices: np.ndarray
    step: int
    steps: int
    _x: Array

    @property
    def images(self) -> np.ndarray:
        """x_t as it stands; fetched from the device only if asked for."""
        return np.asarray(self._x)[: len(self.indices)]


def sample(*args: Any, **kwargs: Any) -> np.ndarray:
    """All the images that `batches` gives, in one array; takes the same arguments."""
    return np.concatenate([images for _, images in batches(*args, **kwargs)])


def batches(
    denoise: Denoiser,
    process: Process,
    sampler: Sampler,
    times: Times,
    *,
    shape: tuple[int, ...],
    indices: int | Sequence[int] = 16,
    seed: int = 0,
    conditions: Any = None,
    batch_size: int | None = None,
    callback: Callable[[Progress], None] | None = None,
    every: int | None = None,
    debug: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sample images batch by batch; yields (indices, images).

    `shape` is that of one image. `indices` are the images' numbers, or how many from 0 on: with the seed a number
    names an image, whatever batch or device it is drawn in. `conditions`, a tree of arrays with one entry an image,
    is the denoiser's third argument. All batches have one shape, at most 64 images unless `batch_size` says otherwise
    (the last is padded), so that all run one compiled program; arrays and numbers anywhere in the denoiser are inputs
    of that program, everything else in it is a constant.

    `callback` is called every `every` steps (once a batch if None); the steps between run on the device without a
    break. `debug` looks at every step for values that are not finite.
    """
    times, steps = checked(times), len(times) - 1
    numbers = _checked_indices(indices)
    _check(all(size >= 1 for size in shape), f"shape must be that of one image, all sizes at least 1, got {shape}")
    _check(0 <= seed < 2**32, f"seed must lie within [0, 2^32), got {seed}")
    _check(batch_size is None or batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
    _check(every is None or every >= 1, f"every must be at least 1, got {every}")
    condition = () if conditions is None else (jax.tree.map(np.asarray, conditions),)
    for leaf in jax.tree.leaves(condition):
        _check(
            leaf.ndim > 0 and len(leaf) == len(numbers),
            f"conditions must have one entry for each of the {len(numbers)} images, got shape {leaf.shape}",
        )

    group = Devices(devices)
    size = group.round_up(batch_size or min(64, len(numbers)))
    arrays, rest = _split(denoise)
    arrays, times = group.replicate((arrays, times))
    chunk = 1 if debug else every or steps
    for first in range(0, len(numbers), size):
        places = np.minimum(np.arange(first, first + size), len(numbers) - 1)  # the last image fills up the batch
        batch = numbers[places[: len(numbers) - first]]
        chosen, own = group.shard(jax.tree.map(lambda leaf, places=places: leaf[places], (numbers, condition)))
        keys, carry = _begin(process, sampler, shape, times, np.uint32(seed), chosen)
        for start in range(0, steps, chunk):
            stop = min(start + chunk, steps)
            carry = _advance(rest, process, sampler, arrays, keys, own, carry, times, start, stop)
            if debug:
                _check_finite(np.asarray(_images(sampler, carry)), batch, start, times)
            if callback is not None and (stop == steps or stop % (every or steps) == 0):
                callback(Progress(batch, stop, steps, _images(sampler, carry)))
        yield batch, np.asarray(_images(sampler, carry))[: len(batch)]


@partial(jax.jit, static_argnames=("process", "sampler", "shape"))
def _begin(
    process: Process, sampler: Sampler, shape: tuple[int, ...], times: Times, seed: Array, indices: Array
) -> Any:
    def one(index: Array) -> tuple[KeyArray, Any]:
        key = image_key(seed, index)
        noise = normal(jax.random.fold_in(key, 0), shape, times.dtype)
        return key, sampler.init(process.sigma(times[0]) * noise)

    return jax.vmap(one)(indices)


@partial(jax.jit, static_argnames=("rest", "process", "sampler"), donate_argnames="carry")
def _advance(
    rest: Any,
    process: Process,
    sampler: Sampler,
    arrays: Any,
    keys: KeyArray,
    condition: tuple[Any, ...],
    carry: Any,
    times: Times,
    start: Array,
    stop: Array,
) -> Any:
    denoise = _join(arrays, rest)

    def one(key: KeyArray, condition: tuple[Any, ...], carry: Any) -> Any:
        def denoised(x: Image, t: Array) -> Image:
            x_0 = denoise(x, t, *condition)
            if x_0.shape != x.shape:
                raise ValueError(f"the denoiser must return the shape of its image, {x.shape}, it returned {x_0.shape}")
            return x_0

        return walk(denoised, process, sampler, times, key, carry, start, stop)

    return jax.vmap(one)(keys, condition, carry)


@partial(jax.jit, static_argnames="sampler")
def _images(sampler: Sampler, carry: Any) -> Array:
    return jax.vmap(sampler.image)(carry)


def _split(tree: Any) -> tuple[list[Any], Any]:
    """The arrays and numbers of a tree, which are inputs of a program, and the rest, hashable, which belongs to it."""
    leaves, structure = jax.tree.flatten(tree)
    is_input = [isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex) for leaf in leaves]
    inputs = [leaf for leaf, yes in zip(leaves, is_input, strict=True) if yes]
    return inputs, (structure, tuple(None if yes else leaf for leaf, yes in zip(leaves, is_input, strict=True)))


def _join(inputs: list[Any], rest: Any) -> Any:
    structure, leaves = rest
    remaining = iter(inputs)
    return jax.tree.unflatten(structure, [next(remaining) if leaf is None else leaf for leaf in leaves])


def _check(legal: bool, message: str) -> None:
    if not legal:
        raise ValueError(message)


def _checked_indices(indices: int | Sequence[int]) -> np.ndarray:
    numbers = np.arange(indices) if isinstance(indices, int) else np.asarray(indices)
    legal = (
        numbers.ndim == 1
        and numbers.size
        and numbers.dtype.kind in "iu"
        and numbers.min() >= 0
        and numbers.max() < 2**32
    )
    _check(bool(legal), f"indices must be a number of images, at least 1, or a row of numbers from 0 up, got {indices}")
    return numbers.astype(np.uint32)


def _check_finite(x: np.ndarray, indices: np.ndarray, step: int, times: Times) -> None:
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)[: len(indices)]
    if not finite.all():
        raise FloatingPointError(
            f"image {indices[np.argmin(finite)]} is not finite after step {step + 1} of {len(times) - 1}, "
            f"from t = {times[step]:.6g} to {times[step + 1]:.6g}: look at what the denoiser returns there"
        )
