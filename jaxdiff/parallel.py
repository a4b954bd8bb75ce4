"""The one place that knows of devices."""

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
