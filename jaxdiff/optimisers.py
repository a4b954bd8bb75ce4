"""Optimisers and schedules as frozen values; optax does the work."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxdiff.checks import require


@dataclass(frozen=True)
class Schedule:
    """How the learning rate, as a share of its full value, goes: a linear warm-up, then on as `after` says.

    "cosine" falls to `final` at the last step, "inverse_sqrt" as sqrt(reference / step) from step `reference` on.
    """

    after: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    warmup: int = 0
    final: float = 0.0
    reference: int = 10_000

    def __post_init__(self) -> None:
        known = ("constant", "cosine", "inverse_sqrt")
        require(self.after in known, f"after one of {', '.join(known)}", self)
        require(self.warmup >= 0 and 0 <= self.final <= 1 and self.reference > 0, "0 <= final <= 1, warmup >= 0", self)

    def __call__(self, step: Array, steps: int) -> Array:
        share = jnp.minimum(1.0, (step + 1) / max(self.warmup, 1))
        if self.after == "cosine":
            part = jnp.clip((step - self.warmup) / max(steps - self.warmup, 1), 0.0, 1.0)
            share *= self.final + (1 - self.final) * (1 + jnp.cos(math.pi * part)) / 2
        if self.after == "inverse_sqrt":
            share *= jnp.sqrt(self.reference / jnp.maximum(step, self.reference))
        return share


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015); with weight decay AdamW (Loshchilov & Hutter 2019), which spares norms and biases.

    `clip` is the largest norm that the gradient may have; a longer one is shortened.
    """

    rate: float = 1e-4
    schedule: Schedule = Schedule()
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        require(self.rate > 0 and self.epsilon > 0, "rate > 0 and epsilon > 0", self)
        require(0 <= self.b1 < 1 and 0 <= self.b2 < 1, "0 <= b1 < 1 and 0 <= b2 < 1", self)
        require(self.weight_decay >= 0, "weight_decay >= 0", self)
        require(self.clip is None or self.clip > 0, "clip > 0 or None", self)

    def learning_rate(self, step: Array, steps: int) -> Array:
        return self.rate * self.schedule(step, steps)

    def transform(self, steps: int) -> optax.GradientTransformation:
        """What optax makes of it, for a run of so many steps."""

        def rate(step: Array) -> Array:
            return self.learning_rate(step, steps)

        clip = optax.identity() if self.clip is None else optax.clip_by_global_norm(self.clip)
        decay = optax.add_decayed_weights(self.weight_decay, mask=matrices) if self.weight_decay else optax.identity()
        adam = optax.scale_by_adam(self.b1, self.b2, self.epsilon)
        return optax.chain(clip, adam, decay, optax.scale_by_learning_rate(rate))


def matrices(params: Any) -> Any:
    """Which parameters are kernels and tables: all but norms and biases, which are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
