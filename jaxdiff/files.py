"""Files and folders of this machine: written whole or not at all, held by one process, never overwritten."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


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


@contextlib.contextmanager
def locked(folder: Path, doing: str = "trained in", instead: str = "give another --workdir") -> Iterator[None]:
    """Holds a folder for this process alone; whoever else wants it is told who has it, and what to do instead."""
    import fcntl

    try:
        file = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}): {instead}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(f"{folder} is being {doing} by {holder}: wait for it, or {instead}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def cache_folder() -> Path:
    """Where things are kept that can be made again: $JAXDIFF_CACHE, or jaxdiff in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("JAXDIFF_CACHE") or home / "jaxdiff").absolute()
