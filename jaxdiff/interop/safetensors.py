"""Files of named tensors that can hold nothing else: the length of a header, the header in JSON, the numbers."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

_DTYPES = {"BOOL": np.dtype("?"), "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_DTYPES |= {"BF16": np.dtype(jnp.bfloat16)}
_DTYPES |= {f"{kind.upper()}{8 * size}": np.dtype(f"<{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, left on the disk until they are looked at."""
    if path.stat().st_size < 8:
        raise ValueError(f"{path} is damaged: it ends before its header")
    data = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > data.size - 8:
        raise ValueError(f"{path} is damaged, or no safetensors file: its header of {length} bytes is not all there")
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
        return dict(_tensors(header, data[8 + length :]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error!s:.200}") from None


def _tensors(header: dict[str, Any], data: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor begins where the one before it ends, and the last one ends where the file does."""
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    at = 0
    for name, entry in sorted(entries, key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{name} is of {entry['dtype']}, known are {', '.join(_DTYPES)}")
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or [begin, end] != [at, at + size]:
            raise ValueError(f"{name} of shape {shape} stands at bytes {begin} to {end}, not {at} to {at + size}")
        if end > data.size:
            raise ValueError(f"{name} ends at byte {end} of {data.size}")
        yield name, data[begin:end].view(dtype).reshape(shape)
        at = end
    if at != data.size:
        raise ValueError(f"{data.size - at} bytes belong to no tensor")


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """All tensors into one file, marked as PyTorch's: its readers ask for that."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        place = [at, at + tensor.nbytes]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": place}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
