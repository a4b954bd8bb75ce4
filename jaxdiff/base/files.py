"""Files and folders of this machine: written whole or not at all, held by one process, never overwritten."""

import contextlib
import errno
import io
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np


def write(path: Path, content: str | bytes) -> None:
    """Whole, or not at all."""
    with beside(path) as new:
        with open(new, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # before the name says that it is there
        os.replace(new, path)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name next to a path, for what is moved there once it is whole; no other process has it, on any machine."""
    new = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}{_PART}")
    try:
        yield new
    finally:
        _remove(new)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill beside that place, which must be free or empty; it is moved there once all is written."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already: name another, or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with beside(folder) as new:
        new.mkdir()
        yield new
        if folder.exists():
            folder.rmdir()
        new.rename(folder)


_PART = ".part"


def clear(folder: Path, name: str = "*") -> None:
    """Removes what killed processes left beside their files; to be called by whoever alone may write there."""
    for left in folder.glob(f".{name}.{'[0-9a-f]' * 16}{_PART}"):
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # another user's
            path.unlink()


MOST = 2**23  # bytes of a text that is read: a hundred times what any needs


def read(path: Path, most: int = MOST) -> bytes:
    """A file of at most so many bytes, which is no pipe: that might never end."""
    with open(path, "rb", opener=regular) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most / 1e6:.0f} MB")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a ValueError says why there is none."""
    try:
        found = json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: needed is an object, got {str(found)[:80]}")
    return found


def regular(path: str, flags: int, more: int = 0) -> int:
    """An opener for `open`: a file with content, neither a folder, a pipe nor a device."""
    opened = os.open(path, flags | more | getattr(os, "O_NONBLOCK", 0), 0o666)
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise OSError(errno.EINVAL, f"{Path(path).name} is no regular file", path)


def unlinked(path: str, flags: int) -> int:
    """The same for what is written to: a link, which could lead to any file, is not followed."""
    try:
        return regular(path, flags, getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        why = f"{Path(path).name} is a link" if error.errno == errno.ELOOP else error.strerror
        raise OSError(error.errno, why, path) from None


def check_place(path: Path, instead: str) -> None:
    """Refuses a path where no file could be written, before there is anything to write."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(each for each in path.absolute().parents if each.exists())
        with tempfile.NamedTemporaryFile(dir=folder, prefix=path.name + "_trajectory"):  # the longest name beside it
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): {instead}") from None


def unused(path: Path, ending: str = "") -> Path:
    """This path, or the first of path_2, path_3, ... that is not there; all of them with the ending."""
    number, free = 2, path.with_name(f"{path.name}{ending}")
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}_{number}{ending}")
    return free


def free_bytes(folder: Path) -> int:
    """Of the disk where a folder is, or will be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def is_full(error: BaseException) -> bool:
    """Whether it says that there is no space left, or no more for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def refusal(folder: Path) -> OSError | None:
    """Why the system reads no byte of some file in a folder or below, if so; what is missing does not count."""

    def refuse(error: OSError) -> None:
        raise error

    try:
        for above, _, names in os.walk(folder, onerror=refuse):
            for path in (Path(above, name) for name in names):
                if path.is_file():
                    with open(path, "rb") as file:
                        file.read(1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None


class HeldError(ValueError):
    """Another process holds the lock: the message says which."""


def hold(file: Path, wait: bool = False) -> TextIO:
    """A lock file, held until it is closed or the process ends, however it does. Whoever does not wait is refused."""
    try:
        lock = open(file, "a+", encoding="utf-8", errors="replace", opener=unlinked)  # noqa: SIM115
    except PermissionError:  # another user's, which can be waited for all the same
        if not wait or not file.exists():
            raise
        lock = open(file, encoding="utf-8", errors="replace", opener=unlinked)  # noqa: SIM115
    try:
        _take(lock, wait)
    except BaseException:
        lock.close()
        raise
    return lock


def _take(lock: TextIO, wait: bool) -> None:
    lock.seek(0)
    if not re.fullmatch(r"(process \d+)?", lock.read(100)):
        raise OSError(errno.EEXIST, "lock is a file of something else", lock.name)
    try:
        import fcntl
    except ImportError:  # Windows: two processes may get in each other's way
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # a file system without locks: as on Windows
            return
        lock.seek(0)
        raise HeldError(lock.read().strip() or "another process") from None
    if lock.writable():
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()


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
        clear(folder)
        yield


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Of an .npy file; of one length, whatever the first number of the shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def cache_folder() -> Path:
    """Where things are kept that can be made again: $JAXDIFF_CACHE, or jaxdiff in the user's cache folder."""
    own, shared = os.environ.get("JAXDIFF_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own or Path(shared or Path.home() / ".cache") / "jaxdiff").absolute()
    except RuntimeError:  # a user whom the system does not know, without $HOME
        raise ValueError("there is no home folder to keep a cache in: set JAXDIFF_CACHE to a folder") from None
