"""What is in zip files and in numpy's, read only if it is no more than it may be: a small file can say anything."""

import math
import struct
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

LARGEST = 2**27  # bytes of an image, or of a table
_MOST_ALIKE = 2**28, 100  # an array above so many bytes is no more than so many times its compressed size

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def content(archive: ZipFile, name: str) -> bytes:
    """Of one entry; a ValueError says why it cannot be read."""
    entry = _known_method(archive.getinfo(name))
    if entry.file_size > LARGEST:
        raise ValueError(f"it has {entry.file_size / 1e6:.0f} MB, the largest read is {LARGEST / 1e6:.0f} MB")
    try:
        with archive.open(name) as file:
            return file.read(entry.file_size)
    except Exception as error:  # a damaged or encrypted one leads zipfile to errors of many classes
        raise ValueError(f"{error or type(error).__name__}") from None


def stored_array(archive: ZipFile, name: str) -> np.ndarray:
    """The array in an .npz file: mapped into memory if it is stored as it is, as `np.savez` does, else read."""
    entry = _known_method(archive.getinfo(f"{name}.npy"))
    large, times = _MOST_ALIKE
    if entry.file_size > max(large, times * entry.compress_size):
        grows = f"{entry.file_size / 1e6:.0f} MB out of {entry.compress_size / 1e6:.1f} MB"
        raise ValueError(f"{name} would be {grows}: if it is what it says, save it without compression")
    with archive.open(entry.filename) as file:
        shape, in_columns, dtype = check_header(file, entry.file_size)
        if entry.compress_type == ZIP_STORED and 0 not in shape and isinstance(archive.filename, str):
            begins = _content_of(archive.filename, entry) + file.tell()
            return np.memmap(archive.filename, dtype, "r", begins, shape, "F" if in_columns else "C")
        file.seek(0)
        return np.asarray(npy.read_array(file, allow_pickle=False))


def _content_of(archive: str, entry: ZipInfo) -> int:
    """Where the content of an entry begins: behind its own header, which need not be that of the list of entries."""
    with open(archive, "rb") as file:
        file.seek(entry.header_offset)
        *_, name, extra = struct.unpack("<4s5H3I2H", file.read(30))
    return entry.header_offset + 30 + int(name) + int(extra)


def check_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is in Fortran's order, and dtype of an .npy file; refused if its bytes are fewer than that."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an .npy file of version {version}, read are {', '.join(map(str, _HEADERS))}")
    shape, in_columns, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"its header says {dtype} {shape}, for which its {size} bytes are too few")
    return shape, in_columns, dtype


def _known_method(entry: ZipInfo) -> ZipInfo:
    """Others may make of any few bytes any number of them."""
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"it is compressed by method {entry.compress_type}: read are 0 (stored) and 8 (deflated)")
    return entry
