"""Checkpoints of a training state by Orbax: written while training goes on, whole or not at all, checked when read.

Each holds the state and its fingerprint, so that a file that changed on the disk is found out and not trained on.
"""

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jaxtyping import Array, UInt32

from jaxdiff.base import files
from jaxdiff.base.devices import agreed, is_first
from jaxdiff.base.environment import give_back
from jaxdiff.base.logs import quiet
from jaxdiff.base.words import amount

_EXHAUSTED = "RESOURCE_EXHAUSTED"  # memory; in TensorStore's messages also the disk, or the number of open files
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Checkpoints:
    """Those of one run. The last `keep` stay, and if `keep_every` is given those of every so many steps, for ever.

    Without `keep` they are for reading: what another process is writing is left alone.
    """

    def __init__(self, folder: Path, keep: int | None = None, keep_every: int | None = None):
        self.folder = folder.absolute()
        writes = keep is not None
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, keep_period=keep_every, cleanup_tmp_directories=writes, read_only=not writes
        )
        self._need = 0
        self._manager = _managed(self.folder, self._options)

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Returns as soon as the state is copied; the disk is written meanwhile."""
        if step not in self._manager.all_steps():
            item = {"state": state, "fingerprint": fingerprint(state)}
            self._need = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            give_back()
            with self._writing():
                self._check_space()
                self._manager.save(step, args=ocp.args.StandardSave(item), force=True)

    def _check_space(self) -> None:
        if files.free_bytes(self.folder) < self._need + 2**24:  # some for what else is written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk is told as such."""
        try:
            yield
        except (OSError, ValueError) as error:  # TensorStore, which knows no OSError, says that a resource is exhausted
            if not files.is_full(error) and _EXHAUSTED not in str(error):
                raise
            need, free = amount(self._need, "B"), amount(files.free_bytes(self.folder), "B")
            full = f"disk full: {self.folder} has {free} of space left, a checkpoint needs {need}"
            raise ValueError(f"{full}: make room, and run the same command again") from error

    def known(self, step: int | None) -> int:
        """A step that is there: the newest, if None."""
        if not self.steps:
            raise ValueError(f"{self.folder} has no checkpoint yet: jaxdiff train makes one")
        if step not in (None, *self.steps):
            raise ValueError(
                f"{self.folder} has no checkpoint of step {step}: it has {', '.join(map(str, self.steps))}"
            )
        return self.steps[-1] if step is None else step

    def restore(self, like: Any, step: int | None = None) -> Any:
        """The state of one step, in the shapes and on the devices of `like`."""
        self.wait()
        step = self.known(step)
        item = self._read(step, {"state": like, "fingerprint": np.zeros(len(jax.tree.leaves(like)), np.uint32)})
        if not np.array_equal(item["fingerprint"], fingerprint(item["state"])):
            raise DamagedError(f"checkpoint {self.folder / str(step)} is not what was written: a file has changed")
        return item["state"]

    def _read(self, step: int, like: Any) -> Any:
        path = self.folder / str(step)
        try:
            _check_files(path)
            # a manager of its own: one that has met a broken checkpoint reads the good ones no more
            with _managed(self.folder, ocp.CheckpointManagerOptions(read_only=True)) as manager:
                return manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:  # whatever Orbax and its parsers make of a broken file
            reason = _of_the_machine(error, path)
            if reason is None:
                raise DamagedError(f"checkpoint {path} cannot be read ({_first_line(error)})") from error
            now = f"checkpoint {path} cannot be read now ({_first_line(reason)})"
            raise ValueError(f"{now}: nothing was changed, so try again when it can be") from error

    def restore_newest(
        self, like: Any, warn: Callable[[str], None], is_sound: Callable[[int, Any], bool] = lambda step, state: True
    ) -> tuple[int, Any] | None:
        """The newest that can be read and is sound, and its step; None if there are none. Others are set aside."""
        damaged: dict[int, DamagedError] = {}
        for step in reversed(self.steps):
            try:
                state = self.restore(like, step)
                if not is_sound(step, state):
                    raise DamagedError(f"checkpoint {self.folder / str(step)} is not finite, or of another step")
            except DamagedError as error:
                damaged[step] = error
                continue
            for late, reason in damaged.items():
                warn(f"{reason}; it is now {self._set_aside(late).name}, and the run goes on from step {step}")
            return step, state
        if damaged:
            raise DamagedError(
                f"no checkpoint can be gone on from: {next(iter(damaged.values()))}; --restart starts over"
            )
        return None

    def _set_aside(self, step: int) -> Path:
        self._manager.close()
        aside = files.unused(self.folder / f"damaged_{step}")
        if is_first():
            os.replace(self.folder / str(step), aside)
        agreed(False)  # the others wait until it has moved
        self._manager = _managed(self.folder, self._options)
        return aside

    def wait(self) -> None:
        """Until everything is on the disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()


class Best:
    """The checkpoint at which a number was lowest, in a folder of its own, and beside it the numbers of all that were.

    `of` is what the number depends on, as plain data: where that changes, what was lowest before is no bar. `before`
    are the numbers by step of a run that has no such file yet.
    """

    def __init__(self, folder: Path, at: int, of: Any, before: Mapping[int, float]) -> None:
        self._checkpoints, self._of = Checkpoints(folder, 1), of
        self._path = folder.with_name(f"{folder.name}.json")
        self._numbers = {step: number for step, number in self._known(before) if step <= at}
        kept = max(self._checkpoints.steps, default=None)
        bars = self._numbers.values() if kept is None or kept > at else [self._numbers.get(kept, math.inf)]
        self._lowest = math.inf if kept is None else min(bars, default=math.inf)

    def _known(self, before: Mapping[int, float]) -> list[tuple[int, float]]:
        try:
            found = files.read_json(self._path)
            same = found["of"] == json.loads(json.dumps(self._of))
            return [(int(step), float(number)) for step, number in found["numbers"]] if same else []
        except FileNotFoundError:
            return list(before.items())
        except (KeyError, TypeError, ValueError):  # damaged, it bars nothing
            return []

    def see(self, step: int, state: Any, value: float) -> None:
        """Saves the state if its number is lower than all before; of several processes the first one says so."""
        if agreed(is_first() and value < self._lowest):
            self._lowest = self._numbers[step] = value
            if is_first():
                files.write(self._path, json.dumps({"of": self._of, "numbers": sorted(self._numbers.items())}))
            self._checkpoints.save(step, state)

    def close(self) -> None:
        self._checkpoints.close()


def _managed(folder: Path, options: ocp.CheckpointManagerOptions) -> Any:
    with quiet("absl"):  # it logs what it makes of read_only
        return ocp.CheckpointManager(folder, options=options)


class DamagedError(ValueError):
    """A checkpoint that cannot be read, or is not what was written."""


def fingerprint(tree: Any) -> np.ndarray:
    """A number for each array, of whole numbers alone: the same on any devices, however the array is divided."""
    # one at a time: of several that add up what several CPUs have, each may wait for the others' threads
    return np.array([jax.device_get(_number(leaf)) for leaf in jax.tree.leaves(tree)], np.uint32)


@jax.jit  # of one array, since many are of one shape: compiled in an eighth of the time of all at once
def _number(leaf: Array) -> UInt32[Array, ""]:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    words = _words(leaf).reshape(-1)
    place = 2 * lax.iota(jnp.uint32, words.size) + 1
    return jnp.sum((words ^ (words >> 15)) * (place ^ (place << 7)), dtype=jnp.uint32)


def _words(leaf: Array) -> Array:
    """Its bits, in words of at most 32."""
    if leaf.dtype == bool:
        return leaf.astype(jnp.uint32)
    size = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return lax.bitcast_convert_type(leaf, size).astype(jnp.uint32)


def _check_files(folder: Path) -> None:
    """What is neither a file nor a folder, such as a pipe, would be waited for."""
    odd = [path for path in folder.rglob("*") if not path.is_file() and not path.is_dir()]
    if odd:
        raise FileNotFoundError(f"{odd[0].name} is no file")


def _of_the_machine(error: Exception, folder: Path) -> Exception | None:
    """What keeps the machine from reading a checkpoint, now; None if its files are at fault."""
    if isinstance(error, MemoryError | OSError) and not isinstance(error, _NO_FILE):
        return error
    codes = set(map(int, re.findall(r"os_error_code='(\d+)'", str(error)))) - {errno.ENOENT}  # as TensorStore says it
    if codes:
        return OSError(min(codes), os.strerror(min(codes)))
    return error if _EXHAUSTED in str(error) else files.refusal(folder)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error).strip() else ''}"
