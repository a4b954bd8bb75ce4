"""The training state and the training step. What is trained is a loss of one example; diffusion is not known here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from jaxtyping import Array

from jaxdiff.averages import Average, Ema, average
from jaxdiff.checks import require
from jaxdiff.optimisers import Adam
from jaxdiff.parallel import Placing, Trainer
from jaxdiff.rng import stratified

Params = Any
Example = Any  # a tree of arrays

# (params, constants, key, u, example) -> the loss of one example. `constants` is never trained: another network, say.
# `u` in [0, 1) is spread evenly over the examples of a batch.
Objective = Callable[[Params, Any, Array, Array, Example], Array]


@dataclass(frozen=True)
class Training:
    """How long and how to train, what to keep and what to show. Intervals are in steps."""

    steps: int = 10_000
    optimiser: Adam = Adam()
    averages: tuple[Average, ...] = (Ema(),)  # the first is shown
    accumulate: int = 1  # parts of a batch, one after the other, where it is too large for the memory
    steps_per_call: int = 1  # that the device takes without a word to the host
    placing: Placing = "auto"
    log_every: int = 50
    show_every: int = 1000
    save_every: int = 500
    keep: int = 3
    keep_every: int | None = None
    patience: int = 100  # steps in a row whose loss or gradient is not finite, before the run stops
    wandb: str | None = None  # the project, if Weights & Biases is to be told

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "steps_per_call", "log_every", "show_every", "save_every", "keep"):
            require(getattr(self, name) > 0, f"{name} > 0", getattr(self, name))
        require(self.keep_every is None or self.keep_every > 0, "keep_every > 0 or None", self.keep_every)
        require(self.patience > 0, "patience > 0", self.patience)
        require(bool(self.averages), "at least one average, such as Ema()", self.averages)
        for name in ("steps", "log_every", "show_every", "save_every"):
            interval, call = getattr(self, name), self.steps_per_call
            require(interval % call == 0, f"{name} that steps_per_call={call} divides", interval)
        kept = self.keep_every is None or self.keep_every % self.save_every == 0
        require(kept, f"keep_every that save_every={self.save_every} divides", self.keep_every)


@struct.dataclass
class Tally:
    """Sums over the steps since they were last written down, so that a run that is continued writes the same."""

    steps: Array
    loss: Array
    gradient_norm: Array
    skipped: Array  # steps that were not finite
    in_a_row: Array  # of those, the last ones, since the last step that was finite

    @classmethod
    def zero(cls, in_a_row: Array | int = 0) -> "Tally":
        whole, real = partial(jnp.zeros, (), jnp.int32), partial(jnp.zeros, (), jnp.float32)
        return cls(whole(), real(), real(), whole(), jnp.asarray(in_a_row, jnp.int32))


@struct.dataclass
class State:
    """All there is to train, save and restore."""

    step: Array
    params: Params
    ema: tuple[Params, ...]  # one for each of `Training.averages`
    opt_state: Any
    key: Array
    tally: Tally

    @classmethod
    def start(cls, params: Params, training: Training, key: Array) -> "State":
        ema = tuple(jax.tree.map(jnp.copy, params) for _ in training.averages)  # copies: all will be donated
        opt_state = training.optimiser.transform(training.steps).init(params)
        return cls(jnp.zeros((), jnp.int32), params, ema, opt_state, key, Tally.zero())


def train_step(objective: Objective, training: Training, batch_size: int, trainer: Trainer, state: State) -> Any:
    """(state, constants, batches) -> state, compiled once: a step for each of the batches.

    A batch is a tree of arrays with one row an example, and the row's number in the whole batch as `index`. Each
    example has a key of its own, so that neither devices nor processes nor accumulation change what is drawn.
    """

    def loss_of(params: Params, constants: Any, key: Array, batch: Any) -> Array:
        def one(example: Any) -> Array:
            index = example["index"]
            u = stratified(jax.random.fold_in(key, batch_size), index, batch_size)  # a key that no example has
            rest = {name: leaf for name, leaf in example.items() if name != "index"}
            return objective(params, constants, jax.random.fold_in(key, index), u, rest)

        return jnp.mean(jax.vmap(one)(batch))

    def gradient(view: tuple[Params, Array], constants: Any, batch: Any) -> tuple[Array, Params]:
        params, key = view
        part = partial(jax.value_and_grad(loss_of), params, constants, key)
        if training.accumulate == 1:
            return part(batch)
        parts = jax.tree.map(lambda leaf: leaf.reshape(training.accumulate, -1, *leaf.shape[1:]), batch)
        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        total = lax.scan(lambda total, batch: (jax.tree.map(jnp.add, total, part(batch)), None), zero, parts)[0]
        return jax.tree.map(lambda leaf: leaf / training.accumulate, total)

    return trainer.compile(_view, gradient, partial(_update, training), state)


def _view(state: State) -> tuple[Params, Array]:
    return state.params, jax.random.fold_in(state.key, state.step)


def _update(training: Training, state: State, mean: tuple[Array, Params]) -> State:
    loss, gradient = mean
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = training.optimiser.transform(training.steps).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    shares = [each.share(state.step.astype(jnp.float32)) for each in training.averages]
    ema = tuple(average(old, params, share) for old, share in zip(state.ema, shares, strict=True))
    old, new = (state.params, state.ema, state.opt_state), (params, ema, opt_state)
    params, ema, opt_state = jax.tree.map(partial(jnp.where, finite), new, old)
    tally = Tally(
        state.tally.steps + 1,
        state.tally.loss + jnp.where(finite, loss, 0.0),
        state.tally.gradient_norm + jnp.where(finite, norm, 0.0),
        state.tally.skipped + jnp.where(finite, 0, 1),
        jnp.where(finite, 0, state.tally.in_a_row + 1),
    )
    return State(state.step + 1, params, ema, opt_state, state.key, tally)
