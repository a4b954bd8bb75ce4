"""Optimisers and schedules as frozen values; optax does the work."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from optax.contrib import MuonDimensionNumbers

from jaxdiff.base.checks import require, takes

_LARGEST = float(np.finfo(np.float32).max)


class Optimiser(Protocol):
    """A frozen dataclass; if it has a `learning_rate`, as Adam does, that is logged. Or a function like `transform`."""

    def transform(self, steps: int | Array) -> optax.GradientTransformation:
        """What optax is to do, in a run of so many steps: by the clock an array, as that changes while it goes."""


def transform_of(optimiser: Optimiser | Callable, steps: int | Array) -> optax.GradientTransformation:
    """What optax is to do, whether the optimiser is a value or a function of the steps."""
    function = optimiser if isinstance(optimiser, FunctionType) else optimiser.transform  # type: ignore[union-attr]
    takes(function, "steps")
    made = function(steps)
    require(hasattr(made, "init") and hasattr(made, "update"), "an optimiser that gives an optax transformation", made)
    return made


def learning_rate_of(optimiser: Optimiser | Callable, step: int, steps: int) -> float:
    """The learning rate after so many updates, or NaN where the optimiser does not say it."""
    rate = getattr(optimiser, "learning_rate", None)
    return math.nan if rate is None else float(rate(jnp.float32(step), steps))


def updates_in(opt_state: Any, steps: int) -> int:
    """How many updates optax has counted in so many steps, of which some may be skipped; all, if it does not count."""
    named = [found for _, found in optax.tree.get_all_with_path(opt_state, "count")]  # a parameter may be named so too
    return max((int(n) for n in named if isinstance(n, jax.Array) and n.dtype == jnp.int32), default=steps)


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of its full value: a linear warm-up, then what `after` says.

    "cosine" falls to `final`, which a step after the last would have; "inverse_sqrt" falls as sqrt(reference / step)
    after step `reference`.
    """

    after: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    warmup: int = 0  # steps until the full rate
    final: float = 0.0
    reference: int = 10_000

    def __post_init__(self) -> None:
        known = ("constant", "cosine", "inverse_sqrt")
        require(self.after in known, f"after one of {', '.join(known)}", self)
        legal = 0 <= self.warmup < 2**31 and 0 < self.reference < 2**31 and 0 <= self.final <= 1
        require(legal, "0 <= final <= 1, 0 <= warmup < 2^31, 0 < reference < 2^31", self)

    def __call__(self, step: Array, steps: int | Array) -> Array:
        warm = optax.linear_schedule(0.0, 1.0, max(self.warmup, 1))(step + 1)
        if self.after == "cosine":
            share = jnp.clip((step - self.warmup) / jnp.maximum(steps - self.warmup, 1), 0.0, 1.0)
            return warm * (self.final + (1 - self.final) * (1 + jnp.cos(jnp.pi * share)) / 2)
        if self.after == "inverse_sqrt":
            return warm * jnp.sqrt(self.reference / jnp.maximum(step, self.reference))
        return warm


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015); with weight decay AdamW (Loshchilov & Hutter 2019), which spares norms and biases.

    `clip` is the largest norm that the gradient may have; a longer one is shortened.
    """

    rate: float = 1e-4  # the learning rate at its full height
    schedule: Schedule = Schedule()  # the course of the learning rate
    b1: float = 0.9  # how much of the mean gradient stays in a step
    b2: float = 0.999  # how much of the mean squared gradient stays
    epsilon: float = 1e-8  # added to the root of the mean square
    weight_decay: float = 0.0  # of kernels and tables
    clip: float | None = None  # the largest norm of the gradient; None: any

    def __post_init__(self) -> None:
        require(0 < self.rate <= _LARGEST and 0 < self.epsilon <= _LARGEST, "finite rate > 0 and epsilon > 0", self)
        require(0 <= self.b1 < 1 and 0 <= self.b2 < 1, "0 <= b1 < 1 and 0 <= b2 < 1", self)
        require(0 <= self.weight_decay <= _LARGEST, "finite weight_decay >= 0", self)
        require(self.clip is None or 0 < self.clip <= _LARGEST, "finite clip > 0 or None", self)

    def learning_rate(self, step: Array, steps: int | Array) -> Array:
        return self.rate * self.schedule(step, steps)

    def transform(self, steps: int | Array) -> optax.GradientTransformation:
        """What optax makes of it, for a run of so many steps."""

        def rate(step: Array) -> Array:
            return self.learning_rate(step, steps)

        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        decay = optax.add_decayed_weights(self.weight_decay, mask=matrices) if self.weight_decay else optax.identity()
        return optax.chain(clip, self.direction(), decay, optax.scale_by_learning_rate(rate))

    def direction(self) -> optax.GradientTransformation:
        """From a gradient to the update that the learning rate multiplies."""
        return optax.scale_by_adam(self.b1, self.b2, self.epsilon)


@dataclass(frozen=True)
class Muon(Adam):
    """Muon (Jordan et al. 2024) for kernels of at least 8 x 8, seen as a matrix [inputs, outputs]; Adam for all else.

    Its update is U Vᵀ, where U S Vᵀ is the momentum, by five steps of a Newton-Schulz iteration. It has the size of
    one of Adam's (Liu et al. 2025), so that rates for Adam are a place to begin. Both have Nesterov's momentum.
    """

    momentum: float = 0.95  # how much of the mean gradient stays, of what Muon moves

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.momentum < 1, "0 <= momentum < 1", self)

    def direction(self) -> optax.GradientTransformation:
        return optax.contrib.muon(
            -1.0,  # which optax turns around
            beta=self.momentum,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_kernels,
            adam_b1=self.b1,
            adam_b2=self.b2,
            eps=self.epsilon,
        )


def _kernels(params: Any) -> Any:
    """For each parameter how Muon sees it as a matrix, or None."""

    def seen(path: Any, leaf: Any) -> MuonDimensionNumbers | None:
        outputs = leaf.shape[-1] if leaf.ndim > 1 else 1
        is_one = getattr(path[-1], "key", "") == "kernel" and min(leaf.size // outputs, outputs) >= 8
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1) if is_one else None

    return jax.tree_util.tree_map_with_path(seen, params)


def matrices(params: Any) -> Any:
    """Which parameters are kernels and tables: all but norms and biases, which are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
