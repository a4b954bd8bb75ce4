"""The training step: the mean gradient over a batch, one update, the averages. Diffusion is not known here."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from jaxdiff.core.rng import stratified
from jaxdiff.training.averages import average
from jaxdiff.training.placing import Trainer
from jaxdiff.training.state import Params, State, Tally, Training

Example = Any  # a tree of arrays


class Seen(NamedTuple):
    """What a loss sees of the state. The gradient is that of `params`."""

    params: Params  # being trained
    ema: tuple[Params, ...]  # the averages of them
    step: Array  # from 0


# (seen, constants, key, u, example) -> the loss of one example. `constants` is never trained: another network, say.
# `u` in [0, 1) is spread evenly over the examples of a batch.
Objective = Callable[[Seen, Any, Array, Array, Example], Array]


def train_step(objective: Objective, training: Training, batch_size: int, trainer: Trainer, state: State) -> Any:
    """(state, constants, batches) -> state, compiled once: a step for each of the batches.

    A batch is a tree of arrays with one row an example, and the row's number in the whole batch as `index`. Each
    example has a key of its own, so that neither devices nor processes nor accumulation change what is drawn.
    """

    def loss_of(params: Params, view: View, constants: Any, batch: Any) -> Array:
        params, ema = trainer.whole((params, view.ema), (state.params, state.ema))
        key, seen = view.key, Seen(params, ema, view.step)

        def one(example: Any) -> Array:
            index = example["index"]
            u = stratified(jax.random.fold_in(key, batch_size), index, batch_size)  # a key that no example has
            rest = {name: leaf for name, leaf in example.items() if name != "index"}
            return objective(seen, constants, jax.random.fold_in(key, index), u, rest)

        return jnp.mean(jax.vmap(one)(batch))

    def gradient(view: View, constants: Any, batch: Any) -> tuple[Array, Params]:
        params = view.params
        part = partial(jax.value_and_grad(loss_of), params, view, constants)
        if training.accumulate == 1:
            return part(batch)
        parts = jax.tree.map(lambda leaf: leaf.reshape(training.accumulate, -1, *leaf.shape[1:]), batch)
        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        total = lax.scan(lambda total, batch: (jax.tree.map(jnp.add, total, part(batch)), None), zero, parts)[0]
        return jax.tree.map(lambda leaf: leaf / training.accumulate, total)

    return trainer.compile(View.of, gradient, partial(_update, training), state)


class View(NamedTuple):
    """What a gradient needs of the state."""

    params: Params  # being trained
    ema: tuple[Params, ...]  # the averages of them
    step: Array  # from 0
    key: Array  # of this step

    @classmethod
    def of(cls, state: State) -> "View":
        return cls(state.params, state.ema, state.step, jax.random.fold_in(state.key, state.step))


def _update(training: Training, state: State, mean: tuple[Array, Params]) -> State:
    loss, gradient = mean
    norm = optax.tree.norm(gradient)
    updates, opt_state = training.transform(state.clock).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    shares = [each.share(state.step.astype(jnp.float32)) for each in training.averages]
    ema = tuple(average(old, params, share) for old, share in zip(state.ema, shares, strict=True))
    counts = jnp.isfinite(loss + norm + optax.tree.norm((updates, shares)))  # a sum is finite where all of it is
    old, new = (state.params, state.ema, state.opt_state), (params, ema, opt_state)
    params, ema, opt_state = jax.tree.map(partial(jnp.where, counts), new, old)
    tally = Tally(
        state.tally.steps + 1,
        state.tally.loss + jnp.where(counts, loss, 0.0),
        state.tally.gradient_norm + jnp.where(counts, norm, 0.0),
        state.tally.skipped + jnp.where(counts, 0, 1),
        jnp.where(counts, 0, state.tally.in_a_row + 1),
    )
    return state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state, tally=tally)  # type: ignore[attr-defined]
