"""One image, step by step down a grid of times."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxdiff.base.checks import check
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Image, Process
from jaxdiff.core.rng import KeyArray
from jaxdiff.core.samplers.base import Sampler


def walk(
    denoise: Denoiser,
    process: Process,
    sampler: Sampler,
    times: Array,
    key: KeyArray,
    carry: Any,
    start: int | Array = 0,
    stop: int | Array | None = None,
) -> Any:
    """One image down the grid, or down a part of it: from carry to carry. Step i draws from fold_in(key, i + 1).

    Where `start` and `stop` are no arrays it has gradients in reverse too, `jax.grad` of whatever the denoiser is of.
    """
    points, steps = jax.vmap(process.at)(times), len(times) - 1
    sampler = sampler.over(steps)

    def step(i: Array, carry: Any) -> Any:
        after = sampler.step(denoise, jax.random.fold_in(key, i + 1), carry, points[i], points[i + 1])
        got, given = _shapes(after), _shapes(carry)
        check(got == given, f"{type(sampler).__name__}.step must return what it is given, {given}, it returned {got}")
        return after

    return lax.fori_loop(start, steps if stop is None else stop, step, carry)


def _shapes(tree: Any) -> str:
    """In words; the types may change where JAX knows what to make of it."""
    shapes = [f"an array of shape {jnp.shape(leaf)}" for leaf in jax.tree.leaves(tree)]
    kind = "" if len(shapes) == 1 else f"{type(tree).__name__} of "
    return kind + (" and ".join(shapes) or "nothing")


def trajectory(
    denoise: Denoiser, process: Process, sampler: Sampler, times: Array, key: KeyArray, x: Image
) -> tuple[Image, Image]:
    """The image at each of the times but the last, [steps, ...], and at the last."""

    def step(carry: Any, i: Array) -> tuple[Any, Image]:
        return walk(denoise, process, sampler, times, key, carry, i, i + 1), sampler.image(carry)

    end, before = lax.scan(step, sampler.init(x, process.at(times[0])), jnp.arange(len(times) - 1))
    return before, sampler.image(end)
