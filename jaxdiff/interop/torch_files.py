"""The tensors in a file that PyTorch saved, .pth or .pt, without PyTorch and without running what a pickle can name.

A pickle is a program: it calls whatever functions it names. This reader knows those that dictionaries of tensors take,
and refuses a file that names any other.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.base import files

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_MAGIC = 0x1950A86A20F9469CFC6C  # of files written before PyTorch 1.6
LARGEST = 2**31  # bytes of a file


class _Storage(NamedTuple):
    """Where the numbers of tensors are."""

    dtype: Any
    key: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name; a ValueError says why there are none."""
    try:
        content = files.read(path, LARGEST)
        named, storages = (_zipped if content.startswith(b"PK") else _plain)(content)
        if not isinstance(named, dict) or not all(isinstance(value, _Tensor) for value in named.values()):
            raise ValueError("it holds something else than a dictionary of tensors")
        return {str(name): _array(tensor, storages) for name, tensor in named.items()}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle leads to errors of many classes
        raise ValueError(f"{path} is no file of weights that can be read: {error or type(error).__name__}") from None


def _zipped(content: bytes) -> tuple[Any, Callable[[_Storage], bytes]]:
    """As PyTorch writes them since 1.6."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if index is None:
        raise ValueError("it is a zip without data.pkl")
    folder = index.removesuffix("data.pkl")
    if archive.getinfo(index).file_size > 2**24:
        raise ValueError("its list of tensors is too long")

    def storage(wanted: _Storage) -> bytes:
        entry = archive.getinfo(f"{folder}data/{wanted.key}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename} is compressed, as PyTorch leaves none")
        return archive.read(entry)

    return _unpickled(io.BytesIO(archive.read(index))), storage


def _plain(content: bytes) -> tuple[Any, Callable[[_Storage], bytes]]:
    """As it wrote them before: five pickles, then the numbers."""
    file = io.BytesIO(content)
    if _unpickled(file) != _MAGIC:
        raise ValueError("it does not begin as PyTorch's files do")
    _, about = _unpickled(file), _unpickled(file)
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    reader = _Reader(file)
    named, keys = reader.load(), _unpickled(file)
    stored: dict[str, bytes] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        stored[str(key)] = file.read(count * np.dtype(reader.known[str(key)].dtype).itemsize)
    return named, lambda wanted: stored[wanted.key]


def _unpickled(file: io.BytesIO) -> Any:
    return _Reader(file).load()


class _Reader(pickle.Unpickler):
    """Finds what tensors take, and nothing else."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.known: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *rest: _Tensor(storage, offset, shape, strides)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *rest: tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise ValueError(f"it names {module}.{name}, which weights do not need, and which is not run")

    def persistent_load(self, about: Any) -> _Storage:
        kind, dtype, key, _, size = about[:5]
        if kind != "storage" or dtype not in _DTYPES.values():
            raise ValueError("it refers to something else than numbers")
        return self.known.setdefault(str(key), _Storage(dtype, str(key), int(size)))


def _array(tensor: _Tensor, storages: Callable[[_Storage], bytes]) -> np.ndarray:
    numbers = np.frombuffer(storages(tensor.storage), tensor.storage.dtype)
    shape, strides = tuple(map(int, tensor.shape)), tuple(map(int, tensor.strides))
    if len(shape) != len(strides) or min((*shape, *strides, tensor.offset), default=0) < 0:
        raise ValueError(f"a tensor of shape {shape} with strides {strides}")
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and (last >= len(numbers) or math.prod(shape) > len(numbers)):
        raise ValueError(f"a tensor of shape {shape} has more numbers than are there")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, steps).copy()
