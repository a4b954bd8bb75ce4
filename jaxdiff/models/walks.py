"""A teacher, and walks of it that are made once, before a model of few steps is trained on them."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jaxtyping import Array

from jaxdiff.base import files
from jaxdiff.base.console import say
from jaxdiff.base.devices import agreeing, is_first
from jaxdiff.base.words import plural
from jaxdiff.core import guidance
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.few_steps import Trajectories
from jaxdiff.core.rng import first_noise, image_key
from jaxdiff.data import Examples
from jaxdiff.data.examples import mixed
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.latents import in_parts

HELD_OUT = 128  # walks more than are trained on


@struct.dataclass
class Teacher:
    """A model as something to learn of: its denoiser, at a guidance scale if there is one."""

    system: Diffusion = struct.field(pytree_node=False)
    params: Any

    def __call__(self, scale: Any = None) -> Denoiser:
        plain = self.system.network_denoiser(self.params)
        if scale is None or self.system.condition is None:
            return self.system.cut_off(plain)
        return self.system.cut_off(guidance.ClassifierFreeGuidance(plain, self.system.condition.null, scale))


class Walks(NamedTuple):
    """The teacher's walks, of what is trained on and of what is held out."""

    trained: Trajectories | None = None  # which are trained on
    held_out: Trajectories | None = None  # which are not


def walked(
    teacher: Teacher, system: Diffusion, examples: Examples, shape: tuple[int, ...], seed: int, path: Path
) -> Walks:
    """From the file if they are there, else made."""
    assert system.walks is not None
    count = system.walks.count
    like = shapes(teacher, system, examples, shape, HELD_OUT)
    made = _read(path, like)
    with agreeing():  # the others read what the first has made
        if is_first() and made is None:
            say(f"{plural(count + HELD_OUT, 'walk')} of the teacher, once")
            rows = _rows(system, examples, count + HELD_OUT)
            _keep(path, in_parts(partial(_walked, system, shape, seed), teacher, rows, 64))
    made = _read(path, like) if made is None else made
    if made is None:
        raise ValueError(f"{path} cannot be read: the walks of the teacher are in it")
    return Walks(jax.tree.map(lambda leaf: leaf[:count], made), jax.tree.map(lambda leaf: leaf[count:], made))


def _keep(path: Path, made: Trajectories) -> None:
    if not np.isfinite(made.end).all():
        raise ValueError("walks of the teacher are not finite: take another sampler or grid in system.objective")
    with files.beside(path) as new:
        with open(new, "wb") as file:
            np.savez(file, *jax.tree.leaves(made))
        new.replace(path)


def shapes(
    teacher: Teacher, system: Diffusion, examples: Examples, shape: tuple[int, ...], more: int = 0
) -> Trajectories:
    """Of those that are trained on, and so many more; none is made."""
    assert system.walks is not None
    rows = _rows(system, examples, system.walks.count + more)
    made: Trajectories = jax.eval_shape(partial(_walked, system, shape, 0), teacher, rows)
    return made


def _rows(system: Diffusion, examples: Examples, count: int) -> dict[str, np.ndarray]:
    """What the walks are conditioned on: examples in turn, in an order that does not follow that of the data."""
    order = mixed(len(examples), min(count, len(examples)))
    index = np.arange(count, dtype=np.uint32)
    own = {name: np.asarray(field[order[index % len(order)]]) for name, field in system.fields(examples).items()}
    return {"index": index, **own}


@partial(jax.jit, static_argnums=(0, 1, 2))
def _walked(
    system: Diffusion, shape: tuple[int, ...], seed: int, teacher: Teacher, rows: dict[str, Array]
) -> Trajectories:
    low, high = system.scales

    def one(example: dict[str, Array]) -> Trajectories:
        key = image_key(seed, example["index"])
        for_condition, for_scale = jax.random.split(jax.random.fold_in(key, 1))
        condition = None if system.condition is None else system.condition.pick(for_condition, example)
        scale = None if system.trained_scale is None else jax.random.uniform(for_scale, minval=low, maxval=high)
        assert system.walks is not None
        parts = teacher(scale), system.process, first_noise(key, shape), condition
        return Trajectories(*system.walks.walk(*parts), condition, scale if system.told_scale else None)

    return jax.vmap(one)(rows)


def _read(path: Path, like: Trajectories) -> Trajectories | None:
    """What is in the file, if it is there and whole."""
    wanted, tree = jax.tree.flatten(like)
    try:
        with open(path, "rb") as file:
            stored = np.load(file)
            leaves = [stored[name] for name in stored.files]
    except Exception:  # of many kinds, zlib's among them
        return None
    fits = [(leaf.shape, leaf.dtype) for leaf in leaves] == [(leaf.shape, leaf.dtype) for leaf in wanted]
    made: Trajectories = jax.tree.unflatten(tree, leaves)
    return made if fits else None
