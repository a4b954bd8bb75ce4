"""Image files. An image is uint8 [height, width, channels], with 1 or 3 channels."""

import contextlib
import math
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow knows more, some by running other programs on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "QOI", "PSD", "SGI", "PCX")

_ORIENTATION = 0x0112  # EXIF's tag: how to turn what is stored, 1 being upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# --- files ------------------------------------------------------------------------------------------------------------


def read(file: str | Path | BinaryIO, channels: int = 3, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image in a file: uint8 [height, width, channels]; a ValueError says why there is none. See `decode`."""
    return decode(Path(file).read_bytes() if isinstance(file, str | Path) else file.read(), channels, size)


def decode(data: bytes, channels: int = 3, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image in a file's bytes, upright, of 8 bits, on white where it is transparent; the first of several.

    `channels` is 3 for colour or 1 for gray. If it will be shrunk to `size` (height, width) anyway, a much larger JPEG
    is decoded at a fraction of its size, still at least twice that.
    """
    _check_channels(channels)
    with _opened(data) as image:
        stored = math.prod(image.size)
        if size is not None:
            image.draft(None, (2 * max(size), 2 * max(size)))  # stored on its side, perhaps
        with _ROOM.of(math.prod(image.size) + stored // 4):
            image.load()  # Pillow turns a TIFF by itself, and then says so
            turn = _UPRIGHT.get(_orientation(image))
            converted = _converted(image, channels)
            pixels = np.array(converted if turn is None else converted.transpose(turn))
    return pixels.reshape(*pixels.shape[:2], channels)


def shape_of(data: bytes) -> tuple[int, int, int]:
    """What `decode` would give of a file's bytes: height, width, and 1 if it is gray or 3.

    Only its head is read, but of a TIFF.
    """
    with _opened(data) as image:
        if image.format == "TIFF":
            image.load()  # Pillow turns it by itself, and then says so
        width, height = image.size
        on_its_side = _orientation(image) >= 5
        gray = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
    return (width, height, 1 if gray else 3) if on_its_side else (height, width, 1 if gray else 3)


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The image, not yet decoded; whatever is wrong with it, now or later, is a ValueError."""
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(BytesIO(data), formats=_formats()) as image:
            if math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            yield image
    except UnidentifiedImageError:
        heic = data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1")
        raise ValueError("HEIC: save it as JPEG" if heic else "not an image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"more than {Image.MAX_IMAGE_PIXELS} pixels: see PIL.Image.MAX_IMAGE_PIXELS") from None
    except Exception as error:  # a damaged file leads Pillow to errors of many classes
        raise ValueError(f"{error or type(error).__name__}") from None


class _Room:
    """Lets threads decode as long as their images together have no more pixels than a single one may have."""

    def __init__(self) -> None:
        self._taken, self._changed = 0, threading.Condition()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        with self._changed:
            most = Image.MAX_IMAGE_PIXELS or math.inf
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_ROOM = _Room()


def extensions() -> frozenset[str]:
    """Of the names of image files, in lower case."""
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in FORMATS)


def _formats() -> tuple[str, ...]:
    Image.init()  # does nothing the second time
    return tuple(name for name in FORMATS if name in Image.OPEN)  # a Pillow may be built without some


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the notes are damaged, not the image
        return 1


def _converted(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _eight_bits(gray: np.ndarray) -> np.ndarray:
    """Of 16-bit gray, which Pillow's `convert` would clip to white; it may come as 32-bit integers."""
    if gray.dtype.kind == "f" or gray.min() < 0 or gray.max() > 65535:
        raise ValueError(f"pixels of {gray.dtype} have no agreed range: save it with 8 or 16 bits")
    return np.rint(gray.astype(np.float32) / 257).astype(np.uint8)


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image shrunk or enlarged (Lanczos) until it just covers height x width, and cut to that about its centre."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"an image must be uint8 [height, width, channels], got {image.dtype} {image.shape}")
    _check_channels(image.shape[-1])
    if min(height, width) < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    h, w, channels = image.shape
    if (h, w) == (height, width):
        return image
    scale = max(height / h, width / w)
    left, top = (w - width / scale) / 2, (h - height / scale) / 2
    box = (max(left, 0), max(top, 0), min(w - left, w), min(h - top, h))  # not past the edge by rounding
    pillow = Image.fromarray(image[..., 0] if channels == 1 else image)
    return np.array(pillow.resize((width, height), Image.Resampling.LANCZOS, box)).reshape(height, width, channels)


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (gray) or 3 (colour), got {channels}")
