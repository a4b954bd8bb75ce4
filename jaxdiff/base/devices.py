"""The one place that knows of devices."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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

    def for_each(self, size: int) -> int:
        """So many for each device; for all CPUs together, which are one machine's."""
        return size if self.devices[0].platform == "cpu" else size * len(self.devices)

    def shard(self, batch: Any) -> Any:
        """Each device gets its share of the leading axis."""
        return jax.device_put(batch, NamedSharding(self.mesh, DIVIDED))

    def replicate(self, tree: Any) -> Any:
        """Each device gets a copy; nothing moves if it has one."""
        sharding = NamedSharding(self.mesh, EVERYWHERE)
        if sharding.is_fully_addressable:
            return jax.device_put(tree, sharding)

        def copied(leaf: Any) -> Any:  # by each process from its own: `device_put` would compare them all
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)

        return jax.tree.map(copied, tree)

    def described(self, tree: Any, spec: PartitionSpec) -> Any:
        """The shapes of arrays that lie so on these devices, which need not be here: what to compile for."""
        shapes, sharding = jax.eval_shape(lambda same: same, tree), NamedSharding(self.mesh, spec)
        return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), shapes)


# --- training on any number of devices ------------------------------------------------------------------------------


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


def from_first(tree: Any) -> Any:
    """What the first of the processes says: numbers of numpy."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


def in_place_of(old: Any, new: Any) -> Any:
    """New values where the old ones live."""
    new = jax.device_get(new)  # from the host: JAX 0.10 fails to put it from one process's only device on all
    return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), new, old)


@contextlib.contextmanager
def agreeing() -> Iterator[None]:
    """What fails within in one of the processes fails in all, so that none waits for one that has gone."""
    try:
        yield
    except BaseException:
        agreed(True)
        raise
    if agreed(False):
        raise ValueError("another of the processes failed, and says why")


def is_first() -> bool:
    """Whether this is the process that writes files and talks."""
    return jax.process_index() == 0


def memory() -> int | None:
    """Bytes that a device has; of CPUs, which share it, that of this machine, or what it grants to this process.

    None where the system does not tell.
    """
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return int(limit)
    granted = Path("/sys/fs/cgroup/memory.max")
    text = granted.read_text() if granted.exists() else ""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, which has no sysconf
        return None
    return min(machine, int(text)) if text.strip().isdecimal() else machine
