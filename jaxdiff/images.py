"""Image files, and pictures to look at. An image is uint8 [height, width, channels], with 1 or 3 channels."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from jaxdiff.files import write

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
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(BytesIO(data), formats=_formats()) as image:
            if size is not None:
                image.draft(None, (2 * max(size), 2 * max(size)))  # stored on its side, perhaps
            turn = _UPRIGHT.get(_orientation(image))
            converted = _converted(image, channels)
            pixels = np.array(converted if turn is None else converted.transpose(turn))
    except UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"more than {Image.MAX_IMAGE_PIXELS} pixels: see PIL.Image.MAX_IMAGE_PIXELS") from None
    except Exception as error:  # a damaged file leads Pillow to errors of many classes
        raise ValueError(f"{error or type(error).__name__}") from None
    return pixels.reshape(*pixels.shape[:2], channels)


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
    return np.rint(gray / 257).astype(np.uint8)


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


# --- pictures ---------------------------------------------------------------------------------------------------------


def to_uint8(images: Any) -> np.ndarray:
    """0..255 for floats in [-1, 1], clipped; uint8 stays. What is not a number is black."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind in "biuOUSMmc":
        raise ValueError(f"images must be uint8, or floats in [-1, 1], got {images.dtype}")
    floats = np.nan_to_num(images.astype(np.float32), nan=-1.0)
    return np.rint(127.5 * (np.clip(floats, -1, 1) + 1)).astype(np.uint8)


def sheet(
    images: Any,
    columns: int | None = None,
    pad: int = 2,
    scale: int | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> np.ndarray:
    """One picture of many images, row by row on white: uint8 [height, width, 3].

    `images` are [n, height, width] or [n, height, width, channels], uint8 or floats in [-1, 1]; of four channels and
    more the first three are shown, of two their mean. Each pixel becomes `scale` x `scale`, `pad` lie between images;
    without `scale`, images below 64 pixels are enlarged to about that. `labels` are written left of the rows.
    """
    tiles = _tiles(images)
    n, h, w, _ = tiles.shape
    columns = _columns(n) if columns is None else columns
    scale = max(1, round(64 / min(h, w))) if scale is None else scale
    if columns < 1 or scale < 1 or pad < 0:
        raise ValueError(f"needs columns >= 1, scale >= 1 and pad >= 0, got {columns}, {scale} and {pad}")
    rows = -(-n // columns)
    if labels is not None and len(labels) != rows:
        raise ValueError(f"labels must be one for each of the {rows} rows, got {len(labels)}")
    tiles = tiles.repeat(scale, 1).repeat(scale, 2)
    high, wide = h * scale + pad, w * scale + pad
    canvas = np.full((rows * high + pad, columns * wide + pad, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = pad + i // columns * high, pad + i % columns * wide
        canvas[y : y + h * scale, x : x + w * scale] = tile
    return _lettered(canvas, labels or (), high, title)


def _tiles(images: Any) -> np.ndarray:
    """uint8 [n, height, width, 3]."""
    try:
        images = np.asarray(images)
    except ValueError:
        raise ValueError("images of a sheet must all have one shape: use fit") from None
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be [n, height, width] or [n, height, width, channels], got {images.shape}")
    if images.shape[-1] == 2:
        images = to_uint8(images).mean(-1, keepdims=True).astype(np.uint8)
    return to_uint8(np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images[..., :3])


def _columns(count: int) -> int:
    """About as many as rows; a few more if then no place stays empty."""
    root = int(np.ceil(np.sqrt(count)))
    return next((columns for columns in range(root, 2 * root + 1) if count % columns == 0), root)


def _lettered(canvas: np.ndarray, labels: Sequence[str], row_height: int, title: str | None) -> np.ndarray:
    """The canvas with a margin for the labels and a band for the title, as wide as they need."""
    if not labels and title is None:
        return canvas
    font = ImageFont.load_default(14)
    left = max((int(font.getlength(label)) + 12 for label in labels), default=0)
    top = 0 if title is None else 24
    width = max(left + canvas.shape[1], 0 if title is None else int(font.getlength(title)) + 12)
    picture = Image.new("RGB", (width, top + canvas.shape[0]), "white")
    picture.paste(Image.fromarray(canvas), (left, top))
    draw = ImageDraw.Draw(picture)
    for row, label in enumerate(labels):
        draw.text((left - 6, top + (row + 0.5) * row_height), label, "black", font, anchor="rm")
    if title is not None:
        draw.text((width / 2, top / 2), title, "black", font, anchor="mm")
    return np.array(picture)


def save(path: str | Path, image: Any) -> None:
    """A PNG of one image or sheet, [height, width] or [height, width, channels], gray if 1; all of it or nothing."""
    image = np.asarray(image)
    picture = _tiles(image[None])[0]
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"pictures are saved as PNG: the name must end in .png, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = BytesIO()
    Image.fromarray(picture[..., 0] if image.ndim == 2 or image.shape[-1] == 1 else picture).save(stored, "PNG")
    write(path, stored.getvalue())
