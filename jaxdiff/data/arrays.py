"""Images in one file of numpy's."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from jaxdiff.base.fields import may_change
from jaxdiff.base.files import regular
from jaxdiff.data.archives import check_header, stored_array
from jaxdiff.data.examples import Cache, Examples

_FORMS = (("images", "labels"), ("arr_0", "arr_1"), ("x_train", "y_train"))


@dataclass(frozen=True)
class Arrays:
    """Images [n, height, width] or [n, height, width, channels] of an .npy or .npz file.

    An .npy file is mapped into memory; its labels are in another beside it, `labels` with .npy, if there is one. In an
    .npz file `images` and `labels` are the names of arrays; if there is no `images`, they are arr_0 and arr_1 (what
    evaluators write), or x_train and y_train (Keras). Other numbers than uint8 are held in memory as such: whole ones
    must be in 0..255; floats in [0, 1], or, if any is below 0, in [-1, 1]. Labels are whole numbers from 0.
    """

    path: str = may_change()  # the file
    images: str = "images"
    labels: str = "labels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if Path(self.path).suffix not in (".npy", ".npz"):
            raise ValueError(f"path must end in .npy or .npz, got {self.path!r}")

    def open(self, cache: Cache = "auto") -> Examples:
        del cache  # there is nothing to decode
        if not Path(self.path).is_file():
            raise ValueError(f"{self.path} is not there: path must be that of an .npy or .npz file")
        try:
            images, labels = self._from_npy() if self.path.endswith(".npy") else self._from_npz()
        except Exception as error:  # a damaged file leads to errors of many classes
            raise ValueError(f"{self.path}: {error or type(error).__name__}") from None
        return Examples(images, labels, names=_names(images))

    def _from_npy(self) -> tuple[np.ndarray, np.ndarray | None]:
        images = _images(_mapped(Path(self.path)))
        beside = Path(self.path).with_name(f"{self.labels}.npy")
        if not beside.exists() and self.labels != "labels":
            raise ValueError(f"its labels should be in {beside}, which is not there")
        return images, _labels(_mapped(beside), len(images)) if beside.exists() else None

    def _from_npz(self) -> tuple[np.ndarray, np.ndarray | None]:
        with ZipFile(self.path) as file:
            names = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
            image_key, label_key = self._keys(names)
            images = _images(stored_array(file, image_key))
            return images, _labels(stored_array(file, label_key), len(images)) if label_key in names else None

    def _keys(self, file: Sequence[str]) -> tuple[str, str]:
        for images, labels in ((self.images, self.labels), *(_FORMS if self.images == "images" else ())):
            if images in file:
                if self.labels != "labels" and self.labels not in file:
                    raise ValueError(f"has no {self.labels!r}, only {', '.join(file)}")
                return images, labels if self.labels == "labels" else self.labels
        raise ValueError(f"has no {self.images!r}, only {', '.join(file)}: say which are images and labels")


def _names(images: np.ndarray) -> str:
    """What tells them from others that take as many bytes: 64 of them."""
    spread = images[:: -(-len(images) // 64)]
    return f"{images.shape} {zlib.crc32(np.ascontiguousarray(spread).data)}"


def _mapped(path: Path) -> np.ndarray:
    """An .npy file, mapped into memory."""
    with open(path, "rb", opener=regular) as file:
        check_header(file, path.stat().st_size)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def _images(array: np.ndarray) -> np.ndarray:
    """uint8 [n, height, width, channels]."""
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or 0 in array.shape or array.shape[-1] > 4:
        channels_first = array.ndim == 4 and array.shape[1] in (1, 3)
        hint = ": the channels must be last, as np.moveaxis(images, 1, -1) has them" if channels_first else ""
        raise ValueError(f"images must be [n, height, width] or [n, height, width, 1 to 4], got {array.shape}{hint}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fiub":
        raise ValueError(f"images must be uint8, whole numbers in 0..255, or floats, got {array.dtype}")
    images = np.empty(array.shape, np.uint8)
    scale, offset = _range(array)
    rows = max(1, 2**22 // array[0].size)
    for first in range(0, len(array), rows):
        images[first : first + rows] = np.rint(array[first : first + rows] * np.float32(scale) + np.float32(offset))
    return images


def _range(array: np.ndarray) -> tuple[float, float]:
    """Scale and offset that take its numbers to 0..255."""
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "b":
        return 255.0, 0.0
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return 1.0, 0.0
    if array.dtype.kind == "f" and low >= -1 and high <= 1:
        return (255.0, 0.0) if low >= 0 else (127.5, 127.5)
    legal = "floats must be in [0, 1] or [-1, 1]" if array.dtype.kind == "f" else "whole numbers must be in 0..255"
    raise ValueError(f"{legal}, got {low:g} to {high:g}: scale them, or save uint8")


def _labels(array: np.ndarray, count: int) -> np.ndarray:
    """int32 [n]."""
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    legal = flat.shape == (count,) and flat.dtype.kind in "iu" and flat.min() >= 0 and flat.max() < 2**31
    if not legal:
        raise ValueError(f"labels must be {count} whole numbers from 0 up, got {array.dtype} {array.shape}")
    return flat.astype(np.int32)
