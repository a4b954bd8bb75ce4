"""Where a training step runs: on one device, on several by pmap, or with the state divided among them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxdiff.base.devices import AXIS, DIVIDED, EVERYWHERE, Devices
from jaxdiff.base.words import plural

View = Callable[[Any], Any]  # state -> what its gradient needs of it


Gradient = Callable[[Any, Any, Any], Any]  # (view, constants, batch) -> any means over the batch


Update = Callable[[Any, Any], Any]  # (state, those means) -> state


Placing = Literal["auto", "jit", "pmap", "sharded"]


class Trainer:
    """Compiles a training step for the devices there are. All of these compute the same:

    "jit" uses one device. "pmap" gives each device of this process a copy of the state and a share of the batch.
    "sharded" divides all that is large of the state as well, parameters, gradients, averages and what the optimiser
    keeps, and works over several processes.
    "auto" is the first of the three that the machine allows and what is `held` fits: bytes of the state and constants.
    """

    def __init__(
        self, placing: Placing = "auto", held: int = 0, elsewhere: Sequence[Any] = (), memory: float = math.inf
    ):
        if placing not in get_args(Placing):
            raise ValueError(f"placing must be one of {', '.join(get_args(Placing))}, got {placing!r}")
        if jax.process_count() > 1 and placing in ("jit", "pmap"):
            raise ValueError(f'several processes train with placing "sharded" or "auto", got {placing!r}')
        if placing == "auto":
            placing = _chosen(held, len(elsewhere), memory) if elsewhere else _chosen_here(held)
        self.placing, self._divides = placing, placing == "sharded"
        if elsewhere and placing == "pmap":  # which compiles only for what is here: the same by other means
            self.placing = "sharded"
        devices = elsewhere or (jax.devices() if self.placing == "sharded" else jax.local_devices())
        self.devices = Devices(devices[:1] if self.placing == "jit" else devices)

    def __str__(self) -> str:
        kind = f"{self.devices.devices[0].platform} device"
        placing = "pmap" if self.placing == "sharded" and not self._divides else self.placing
        return f"{plural(len(self.devices.devices), kind)}, {placing}"

    def check_batch(self, size: int, accumulate: int = 1) -> None:
        count = len(self.devices.devices) * accumulate
        if size % count:
            near = sorted({max(size // count, 1) * count, -(-size // count) * count})
            shares = plural(len(self.devices.devices), "device") + f" and accumulate={accumulate}" * (accumulate > 1)
            raise ValueError(f"{shares} do not divide a batch of {size}: {' or '.join(map(str, near))} would do")

    def shardings(self, state: Any) -> Any:
        """Where each array of a state lives."""
        return jax.tree.map(lambda leaf: NamedSharding(self.devices.mesh, self._spec(leaf)), state)

    def _spec(self, leaf: Any) -> PartitionSpec:
        return _split(leaf, len(self.devices.devices)) if self._divides else EVERYWHERE

    def put(self, batches: Any) -> Any:
        """Batches [steps, this process's examples, ...] to the devices."""
        if self.placing == "pmap":
            count = len(self.devices.devices)
            return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], count, -1, *leaf.shape[2:]), batches)
        sharding = NamedSharding(self.devices.mesh, PartitionSpec(None, AXIS))
        if jax.process_count() == 1:
            return jax.device_put(batches, sharding)
        return jax.tree.map(partial(jax.make_array_from_process_local_data, sharding), batches)

    def shapes(self, rows: Any, steps: int, size: int) -> Any:
        """What `put` makes of such batches, without their values; rows are the shapes of one example."""
        count, here = len(self.devices.devices), size // jax.process_count()
        if self.placing == "pmap":
            return jax.tree.map(lambda row: row.update(shape=(steps, count, here // count, *row.shape)), rows)
        sharding = NamedSharding(self.devices.mesh, PartitionSpec(None, AXIS))
        return jax.tree.map(lambda row: row.update(shape=(steps, size, *row.shape), sharding=sharding), rows)

    def compile(self, view: View, gradient: Gradient, update: Update, state: Any) -> Callable[[Any, Any, Any], Any]:
        """(state, constants, batches) -> state, one step for each of the batches; the old state is used up."""
        mean = partial(lax.pmean, axis_name=AXIS)
        if self.placing == "pmap":
            run = _steps(view, lambda *inputs: mean(gradient(*inputs)), update)
            return jax.pmap(
                run,
                AXIS,
                in_axes=(None, None, 1),
                out_axes=None,
                devices=self.devices.devices,
                donate_argnums=0,
            )
        if self.placing == "sharded":
            gradient = self._sharded(gradient, view, state)
        run, there = _steps(view, gradient, update), self.shardings(state)
        # constants that no step uses take memory too, and a dry run asks the compiler for all of it
        return jax.jit(run, donate_argnums=0, out_shardings=there, keep_unused=True)

    def _sharded(self, gradient: Gradient, view: View, state: Any) -> Gradient:
        """Of parameters that are divided: each device has the mean gradient of its share of them."""
        specs, count = jax.tree.map(self._spec, state.params), len(self.devices.devices)
        seen = jax.tree.map(self._spec, jax.eval_shape(view, state))

        def of_share(view: Any, constants: Any, batch: Any) -> Any:
            loss, sums = gradient(view, constants, batch)  # of what is divided a sum already: see `whole`
            mean = jax.tree.map(lambda x, spec: lax.pmean(x, AXIS) if spec == EVERYWHERE else x / count, sums, specs)
            return lax.pmean(loss, AXIS), mean

        return jax.shard_map(
            of_share,
            mesh=self.devices.mesh,
            in_specs=(seen, EVERYWHERE, DIVIDED),
            out_specs=(EVERYWHERE, specs),
            check_vma=False,  # it cannot look into the convolution's gradient
        )

    def whole(self, shares: Any, like: Any) -> Any:
        """What a device has of some arrays, made whole: each is gathered where it is wanted, if it is.

        The transpose of gathering adds up the gradients, and leaves each device those of its share. Whether what was
        gathered is kept for the way back, or gathered again, is XLA's choice.
        """
        if self.placing != "sharded":
            return shares

        def gathered(x: Any, leaf: Any) -> Any:
            axis = _axis(self._spec(leaf))
            return x if axis is None else lax.all_gather(x, AXIS, axis=axis, tiled=True)

        return jax.tree.map(gathered, shares, like)


def _steps(view: View, gradient: Gradient, update: Update) -> Callable[[Any, Any, Any], Any]:
    def step(state: Any, constants: Any, batch: Any) -> Any:
        return update(state, gradient(view(state), constants, batch))

    def run(state: Any, constants: Any, batches: Any) -> Any:
        if jax.tree.leaves(batches)[0].shape[0] == 1:
            return step(state, constants, jax.tree.map(lambda leaf: leaf[0], batches))
        return lax.scan(lambda state, batch: (step(state, constants, batch), None), state, batches)[0]

    return run


def _chosen_here(held: int) -> Placing:
    if jax.process_count() > 1:
        return "sharded"
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
    return _chosen(held, jax.local_device_count(), memory)


def _chosen(held: int, devices: int, memory: float) -> Placing:
    if devices == 1:
        return "jit"
    return "sharded" if 2 * held > memory else "pmap"  # half is for what a step computes


def divided(state: Any, devices: Devices) -> Any:
    """Where each array of a state lives, if all that is large is divided among these devices."""
    count = len(devices.devices)
    return jax.tree.map(lambda leaf: NamedSharding(devices.mesh, _split(leaf, count)), state)


def _split(leaf: Any, count: int) -> PartitionSpec:
    """Along the longest axis that the devices divide; what is small stays whole."""
    axes = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
    if leaf.size < 2**14 or not axes:
        return EVERYWHERE
    axis = max(axes, key=lambda axis: leaf.shape[axis])
    return PartitionSpec(*[None] * axis, AXIS)


def _axis(spec: PartitionSpec) -> int | None:
    """That which is divided."""
    return tuple(spec).index(AXIS) if AXIS in spec else None
