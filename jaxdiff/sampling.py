"""From a denoiser to images: the maths of one image, mapped over a batch once, here at the edge."""

import dataclasses
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxdiff.denoise import Denoiser, Moved
from jaxdiff.grids import Times, checked
from jaxdiff.parallel import Devices
from jaxdiff.process import Image, Process
from jaxdiff.rng import KeyArray, first_noise, image_key
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
    """What a callback is shown: these images are `step` of `steps` steps down. Good until the callback returns.

    Both pictures of them are fetched, and the second is computed, only if asked for.
    """

    indices: np.ndarray
    step: int
    steps: int
    _x: Array
    _expected: Callable[[Array], Array]

    @property
    def images(self) -> np.ndarray:
        """x_t as it stands."""
        return np.asarray(self._x)[: len(self.indices)]

    @property
    def expected(self) -> np.ndarray:
        """The clean image that the denoiser expects of it."""
        return np.asarray(self._expected(self._x))[: len(self.indices)]


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
    images: Any = None,
    noise: Any = None,
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
    (the last is padded), so that all run one compiled program; arrays and floats anywhere in the denoiser are inputs
    of that program, everything else in it is a constant.

    With `images`, one for each, these are made as noisy as at the first of the times, and denoised from there: give
    times that begin later than at 1. `noise`, one for each, takes the place of the seed's at the start.

    `callback` is called every `every` steps (once a batch if None); the steps between run on the device without a
    break. `debug` looks at every step for values that are not finite.
    """
    numbers = checked_indices(indices)
    shape = tuple(_whole("shape", size, least=1) for size in (shape if isinstance(shape, Sequence) else (shape,)))
    own = _Own(
        numbers,
        _checked_conditions(conditions, len(numbers)),
        _checked_start("images", images, (len(numbers), *shape)),
        _checked_start("noise", noise, (len(numbers), *shape)),
    )
    seed = _whole("seed", seed, least=0)
    _check(seed < 2**32, f"seed must be below 2^32, got {seed}")
    every = None if every is None else _whole("every", every, least=1)
    size = min(64, len(numbers)) if batch_size is None else _whole("batch_size", batch_size, least=1)
    _check(callback is None or callable(callback), f"callback must be a function of a Progress, got {callback!r}")
    times = checked(times)
    check_parts(denoise, process, sampler, times)
    return _walked(denoise, process, sampler, times, shape, seed, own, size, callback, every, debug, devices)


class _Own(NamedTuple):
    """What belongs to one image, or to each of many: then with a leading axis."""

    index: Any
    condition: Any = ()  # the denoiser's further arguments
    image: Any = None
    noise: Any = None


def _walked(
    denoise: Denoiser,
    process: Process,
    sampler: Sampler,
    times: Times,
    shape: tuple[int, ...],
    seed: int,
    own: _Own,
    size: int,
    callback: Callable[[Progress], None] | None = None,
    every: int | None = None,
    debug: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches, of `size` images each, down the times or up."""
    group, steps, count = Devices(devices), len(times) - 1, len(own.index)
    size, every = group.round_up(size), steps if every is None else every
    inputs, rest = _split(denoise)
    inputs, times = group.replicate((inputs, times))

    def draw(places: np.ndarray) -> Progress:
        """One batch down the grid, chunk by chunk."""
        padded, chunk = np.resize(places, size), 1 if debug else every
        chosen = group.shard(jax.tree.map(lambda leaf: leaf[padded], own))
        keys, carry = _begin(process, sampler, shape, times, np.uint32(seed), chosen)
        for start in range(0, steps, chunk):
            stop = min(start + chunk, steps)
            carry = _advance(rest, process, sampler, inputs, keys, chosen.condition, carry, times, start, stop)
            expected = partial(_expected, rest, process, inputs, chosen.condition, times[stop])
            progress = Progress(own.index[places], stop, steps, _images(sampler, carry), expected)
            if debug:
                _check_finite(progress, times)
            if callback is not None and (stop == steps or stop % every == 0):
                callback(progress)
        return progress

    for first in range(0, count, size):
        finished = draw(np.arange(first, min(first + size, count)))
        images = finished.images
        if not np.isfinite(images).all():
            warnings.warn("some images are not finite: debug=True says which, and from what step on", stacklevel=2)
        yield finished.indices, images


