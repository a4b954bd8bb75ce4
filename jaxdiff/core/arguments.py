"""What `sampling` accepts: each argument checked, refused in one line that says what is legal."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxdiff.base.checks import check, takes
from jaxdiff.core.denoise import Moved, NetworkDenoiser
from jaxdiff.core.grids import Times
from jaxdiff.core.process import Process
from jaxdiff.core.samplers import Sampler
from jaxdiff.core.samplers.base import FlowMap


def check_parts(denoise: Any, process: Any, sampler: Any, times: Times | np.ndarray) -> None:
    """Refuses parts that do not fit together."""
    check(callable(denoise), f"denoise must be a function (x_t, t) -> x_0, got {denoise!r}")
    check(isinstance(process, Process), f"process must be one of jaxdiff.core.process, such as VP(), got {process!r}")
    _check_frozen(process)
    _check_kind(denoise, checked_sampler(sampler), times)
    if sampler.needs_signal and float(process.alpha(times[0])) == 0:
        raise ValueError(f"{sampler} cannot start {_pure_noise(process)}")
    for made_for in _processes_of(denoise):
        check(
            made_for == process,
            f"the denoiser was made for {made_for}, not for {process}: sample on that, or on another process of the "
            f"same range by denoise.Moved(model, made_for, used_on)",
        )
    for model, t in _networks_of(denoise, np.asarray(times)[0]):  # of a JAX array it would be one more program
        if float(model.process.alpha(t)) == 0 and model.t_max < 1:
            names = [getattr(choice, "__name__", str(choice)) for choice in (model.prediction, model.c_noise)]
            other = "; one with predictions.velocity and c_noise.time can"
            raise ValueError(f"a network of {' and '.join(names)} cannot be asked {_pure_noise(process)}{other}")


def _check_kind(model: Any, sampler: Sampler, times: Times | np.ndarray) -> None:
    """Flow maps go with samplers that jump, denoisers with the others. A plain function may be either."""
    if not isinstance(model, FlowMap):
        denoises = sampler.jumps and dataclasses.is_dataclass(model)
        check(not denoises, f"{sampler} takes a model of few steps, and this is a denoiser: DDIM() is for it")
        return
    kind = type(model).__name__
    check(sampler.jumps, f"{sampler} takes a denoiser, and this model is a {kind}: Consistency() or Jump() is for it")
    arrives = sampler.only_to_data or (len(times) == 2 and float(times[-1]) == 0)
    once = f"a {kind} jumps to clean data only: {sampler} is for one step of it, Consistency() for several"
    check(arrives or not model.only_to_data, once)


def _pure_noise(process: Process) -> str:
    return (
        f"where nothing of the data is left (alpha = 0): use a grid that starts at t = {process.t_max}, such as "
        f"LogSNR() or Karras()"
    )


def _networks_of(denoise: Any, t: Any) -> Iterator[tuple[NetworkDenoiser, Any]]:
    """The networks of a denoiser, and the time at which each is asked where the denoiser is asked at t."""
    if isinstance(denoise, NetworkDenoiser):
        yield denoise, t
    elif dataclasses.is_dataclass(denoise):
        asked_at = denoise.time(t) if isinstance(denoise, Moved) else t
        for field in dataclasses.fields(denoise):
            yield from _networks_of(getattr(denoise, field.name), asked_at)


def checked_sampler(sampler: Any) -> Sampler:
    """The sampler, if it is one."""
    message = f"sampler must be one of jaxdiff.core.samplers, such as DDIM(), got {sampler!r}"
    check(isinstance(sampler, Sampler), message)
    check(type(sampler).step is not Sampler.step, f"{type(sampler).__name__} needs step(self, denoise, key, x, t, s)")
    takes(sampler.step, "denoise", "key", "x", "t", "s")
    _check_frozen(sampler)
    return sampler


def _check_frozen(value: Any) -> None:
    """What is a part of a compiled program may not change."""
    name = type(value).__name__
    check(type(value).__hash__ is not None, f"{name} can change: make it a @dataclass(frozen=True)")


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


def checked_indices(indices: Any) -> np.ndarray:
    """The numbers of images: those given, or as many as that from 0 on."""
    numbers = np.asarray(indices)
    if numbers.ndim == 0 and numbers.dtype.kind in "iu":
        numbers = np.arange(int(numbers))
    legal = numbers.ndim == 1 and numbers.size > 0 and numbers.dtype.kind in "iu"
    legal = legal and numbers.min() >= 0 and numbers.max() < 2**32
    check(legal, f"indices must be a number of images, at least 1, or a row of numbers from 0 up, got {indices}")
    return numbers.astype(np.uint32)


def checked_conditions(conditions: Any, count: int) -> tuple[Any, ...]:
    """The denoiser's further arguments: none, or one tree of arrays with an entry for each image."""
    if conditions is None:
        return ()
    arrays = jax.tree.map(np.asarray, conditions, is_leaf=lambda node: isinstance(node, list))
    for leaf in jax.tree.leaves(arrays):
        check(leaf.dtype.kind not in "OUS", f"conditions must be arrays of numbers, got {conditions!r}")
        check(
            leaf.ndim > 0 and len(leaf) == count,
            f"conditions must have one entry for each of the {count} images, got shape {leaf.shape}",
        )
    return (arrays,)


def checked_start(name: str, given: Any, shape: tuple[int, ...]) -> Any:
    """What the images start from: an array of floats, one for each; one that was broadcast stays so."""
    if given is None:
        return None
    array = np.asarray(given)
    legal = array.dtype.kind == "f" and array.shape == shape
    check(legal, f"{name} must be floats of shape {shape}, one for each image, got {array.dtype} {array.shape}")
    return array
