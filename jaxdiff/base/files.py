"""Files and folders of this machine: written whole or not at all, held by one process, never overwritten."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np


def write(path: Path, content: str | bytes) -> None:
    """Whole, or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # before the name says that it is there
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def unused(path: Path) -> Path:
    """This path, or the first of path_2, path_3, ... that is not there."""
    number, free = 2, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}_{number}")
    return free


def free_bytes(folder: Path) -> int:
    """Of the disk where a folder is, or will be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free


class HeldError(ValueError):
    """Another process holds the lock: the message says which."""


def hold(file: Path, wait: bool = False) -> TextIO:
    """A lock file, held until it is closed or the process ends, however it does. Whoever does not wait is refused."""
    lock = open(file, "a+", encoding="utf-8")  # noqa: SIM115
    try:
        import fcntl
    except ImportError:  # Windows: two processes may get in each other's way
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise HeldError(holder) from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()}")
    lock.flush()
    return lock


@contextlib.contextmanager
def locked(folder: Path, doing: str = "trained in", instead: str = "give another --workdir") -> Iterator[None]:
    """Holds a folder for this process alone; anyone else gets an error that says who has it, and what to do instead."""
    try:
        lock = hold(folder / "lock")
    except HeldError as holder:
        raise ValueError(f"{folder} is being {doing} by {holder}: wait for it, or {instead}") from None
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}): {instead}") from None
    with lock:
        yield


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Of an .npy file; of one length, whatever the first number of the shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def cache_folder() -> Path:
    """Where things are kept that can be made again: $JAXDIFF_CACHE, or jaxdiff in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("JAXDIFF_CACHE") or home / "jaxdiff").absolute()