def encode(
    denoise: Denoiser,
    process: Process,
    sampler: Sampler,
    times: Times,
    images: np.ndarray,
    *,
    conditions: Any = None,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> np.ndarray:
    """The noise from which `sample` draws these images, on the same times: the probability-flow ODE, walked up.

    Both ways are approximations, the better the more steps. The sampler must be one that follows it, such as EDM().
    """
    images = np.asarray(images)
    _check(images.ndim > 1 and len(images) > 0, f"images must be at least one, [n, ...], got shape {images.shape}")
    times = checked(times)
    check_parts(denoise, process, sampler, times)
    _check(sampler.follows_ode, f"{sampler} does not follow the ODE: encode with EDM(), Heun() or DDIM()")
    last = max(float(times[-1]), process.t_min)  # from clean data itself, without any noise, no way leads up
    up = np.append(last, np.flip(times[times > last]))
    _check(len(up) > 1, f"times must begin above t = {last:.3g}, where noise begins, got {times[0]:.3g}")
    own = _Own(
        np.arange(len(images), dtype=np.uint32),
        _checked_conditions(conditions, len(images)),
        _checked_start("images", images, images.shape),
        np.broadcast_to(np.float32(0), images.shape),
    )
    size = min(64, len(images)) if batch_size is None else _whole("batch_size", batch_size, least=1)
    walked = _walked(denoise, process, sampler, jnp.asarray(up), images.shape[1:], 0, own, size, devices=devices)
    return np.concatenate([x for _, x in walked]) / np.asarray(process.sigma(jnp.asarray(up[-1])))


P = ParamSpec("P")


def _joined(generate: Callable[P, Iterator[tuple[np.ndarray, np.ndarray]]]) -> Callable[P, np.ndarray]:
    def sample(*args: P.args, **kwargs: P.kwargs) -> np.ndarray:
        return np.concatenate([images for _, images in generate(*args, **kwargs)])

    sample.__doc__ = f"All images in one array. Otherwise as `batches`:\n\n    {generate.__doc__}"
    sample.__wrapped__ = generate  # type: ignore[attr-defined]  # for help() and editors to show the arguments
    return sample


sample = _joined(batches)


def program(
    denoise: Denoiser, process: Process, sampler: Sampler, times: Times, *, shape: tuple[int, ...]
) -> Callable[..., Array]:
    """All of `sample` as one function of arrays, (seed, indices, *conditions) -> images, to be compiled or exported.

    It is a tree too, of the arrays and floats in the denoiser.
    """
    times = checked(times)
    check_parts(denoise, process, sampler, times)
    inputs, rest = _split(denoise)

    def draw(inputs: Any, seed: Array, indices: Array, *conditions: Any) -> Array:
        own = _Own(indices, conditions)
        keys, carry = _begin(process, sampler, shape, times, seed, own)
        carry = _advance(rest, process, sampler, inputs, keys, conditions, carry, times, 0, len(times) - 1)
        return _images(sampler, carry)

    return jax.tree_util.Partial(draw, inputs)


@partial(jax.jit, static_argnames=("process", "sampler", "shape"))
def _begin(process: Process, sampler: Sampler, shape: tuple[int, ...], times: Times, seed: Array, own: _Own) -> Any:
    first = process.at(times[0])

    def one(own: _Own) -> tuple[KeyArray, Any]:
        key = image_key(seed, own.index)
        noise = first_noise(key, shape, times.dtype) if own.noise is None else own.noise
        return key, sampler.init(first.sigma * noise if own.image is None else first.perturb(own.image, noise))

    return jax.vmap(one)(own)


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
            got = getattr(x_0, "shape", type(x_0).__name__)
            _check(got == x.shape, f"the denoiser must return an image of its input's shape, {x.shape}, got {got}")
            return x_0

        return walk(denoised, process, sampler, times, key, carry, start, stop)

    return jax.vmap(one)(keys, condition, carry)


@partial(jax.jit, static_argnames=("rest", "process"))
def _expected(rest: Any, process: Process, arrays: Any, condition: tuple[Any, ...], t: Array, x: Array) -> Array:
    x_0 = jax.vmap(lambda x, condition: _join(arrays, rest)(x, t, *condition))(x, condition)
    return jnp.where(process.sigma(t) > 0, x_0, x)  # of clean data itself there is nothing to expect


@partial(jax.jit, static_argnames="sampler")
def _images(sampler: Sampler, carry: Any) -> Array:
    return jax.vmap(sampler.image)(carry)


def _split(tree: Any) -> tuple[list[Any], Any]:
    """The arrays and floats of a tree, which are inputs of a program, and the rest, hashable, which belongs to it."""
    leaves, structure = jax.tree.flatten(tree)
    is_input = [isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex) for leaf in leaves]
    inputs = [leaf for leaf, yes in zip(leaves, is_input, strict=True) if yes]
    return inputs, (structure, tuple(None if yes else leaf for leaf, yes in zip(leaves, is_input, strict=True)))


