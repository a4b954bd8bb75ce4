"""The one place that knows of devices."""

import ctypes
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdiff import files

AXIS = "data"
EVERYWHERE, DIVIDED = PartitionSpec(), PartitionSpec(AXIS)


class Devices:
    """Devices among which the leading axis of a batch is divided."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self.devices = tuple(jax.local_devices() if devices is None else devices)
        if not self.devices:
            raise ValueError("devices must be at least one, or None for all of this machine")
        self.mesh = Mesh(np.array(self.devices), (AXIS,))

    def round_up(self, size: int) -> int:
        """The least batch of at least this size that the devices divide."""
        return -(-size // len(self.devices)) * len(self.devices)

    def shard(self, batch: Any) -> Any:
        """Each device gets its share of the leading axis."""
        return jax.device_put(batch, NamedSharding(self.mesh, DIVIDED))

    def replicate(self, tree: Any) -> Any:
        """Each device gets a copy; nothing moves if it has one."""
        return jax.device_put(tree, NamedSharding(self.mesh, EVERYWHERE))


# --- training on any number of devices ------------------------------------------------------------------------------

View = Callable[[Any], Any]  # state -> what its gradient needs of it
Gradient = Callable[[Any, Any, Any], Any]  # (view, constants, batch) -> any means over the batch
Update = Callable[[Any, Any], Any]  # (state, those means) -> state
Placing = Literal["auto", "jit", "pmap", "sharded"]


class Trainer:
    """Compiles a training step for the devices there are. All of these compute the same:

    "jit" uses one device. "pmap" gives each device of this process a copy of the state and a share of the batch.
    "sharded" divides the state as well, and works over several processes.
    "auto" is the first of the three that the machine allows and the state fits.
    """

    def __init__(self, placing: Placing = "auto", state_bytes: int = 0):
        if placing not in get_args(Placing):
            raise ValueError(f"placing must be one of {', '.join(get_args(Placing))}, got {placing!r}")
        if jax.process_count() > 1 and placing in ("jit", "pmap"):
            raise ValueError(f'several processes train with placing "sharded" or "auto", got {placing!r}')
        self.placing = _chosen(state_bytes) if placing == "auto" else placing
        devices = jax.devices() if self.placing == "sharded" else jax.local_devices()
        self.devices = Devices(devices[:1] if self.placing == "jit" else devices)

    def check_batch(self, size: int, accumulate: int = 1) -> None:
        count = len(self.devices.devices) * accumulate
        if size % count:
            near = sorted({max(size // count, 1) * count, -(-size // count) * count})
            shares = f"{len(self.devices.devices)} devices" + f" and accumulate={accumulate}" * (accumulate > 1)
            raise ValueError(f"{shares} do not divide a batch of {size}: {' or '.join(map(str, near))} would do")

    def shardings(self, state: Any) -> Any:
        """Where each array of a state lives."""

        def of(leaf: Any) -> NamedSharding:
            spec = _split(leaf, len(self.devices.devices)) if self.placing == "sharded" else EVERYWHERE
            return NamedSharding(self.devices.mesh, spec)

        return jax.tree.map(of, state)

    def put(self, batches: Any) -> Any:
        """Batches [steps, this process's examples, ...] to the devices."""
        if self.placing == "pmap":
            count = len(self.devices.devices)
            return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], count, -1, *leaf.shape[2:]), batches)
        sharding = NamedSharding(self.devices.mesh, PartitionSpec(None, AXIS))
        if jax.process_count() == 1:
            return jax.device_put(batches, sharding)
        return jax.tree.map(partial(jax.make_array_from_process_local_data, sharding), batches)

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
            gradient = jax.shard_map(
                lambda *inputs, gradient=gradient: mean(gradient(*inputs)),
                mesh=self.devices.mesh,
                in_specs=(EVERYWHERE, EVERYWHERE, DIVIDED),
                out_specs=EVERYWHERE,
                check_vma=False,  # it cannot look into the convolution's gradient
            )
        return jax.jit(_steps(view, gradient, update), donate_argnums=0, out_shardings=self.shardings(state))


def _steps(view: View, gradient: Gradient, update: Update) -> Callable[[Any, Any, Any], Any]:
    def step(state: Any, constants: Any, batch: Any) -> Any:
        return update(state, gradient(view(state), constants, batch))

    def run(state: Any, constants: Any, batches: Any) -> Any:
        if jax.tree.leaves(batches)[0].shape[0] == 1:
            return step(state, constants, jax.tree.map(lambda leaf: leaf[0], batches))
        return lax.scan(lambda state, batch: (step(state, constants, batch), None), state, batches)[0]

    return run


def _chosen(state_bytes: int) -> Placing:
    if jax.process_count() > 1:
        return "sharded"
    if jax.local_device_count() == 1:
        return "jit"
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", np.inf)
    return "sharded" if 2 * state_bytes > memory else "pmap"  # half is for what a step computes


def _split(leaf: Any, count: int) -> PartitionSpec:
    """Along the longest axis that the devices divide; what is small stays whole."""
    axes = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
    if leaf.size < 2**14 or not axes:
        return EVERYWHERE
    axis = max(axes, key=lambda axis: leaf.shape[axis])
    return PartitionSpec(*[None] * axis, AXIS)


def gathered(tree: Any) -> Any:
    """The whole of each array on this process, as numpy has it."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def agreed(yes: bool) -> bool:
    """Whether any of the processes says yes."""
    if jax.process_count() == 1:
        return yes
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(jnp.asarray(yes))))


def is_first() -> bool:
    """Whether this is the process that writes files and talks."""
    return jax.process_index() == 0


# --- what a process sets before JAX does anything -------------------------------------------------------------------


def prepare(distributed: bool = False) -> None:
    """A process that trains or samples: on a CPU it keeps its memory, and compiled programs are kept on the disk."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms == "cpu" or not (platforms or _accelerators()):
        keep_memory()
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(files.cache_folder() / "programs"))
    _quieten()
    if distributed:
        count, number = _whole("JAX_NUM_PROCESSES"), _whole("JAX_PROCESS_ID")  # JAX itself reads the address only
        jax.distributed.initialize(num_processes=count, process_id=number)


def _quieten() -> None:
    """An error in a checkpoint is raised, and told in a line; Orbax's threads would tell each of theirs beside it."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    told = sys.unraisablehook
    sys.unraisablehook = lambda what: None if "Event loop is closed" in str(what.exc_value) else told(what)


def _whole(name: str) -> int | None:
    """The number in an environment variable."""
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, got {text!r}")
    return None if text is None else int(text)


def _accelerators() -> bool:
    """Whether JAX will find a GPU or TPU, without asking it."""
    return any(
        importlib.util.find_spec(name)
        for name in ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
    )


def keep_memory() -> None:
    """What this process frees stays its own, for the next step. To be called before JAX does anything.

    On a CPU, XLA allocates the workspace of each call anew. glibc would get it from the system page by page each time,
    which takes a sixth of a training step; it keeps memory for the main thread only, so that one must do the work.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: which never shrinks
        jax.config.update("jax_cpu_enable_async_dispatch", False)
