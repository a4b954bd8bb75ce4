"""From a denoiser or a flow map to images: the mathematics of one image, mapped over a batch once, here at the edge."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.base.checks import check, whole
from jaxdiff.base.devices import DIVIDED, EVERYWHERE, Devices
from jaxdiff.core.arguments import check_parts, checked_conditions, checked_indices, checked_start
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.grids import Times, checked
from jaxdiff.core.process import Image, Point, Process
from jaxdiff.core.rng import KeyArray, first_noise, image_key
from jaxdiff.core.samplers import Sampler
from jaxdiff.core.samplers.base import walks_ode
from jaxdiff.core.samplers.walk import walk


@dataclass(frozen=True)
class Progress:
    """What a callback gets: these images are `step` of `steps` steps down. Valid until the callback returns.

    Both pictures of them are fetched, and the second is computed, only if asked for.
    """

    indices: np.ndarray  # the numbers of the images
    step: int  # steps taken
    steps: int  # in all
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
    numbers, own_shape = checked_indices(indices), _checked_shape(shape)
    starts = (checked_start(name, x, (len(numbers), *own_shape)) for name, x in (("images", images), ("noise", noise)))
    own = _Own(numbers, checked_conditions(conditions, len(numbers)), *starts)
    check(callback is None or callable(callback), f"callback must be a function of a Progress, got {callback!r}")
    watch = _Watch(callback, None if every is None else whole("every", every, least=1), debug)
    job = _Job(denoise, process, sampler, times, own_shape, devices)
    return job.run(own, whole("seed", seed, below=2**32), batch_size, watch)


def sample(denoise: Denoiser, process: Process, sampler: Sampler, times: Times, **options: Any) -> np.ndarray:
    """All images in one array; `options` are those of `batches`, of which `shape` must be given."""
    return np.concatenate([images for _, images in batches(denoise, process, sampler, times, **options)])


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
    """The noise from which `sample` draws these images on the same times: the probability-flow ODE, solved upwards.

    Both directions are approximations, the better the more steps. The sampler must follow that ODE, as EDM() does.
    """
    images = np.asarray(images)
    check(images.ndim > 1 and len(images) > 0, f"images must be at least one, [n, ...], got shape {images.shape}")
    times = checked(times)
    check_parts(denoise, process, sampler, times)
    check(walks_ode(sampler), f"{sampler} does not follow the ODE: encode with EDM(), Heun() or DDIM()")
    last = max(float(times[-1]), process.t_min)  # clean data, without any noise, has no way up
    up = np.append(last, np.flip(times[times > last]))
    check(len(up) > 1, f"times must begin above t = {last:.3g}, where noise begins, got {times[0]:.3g}")
    own = _Own(
        np.arange(len(images), dtype=np.uint32),
        checked_conditions(conditions, len(images)),
        checked_start("images", images, images.shape),
        np.broadcast_to(np.float32(0), images.shape),
    )
    job = _Job(denoise, process, sampler, jnp.asarray(up), images.shape[1:], devices, falling=False)
    return np.concatenate([x for _, x in job.run(own, 0, batch_size)]) / np.asarray(process.sigma(jnp.asarray(up[-1])))


def program(
    denoise: Denoiser, process: Process, sampler: Sampler, times: Times, *, shape: tuple[int, ...]
) -> Callable[..., Array]:
    """All of `sample` as one function of arrays, (seed, indices, *conditions) -> images, to be compiled or exported.

    It is a tree too, of the arrays and floats in the denoiser. For gradients in reverse see `samplers.walk.walk`.
    """
    times = checked(times)
    check_parts(denoise, process, sampler, times)
    inputs, rest = split(denoise)

    def draw(inputs: Any, seed: Array, indices: Array, *conditions: Any) -> Array:
        own = _Own(indices, conditions)
        keys, carry = _begin(process, sampler, shape, times, seed, own)
        carry = _advance(rest, process, sampler, inputs, keys, conditions, carry, times, 0, len(times) - 1)
        return _images(sampler, carry)

    return jax.tree_util.Partial(draw, inputs)


def lowered(
    denoise: Denoiser,
    process: Process,
    sampler: Sampler,
    times: Times,
    *,
    shape: tuple[int, ...],
    indices: Sequence[int],
    conditions: Any = None,
    images: Any = None,
    noise: Any = None,
    devices: Sequence[jax.Device] | None = None,
) -> jax.stages.Lowered:
    """All steps of `sample` for one batch, traced for devices that need not be here.

    Its `cost_analysis` is that of one step, since XLA counts a loop once.
    """
    times, group = checked(times), Devices(devices)
    check_parts(denoise, process, sampler, times)
    inputs, rest = split(denoise)
    numbers = np.asarray(indices, np.uint32)
    own = _Own(numbers, checked_conditions(conditions, len(numbers)), images, noise)
    begun = jax.eval_shape(partial(_begin, process, sampler, shape), times, np.uint32(0), own)
    inputs, times = group.described((inputs, times), EVERYWHERE)
    keys, carry, condition = group.described((*begun, own.condition), DIVIDED)
    return _advance.lower(rest, process, sampler, inputs, keys, condition, carry, times, 0, len(times) - 1)


class _Own(NamedTuple):
    """What belongs to one image, or to each of many: then with a leading axis."""

    index: Any
    condition: Any = ()  # the denoiser's further arguments
    image: Any = None
    noise: Any = None


class _Watch(NamedTuple):
    """How closely sampling is looked at."""

    callback: Callable[[Progress], None] | None = None
    every: int | None = None
    debug: bool = False


class _Job:
    """What all batches of one call have in common."""

    def __init__(
        self,
        denoise: Denoiser,
        process: Process,
        sampler: Sampler,
        times: Times,
        shape: tuple[int, ...],
        devices: Sequence[jax.Device] | None,
        falling: bool = True,
    ) -> None:
        if falling:  # and not up, as `encode` goes, which has checked them
            times = checked(times)
            check_parts(denoise, process, sampler, times)
        self.process, self.sampler, self.shape = process, sampler, shape
        self.group, self.steps = Devices(devices), len(times) - 1
        inputs, self.rest = split(denoise)
        self.inputs, self.times = self.group.replicate((inputs, times))
        self.each = np.asarray(times)  # for what wants one of them: of an array on a device each is a program

    def run(
        self, own: _Own, seed: int, batch_size: int | None, watch: _Watch = _Watch()
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches, each of the same size."""
        count = len(own.index)
        size = min(self.group.for_each(64), count) if batch_size is None else whole("batch_size", batch_size, least=1)
        return self._batches(own, seed, self.group.round_up(size), watch)

    def _batches(self, own: _Own, seed: int, size: int, watch: _Watch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        count = len(own.index)
        for first in range(0, count, size):
            finished = self._draw(own, np.arange(first, min(first + size, count)), size, seed, watch)
            images = finished.images
            if not np.isfinite(images).all():
                warnings.warn("some images are not finite: debug=True says which, and from what step on", stacklevel=2)
            yield finished.indices, images

    def _draw(self, own: _Own, places: np.ndarray, size: int, seed: int, watch: _Watch) -> Progress:
        """One batch down the grid, chunk by chunk."""
        every = self.steps if watch.every is None else watch.every
        padded, chunk = np.resize(places, size), 1 if watch.debug else every
        chosen = self.group.shard(jax.tree.map(lambda leaf: leaf[padded], own))
        keys, carry = _begin(self.process, self.sampler, self.shape, self.times, np.uint32(seed), chosen)
        condition, fixed = chosen.condition, (self.rest, self.process, self.sampler, self.inputs)
        for start in range(0, self.steps, chunk):
            stop = min(start + chunk, self.steps)
            carry = _advance(*fixed, keys, condition, carry, self.times, start, stop)
            expected = partial(_expected, *fixed, condition, self.each[stop])
            progress = Progress(own.index[places], stop, self.steps, _images(self.sampler, carry), expected)
            if watch.debug:
                _check_finite(progress, self.each)
            if watch.callback is not None and (stop == self.steps or stop % every == 0):
                watch.callback(progress)
        return progress


def _checked_shape(shape: Any) -> tuple[int, ...]:
    return tuple(whole("shape", size, least=1) for size in (shape if isinstance(shape, Sequence) else (shape,)))


def _check_finite(progress: Progress, times: np.ndarray) -> None:
    finite = np.isfinite(progress.images).reshape(len(progress.indices), -1).all(axis=1)
    if not finite.all():
        raise FloatingPointError(
            f"image {progress.indices[np.argmin(finite)]} is not finite after step {progress.step} of "
            f"{progress.steps}, from t = {times[progress.step - 1]:.6g} to {times[progress.step]:.6g}: "
            f"look at what the denoiser returns there"
        )


# --- compiled -------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("process", "sampler", "shape"))
def _begin(process: Process, sampler: Sampler, shape: tuple[int, ...], times: Times, seed: Array, own: _Own) -> Any:
    first = process.at(times[0])

    def one(own: _Own) -> tuple[KeyArray, Any]:
        key = image_key(seed, own.index)
        noise = first_noise(key, shape, times.dtype) if own.noise is None else own.noise
        x = first.sigma * noise if own.image is None else first.perturb(own.image, noise)
        return key, sampler.init(x, first)

    return jax.vmap(one)(own)


@partial(jax.jit, static_argnames=("rest", "process", "sampler"), donate_argnames="carry")
def _advance(
    rest: Any,
    process: Process,
    sampler: Sampler,
    inputs: Any,
    keys: KeyArray,
    condition: tuple[Any, ...],
    carry: Any,
    times: Times,
    start: Array,
    stop: Array,
) -> Any:
    denoise = join(inputs, rest)

    def one(key: KeyArray, condition: tuple[Any, ...], carry: Any) -> Any:
        def asked(x: Image, *times: Array) -> Image:  # one time, or two of a flow map
            check(not any(isinstance(t, Point) for t in times), "a denoiser takes a time, t.t of the Point t")
            y = denoise(x, *times, *condition)
            got = getattr(y, "shape", type(y).__name__)
            check(got == x.shape, f"the denoiser must return an image of its input's shape, {x.shape}, got {got}")
            return y

        return walk(asked, process, sampler, times, key, carry, start, stop)

    return jax.vmap(one)(keys, condition, carry)


@partial(jax.jit, static_argnames=("rest", "process", "sampler"))
def _expected(
    rest: Any, process: Process, sampler: Sampler, inputs: Any, condition: tuple[Any, ...], t: Array, x: Array
) -> Array:
    times = (t, jnp.zeros_like(t)) if sampler.jumps else (t,)
    x_0 = jax.vmap(lambda x, condition: join(inputs, rest)(x, *times, *condition))(x, condition)
    return jnp.where(process.sigma(t) > 0, x_0, x)  # of clean data itself there is nothing to expect


@partial(jax.jit, static_argnames="sampler")
def _images(sampler: Sampler, carry: Any) -> Array:
    return jax.vmap(sampler.image)(carry)


def split(denoise: Denoiser) -> tuple[Any, Any]:
    """The arrays and floats of a denoiser, which are inputs of a program, and the rest, hashable, a part of it."""
    leaves, structure = jax.tree.flatten(denoise)
    inputs, rest = eqx.partition(leaves, lambda leaf: eqx.is_array_like(leaf) and not isinstance(leaf, bool | int))
    return inputs, (structure, tuple(rest))


def join(inputs: Any, rest: Any) -> Denoiser:
    """The inverse of `split`."""
    structure, leaves = rest
    return jax.tree.unflatten(structure, eqx.combine(inputs, list(leaves)))