def _join(inputs: list[Any], rest: Any) -> Any:
    structure, leaves = rest
    remaining = iter(inputs)
    return jax.tree.unflatten(structure, [next(remaining) if leaf is None else leaf for leaf in leaves])


def _check(legal: bool, message: str) -> None:
    if not legal:
        raise ValueError(message)


def check_parts(denoise: Any, process: Any, sampler: Any, times: Times | np.ndarray) -> None:
    _check(callable(denoise), f"denoise must be a function (x_t, t) -> x_0, got {denoise!r}")
    _check(isinstance(process, Process), f"process must be one of jaxdiff.process, such as VP(), got {process!r}")
    _check(isinstance(sampler, Sampler), f"sampler must be one of jaxdiff.samplers, such as DDIM(), got {sampler!r}")
    if sampler.needs_signal and float(process.alpha(times[0])) == 0:
        raise ValueError(
            f"{sampler} cannot start where nothing of the data is left (alpha = 0): use a grid that starts at "
            f"t = {process.t_max}, such as Uniform(first={process.t_max}), LogSNR() or Karras()"
        )
    for made_for in _processes_of(denoise):
        _check(
            made_for == process,
            f"the denoiser was made for {made_for}, not for {process}: sample on that, or on another process of the "
            f"same range by denoise.Moved(model, made_for, used_on)",
        )


def _processes_of(denoise: Any) -> Iterator[Process]:
    """The processes on which a denoiser and those within it expect their x_t; a moved one only where it is used."""
    if isinstance(denoise, Moved):
        yield denoise.used_on
    elif dataclasses.is_dataclass(denoise):
        for field in dataclasses.fields(denoise):
            value = getattr(denoise, field.name)
            if isinstance(value, Process):
                yield value
            else:
                yield from _processes_of(value)


def _whole(name: str, value: Any, least: int) -> int:
    """A whole number, of any library."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    _check(number >= least, f"{name} must be a whole number, at least {least}, got {value!r}")
    return number


def checked_indices(indices: Any) -> np.ndarray:
    numbers = np.asarray(indices)
    if numbers.ndim == 0 and numbers.dtype.kind in "iu":
        numbers = np.arange(int(numbers))
    legal = numbers.ndim == 1 and numbers.size > 0 and numbers.dtype.kind in "iu"
    legal = legal and numbers.min() >= 0 and numbers.max() < 2**32
    _check(legal, f"indices must be a number of images, at least 1, or a row of numbers from 0 up, got {indices}")
    return numbers.astype(np.uint32)


def _checked_conditions(conditions: Any, count: int) -> tuple[Any, ...]:
    """The denoiser's further arguments: none, or one tree of arrays with an entry for each image."""
    if conditions is None:
        return ()
    arrays = jax.tree.map(np.asarray, conditions, is_leaf=lambda node: isinstance(node, list))
    for leaf in jax.tree.leaves(arrays):
        _check(leaf.dtype.kind not in "OUS", f"conditions must be arrays of numbers, got {conditions!r}")
        _check(
            leaf.ndim > 0 and len(leaf) == count,
            f"conditions must have one entry for each of the {count} images, got shape {leaf.shape}",
        )
    return (arrays,)


def _checked_start(name: str, given: Any, shape: tuple[int, ...]) -> Any:
    """What the images start from: an array of floats, one for each; one that was broadcast stays so."""
    if given is None:
        return None
    array = np.asarray(given)
    legal = array.dtype.kind == "f" and array.shape == shape
    _check(legal, f"{name} must be floats of shape {shape}, one for each image, got {array.dtype} {array.shape}")
    return array


def _check_finite(progress: Progress, times: Times) -> None:
    finite = np.isfinite(progress.images).reshape(len(progress.indices), -1).all(axis=1)
    if not finite.all():
        raise FloatingPointError(
            f"image {progress.indices[np.argmin(finite)]} is not finite after step {progress.step} of "
            f"{progress.steps}, from t = {times[progress.step - 1]:.6g} to {times[progress.step]:.6g}: "
            f"look at what the denoiser returns there"
        )
