"""The one place that knows of devices."""

import ctypes
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Devices:
    """Devices among which the leading axis of a batch is divided."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self.devices = tuple(jax.local_devices() if devices is None else devices)
        if not self.devices:
            raise ValueError("devices must be at least one, or None for all of this machine")
        self._mesh = Mesh(np.array(self.devices), ("data",))

    def round_up(self, size: int) -> int:
        """The least batch of at least this size that the devices divide."""
        return -(-size // len(self.devices)) * len(self.devices)

    def shard(self, batch: Any) -> Any:
        """Each device gets its share of the leading axis."""
        return jax.device_put(batch, NamedSharding(self._mesh, PartitionSpec("data")))

    def replicate(self, tree: Any) -> Any:
        """Each device gets a copy; nothing moves if it has one."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))


def keep_memory() -> None:
    """What this process frees stays its own, for the next step. To be called before JAX does anything.

    On a CPU, XLA allocates the workspace of each call anew. glibc would get it from the system page by page each time,
    which takes a sixth of a training step; it keeps memory for the main thread only, so that one must do the work.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # Linux
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: which never shrinks
        jax.config.update("jax_cpu_enable_async_dispatch", False)
