"""Pictures to look at: many images on one sheet, with labels, as a PNG."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxdiff.base.files import write


def to_uint8(images: Any) -> Any:
    """0..255 for floats in [-1, 1], clipped; uint8 stays. NaN is black. Of numpy as well as of JAX."""
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind in "biuOUSMmc":
        raise ValueError(f"images must be uint8, or floats in [-1, 1], got {images.dtype}")
    xp, floats = images.__array_namespace__(), images.astype(np.float32)
    return xp.rint(127.5 * (xp.clip(xp.where(xp.isnan(floats), -1, floats), -1, 1) + 1)).astype(np.uint8)


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


def laid_out(x: Any, texts: list[str] | None) -> np.ndarray:
    """Samples as a picture: the texts take turns, and each has a row; a square, if there is one image of each."""
    x = np.asarray(x)
    each = [texts[i % len(texts)] for i in range(len(x))] if texts else []
    rows = {text: [i for i, other in enumerate(each) if other == text] for text in each}
    if len(rows) < 2 or max(map(len, rows.values())) < 2:
        return sheet(x)
    return sheet_of_rows([[x[i] for i in row] for row in rows.values()], list(rows))


def sheet_of_rows(rows: Sequence[Sequence[np.ndarray]], labels: list[str] | None) -> np.ndarray:
    """Rows of any length, filled up with white."""
    columns, tile = max(map(len, rows)), rows[0][0]
    white = np.full_like(tile, 255 if tile.dtype == np.uint8 else 1)
    filled = [each for row in rows for each in (*row, *[white] * (columns - len(row)))]
    return sheet(np.stack(filled), columns=columns, labels=labels)
