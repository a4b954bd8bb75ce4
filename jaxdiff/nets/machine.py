"""The kind of machine that a network is compiled for, which may not be the one it is compiled on."""

import contextlib
import functools
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import NamedTuple

import jax


class Kind(NamedTuple):
    """A kind of machine, as far as programs for it differ."""

    platform: str  # "cpu", "gpu" or "tpu"; "any" in a program for all
    bfloat16: bool = False  # whether it is made to multiply in it
    cudnn: bool = False  # whether cuDNN's attention runs there


_elsewhere: ContextVar[Kind | None] = ContextVar("elsewhere", default=None)


def kind() -> Kind:
    """Of the machine that what is being traced is for: this one, unless `compiled_for` says otherwise."""
    return _elsewhere.get() or _here()


@functools.cache
def _here() -> Kind:
    device = jax.local_devices()[0]
    capability = re.fullmatch(r"(\d+)\.\d", str(getattr(device, "compute_capability", "")))  # NVIDIA's: 7.5 of a T4
    new = capability is not None and int(capability[1]) >= 8
    return Kind(device.platform, device.platform != "cpu" and (capability is None or new), cudnn=new)


def differentiable() -> AbstractContextManager[None]:
    """What is traced within has a jvp, and gradients in several directions at once: cuDNN's attention has neither."""
    return compiled_for(kind()._replace(cudnn=False))


@contextlib.contextmanager
def compiled_for(kind: Kind) -> Iterator[None]:
    """What is traced within is for that machine. (`jit` keeps traces: of other shapes, or in another process.)"""
    before = _elsewhere.set(kind)
    try:
        yield
    finally:
        _elsewhere.reset(before)


@contextlib.contextmanager
def in_full() -> Iterator[None]:
    """What is compiled within computes in float32 on a GPU or TPU too: for numbers that are compared."""
    if kind().platform == "cpu":  # which does so anyway
        yield
        return
    with compiled_for(kind()._replace(bfloat16=False, cudnn=False)), jax.default_matmul_precision("highest"):
        yield
