"""The training state and its settings. What is trained is a loss of one example; diffusion is not known here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array

from jaxdiff.base.annotations import accepts
from jaxdiff.base.checks import require, whole
from jaxdiff.base.fields import may_change
from jaxdiff.training.averages import Average, Ema
from jaxdiff.training.optimisers import Adam, Optimiser, learning_rate_of, transform_of, updates_in
from jaxdiff.training.placing import Placing

Params = Any
HELD_OUT = "held_out_loss"  # a column of metrics.csv
TOGETHER = 10  # steps in one call at most, unless more are asked for: Ctrl-C waits for them


@dataclass(frozen=True)
class Training:
    """How long and how to train, what to keep and what to show. Intervals are in steps."""

    steps: int = may_change(10_000)  # in all
    minutes: float | None = may_change(None)  # as many steps as fit into them, in place of `steps`
    schedule_steps: int | None = may_change(
        None
    )  # over which the learning rate falls; None: `steps`, as they were when the run began
    optimiser: Optimiser | Callable[[int], optax.GradientTransformation] = Adam()  # or a function like its transform
    averages: tuple[Average, ...] = (Ema(),)  # the first is shown
    accumulate: int = 1  # parts of a batch, one after the other, where it is too large for the memory
    steps_per_call: int | Literal["auto"] = may_change("auto")  # steps in one compiled call; auto: 1 on a CPU
    placing: Placing = may_change("auto")  # on devices: jit, pmap, sharded; auto: what fits them
    log_every: int = may_change(50)  # a row of metrics.csv
    show_every: int = may_change(1000)  # a picture of samples
    save_every: int = may_change(500)  # a checkpoint
    evaluate_every: int | None = may_change(None)  # the loss of images that are held out; None: every tenth log_every
    keep: int = may_change(3)  # how many checkpoints, the newest
    keep_every: int | None = may_change(None)  # those of every so many steps are kept too
    keep_best: str | None = may_change(None)  # a column of metrics.csv, such as held_out_loss: its lowest is kept too
    patience: int = may_change(100)  # skipped (non-finite) steps in a row after which the run stops
    wandb: str | None = may_change(None)  # the project, if Weights & Biases is wanted

    def __post_init__(self) -> None:
        call = 1 if self.steps_per_call == "auto" else whole("steps_per_call", self.steps_per_call, 1, 2**31)
        for name in ("steps", "accumulate", "log_every", "show_every", "save_every", "keep"):
            whole(name, getattr(self, name), 1, 2**31)  # as JAX counts
        clock = "a finite number of minutes > 0, without schedule_steps, or None"
        legal = self.minutes is None or (0 < self.minutes < math.inf and self.schedule_steps is None)
        require(legal, clock, self.minutes)
        for name in ("schedule_steps", "keep_every", "evaluate_every"):
            require(getattr(self, name) is None or getattr(self, name) > 0, f"{name} > 0 or None", getattr(self, name))
        known = isinstance(self.optimiser, FunctionType) or accepts(Optimiser, self.optimiser)
        require(known, "an optimiser such as Adam(), or a function like its transform", self.optimiser)
        require(self.patience > 0, "patience > 0", self.patience)
        require(0 < len(self.averages) <= 100, "from one average, such as Ema(), to a hundred", self.averages)
        for name in ("steps", "log_every", "show_every", "save_every"):
            interval = getattr(self, name)
            require(interval % call == 0, f"{name} that steps_per_call={call} divides", interval)
        evaluates = self.evaluate_every is None or self.evaluate_every % self.log_every == 0
        require(evaluates, f"evaluate_every that log_every={self.log_every} divides", self.evaluate_every)
        kept = self.keep_every is None or self.keep_every % self.save_every == 0
        require(kept, f"keep_every that save_every={self.save_every} divides", self.keep_every)

    def transform(self, clock: "Clock | None") -> optax.GradientTransformation:
        if clock is None:
            return transform_of(self.optimiser, self.schedule_length)
        try:
            return transform_of(self.optimiser, clock.steps)
        except jax.errors.JAXTypeError as error:
            needs = "needs an optimiser that takes the number of steps as an array, as Adam() does"
            raise ValueError(f"training.minutes {needs}: give training.steps instead") from error

    @property
    def evaluates_every(self) -> int:
        return self.evaluate_every or 10 * self.log_every

    @property
    def schedule_length(self) -> int:
        return self.schedule_steps or self.steps

    def in_one_call(self, quick: bool, at: int) -> int:
        """Steps in one compiled call from step `at` on; chosen so that nothing comes at another step for it."""
        if self.steps_per_call != "auto":
            return self.steps_per_call
        common = math.gcd(at, self.steps, self.log_every, self.show_every, self.save_every)
        return max(number for number in range(1, TOGETHER + 1) if common % number == 0) if quick else 1

    def learning_rate(self, step: int) -> float:
        """Of the update after so many (`State.updates`), or NaN where the optimiser does not say it."""
        return learning_rate_of(self.optimiser, step, self.schedule_length)


@struct.dataclass
class Tally:
    """Sums over the steps since they were last written down, so that a run that is continued writes the same."""

    steps: Array
    loss: Array
    gradient_norm: Array
    skipped: Array  # steps that were not finite
    in_a_row: Array  # of those, the last ones, since the last step that was finite

    @classmethod
    def zero(cls) -> "Tally":
        whole, real = partial(jnp.zeros, (), jnp.int32), partial(jnp.zeros, (), jnp.float32)
        return cls(whole(), real(), real(), whole(), whole())


@struct.dataclass
class Clock:
    """Of a run by the clock."""

    seconds: Array  # for which it has trained
    steps: Array  # that it takes in all, as far as is known


@struct.dataclass
class State:
    """All there is to train, save and restore."""

    step: Array  # steps taken
    params: Params  # being trained
    ema: tuple[Params, ...]  # one for each of `Training.averages`
    opt_state: Any  # the optimiser's own
    key: Array  # of the seed, the same in all steps
    tally: Tally  # since it was last written down
    clock: ClassVar[Clock | None] = None

    @classmethod
    def start(cls, params: Params, training: Training, key: Array) -> "State":
        ema = tuple(jax.tree.map(jnp.copy, params) for _ in training.averages)  # copies: all will be donated
        by_clock = training.minutes is not None
        clock = Clock(jnp.zeros(()), jnp.asarray(training.steps, jnp.int32)) if by_clock else None
        opt_state = training.transform(clock).init(params)
        parts = jnp.zeros((), jnp.int32), params, ema, opt_state, key, Tally.zero()
        return cls(*parts) if clock is None else TimedState(*parts, clock)

    @property
    def updates(self) -> int:
        """The steps that were not skipped: optax schedules by these."""
        return updates_in(self.opt_state, int(self.step))

    @property
    def is_finite(self) -> bool:
        """Whether its parameters and their averages are."""
        return all(jax.device_get([_is_finite(leaf) for leaf in jax.tree.leaves((self.params, self.ema))]))


@struct.dataclass
class TimedState(State):
    """That of a run by the clock."""

    clock: Clock  # type: ignore[misc]


@jax.jit  # of one array, since many are of one shape
def _is_finite(leaf: Array) -> Array:
    return jnp.isfinite(leaf).all()


def bytes_of(tree: Any) -> int:
    """How much memory the arrays of a tree take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def parameters(params: Any) -> int:
    """How many."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
