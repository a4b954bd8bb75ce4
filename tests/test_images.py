"""Reading odd files, fitting, and pictures. Shared odd images are used where $JAXDIFF_TEST_DATA has them."""

import contextlib
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdiff.base import pictures
from jaxdiff.data import images

DATA = Path(os.environ.get("JAXDIFF_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

RAMP = np.linspace(0, 255, 20 * 30).astype(np.uint8).reshape(20, 30)  # gray, rising along rows
COLOUR = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 100)], -1)


def written(image, form="PNG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def png(samples, colour_type):
    """A 16-bit PNG, which Pillow cannot write in colour."""
    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def with_alpha(colour):
    """The right half opaque, the left wholly transparent."""
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[:, 15:] = 255
    return np.concatenate([colour, alpha], -1)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP"])
def test_lossless_files_are_read_exactly(form):
    options = {"lossless": True} if form == "WEBP" else {}
    np.testing.assert_array_equal(images.decode(written(COLOUR, form, **options)), COLOUR)


def test_gray_and_colour():
    np.testing.assert_array_equal(images.decode(written(RAMP)), np.repeat(RAMP[..., None], 3, -1))
    np.testing.assert_array_equal(images.decode(written(RAMP), channels=1), RAMP[..., None])
    luma = COLOUR @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(images.decode(written(COLOUR), channels=1)[..., 0], luma, atol=1)
    one_bit = images.decode(written(Image.fromarray(RAMP > 100)), channels=1)
    np.testing.assert_array_equal(one_bit[..., 0], np.where(RAMP > 100, 255, 0))


def test_sixteen_bits_become_eight():
    wide = RAMP.astype(np.uint16) * 257
    for data in (png(wide, 0), written(wide, "TIFF"), written(wide.astype(np.int32), "TIFF"), written(wide, "PPM")):
        np.testing.assert_array_equal(images.decode(data, channels=1)[..., 0], RAMP)
        np.testing.assert_array_equal(images.decode(data)[..., 2], RAMP)
    np.testing.assert_array_equal(images.decode(png(COLOUR.astype(np.uint16) * 257, 2)), COLOUR)


def test_jpeg_and_cmyk():
    smooth = np.stack([RAMP, RAMP, RAMP], -1)
    for image, channels in ((smooth, 3), (RAMP, 1), (Image.fromarray(smooth).convert("CMYK"), 3)):
        read = images.decode(written(image, "JPEG", quality=95), channels)
        assert np.abs(read.astype(int) - smooth[..., :channels]).mean() < 3


def test_transparency_is_white():
    palette = Image.fromarray(COLOUR).quantize(8)
    palette.putpixel((0, 0), 7)
    for data, where in (
        (written(with_alpha(COLOUR)), np.s_[:, :15]),
        (written(Image.fromarray(with_alpha(RAMP[..., None]))), np.s_[:, :15]),
        (written(palette, transparency=7), np.s_[:1, :1]),
        (written(palette, "GIF", transparency=7), np.s_[:1, :1]),
        (written(RAMP, transparency=0), np.s_[:1, :1]),
    ):
        for channels in (1, 3):
            assert (images.decode(data, channels)[where] == 255).all()
    np.testing.assert_array_equal(images.decode(written(with_alpha(COLOUR)))[:, 15:], COLOUR[:, 15:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    turn = images._UPRIGHT.get(orientation)
    quarter, back = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270  # the others undo themselves
    undo = {quarter: back, back: quarter}.get(turn, turn)
    stored = Image.fromarray(COLOUR) if turn is None else Image.fromarray(COLOUR).transpose(undo)
    assert stored.size == ((30, 20) if orientation < 5 else (20, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "TIFF"):
        data = written(stored, form, exif=exif)
        np.testing.assert_array_equal(images.decode(data), COLOUR)
        assert images.shape_of(data) == COLOUR.shape


def test_orientation_six_is_turned_clockwise():
    exif = Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(images.decode(written(RAMP, exif=exif), 1)[..., 0], np.rot90(RAMP, -1))


def test_damaged_exif_and_later_frames_are_passed_over():
    assert images.decode(written(COLOUR, "JPEG", exif=b"Exif\0\0nonsense")).shape == (20, 30, 3)
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 200)]
    data = written(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert (images.decode(data) == 10).all()


def test_a_large_jpeg_is_decoded_smaller():
    large = np.kron(COLOUR, np.ones((40, 40, 1), np.uint8))
    data = written(large, "JPEG", quality=95)
    small = images.decode(data, size=(40, 50))
    assert 2 * 50 <= small.shape[1] < large.shape[1]
    whole = images.fit(images.decode(data), 40, 50)
    np.testing.assert_allclose(images.fit(small, 40, 50).astype(float), whole, atol=8)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"this is a text", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image of a known format"),
        (written(COLOUR, "JPEG")[:300], "Truncated"),
        (written(COLOUR)[:-40], "truncated"),
        (written(COLOUR)[:20], "[a-z]"),
        (written(RAMP.astype(np.float32) / 255, "TIFF"), "no agreed range"),
    ],
)
def test_damaged_files_are_refused(data, says):
    with pytest.raises(ValueError, match=says):
        images.decode(data)


def test_any_damage_is_a_value_error():
    rng = np.random.RandomState(0)
    for form in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"):
        whole = np.frombuffer(written(COLOUR, form), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[rng.randint(len(whole), size=4)] = rng.randint(256, size=4)
            with contextlib.suppress(ValueError):
                assert images.decode(damaged.tobytes()).dtype == np.uint8


def test_decompression_bombs_are_refused(monkeypatch):
    for limit in (100, 400):  # Pillow raises from twice the limit on, and warns before
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=f"more than {limit} pixels"):
            images.decode(written(COLOUR))


def test_read_takes_paths_and_files(tmp_path):
    path = tmp_path / "image.jpg"  # but a PNG
    path.write_bytes(written(COLOUR))
    for file in (path, str(path), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(images.read(file), COLOUR)
    with pytest.raises(FileNotFoundError):
        images.read(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"channels must be 1 .*, got 4"):
        images.read(path, channels=4)


@pytest.mark.skipif(not (DATA / "odd_images.json").exists(), reason="no shared odd images")
def test_shared_odd_images():
    for name, said in json.loads((DATA / "odd_images.json").read_text()).items():
        if not said["ok"]:
            with pytest.raises(ValueError, match=r"empty|truncated|not an image"):
                images.read(DATA / "odd_images" / name)
            continue
        image = images.read(DATA / "odd_images" / name)
        height, width = said.get("upright_height", said["height"]), said.get("upright_width", said["width"])
        assert image.shape == (height, width, 3), name
        assert image.std() > 5, name  # not all white
        assert images.fit(image, 64, 48).shape == (64, 48, 3)
    turned = images.read(DATA / "odd_images/parachute/exif_rotated.jpg")
    assert turned[5, -5, 0] > 150 > turned[5, -5, 1], "the red block is at the top right"


# --- fit --------------------------------------------------------------------------------------------------------------


def test_fit_cuts_about_the_centre():
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 4:12] = 200
    assert (images.fit(image, 8, 8) == 200).all()
    assert (images.fit(image.swapaxes(0, 1), 8, 8) == 200).all()
    np.testing.assert_array_equal(images.fit(image, 8, 16), image)


@pytest.mark.parametrize("shape", [(10, 10), (5, 40), (40, 5), (1, 1), (64, 30)])
def test_fit_covers(shape):
    for channels in (1, 3):
        flat = np.full((20, 30, channels), 77, np.uint8)
        fitted = images.fit(flat, *shape)
        assert fitted.shape == (*shape, channels)
        assert (fitted == 77).all()


def test_fit_does_not_alias():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    np.testing.assert_allclose(images.fit(board, 16, 16), 127.5, atol=3)


@pytest.mark.parametrize(
    ("image", "size", "says"),
    [
        (COLOUR.astype(float), (8, 8), "must be uint8"),
        (RAMP, (8, 8), "height, width, channels"),
        (COLOUR[..., :2], (8, 8), "channels must be 1"),
        (COLOUR, (0, 8), "at least 1"),
        (COLOUR[:0], (8, 8), "must be uint8"),
    ],
)
def test_fit_refuses(image, size, says):
    with pytest.raises(ValueError, match=says):
        images.fit(image, *size)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_to_uint8():
    odd = np.array([-2, -1, 0, 1, 7, np.nan, np.inf])
    np.testing.assert_array_equal(pictures.to_uint8(odd), [0, 0, 128, 255, 255, 0, 255])
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(pictures.to_uint8(levels / np.float32(127.5) - 1), levels)
    assert pictures.to_uint8(levels) is levels
    with pytest.raises(ValueError, match="uint8, or floats"):
        pictures.to_uint8(levels.astype(int))


def test_sheet_places_images():
    tiles = np.stack([np.full((4, 6, 1), level, np.uint8) for level in (10, 20, 30)])
    picture = pictures.sheet(tiles, columns=2, pad=1, scale=3)
    assert picture.shape == (2 * (12 + 1) + 1, 2 * (18 + 1) + 1, 3)
    assert (picture[1:13, 1:19] == 10).all()
    assert (picture[1:13, 20:38] == 20).all()
    assert (picture[14:26, 1:19] == 30).all()
    picture[1:13, 1:19] = picture[1:13, 20:38] = picture[14:26, 1:19] = 255
    assert (picture == 255).all(), "the rest is white"


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (7, 7 // 2), (10, 5), (16, 4), (12, 4), (100, 10)])
def test_sheet_chooses_columns_and_scale(count, columns):
    assert pictures.sheet(np.zeros((count, 28, 28)), pad=0).shape[1] == 2 * 28 * columns


def test_sheet_of_any_channels():
    floats = np.random.RandomState(0).uniform(-1, 1, (3, 70, 70, 5)).astype(np.float32)
    shown = [pictures.sheet(floats[..., :c], columns=3, pad=0) for c in (1, 2, 3, 4, 5)]
    assert all(picture.shape == (70, 210, 3) for picture in shown)
    np.testing.assert_array_equal(shown[2], shown[4])
    np.testing.assert_array_equal(shown[2][:, 70:140], pictures.to_uint8(floats[1, ..., :3]))
    np.testing.assert_array_equal(shown[0], pictures.sheet(floats[..., 0], columns=3, pad=0))
    np.testing.assert_allclose(shown[1][:, :70, 0], pictures.to_uint8(floats[0, ..., :2]).mean(-1), atol=1)


def test_sheet_letters():
    tiles = np.zeros((4, 64, 64, 3), np.uint8)
    bare = pictures.sheet(tiles, columns=2)
    labelled = pictures.sheet(tiles, columns=2, labels=["DDIM", "a longer label"], title="Samples")
    top, left = labelled.shape[0] - bare.shape[0], labelled.shape[1] - bare.shape[1]
    assert top > 10
    assert left > 50
    np.testing.assert_array_equal(labelled[top:, left:], bare)
    assert (labelled[top : top + 66, :left] < 100).any()
    assert (labelled[:top] < 100).any()
    assert pictures.sheet(tiles[:1], title="a title wider than its one image").shape[1] > 150


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pictures.sheet(np.zeros((2, 8))), "must be .n, height, width"),
        (lambda: pictures.sheet([]), "must be .n, height, width"),
        (lambda: pictures.sheet([np.zeros((8, 8)), np.zeros((8, 9))]), "one shape"),
        (lambda: pictures.sheet(np.zeros((2, 8, 8)), columns=0), "columns >= 1"),
        (lambda: pictures.sheet(np.zeros((2, 8, 8)), columns=1, labels=["one"]), "each of the 2 rows, got 1"),
        (lambda: pictures.sheet(np.zeros((2, 8, 8), int)), "uint8, or floats"),
        (lambda: pictures.save("picture.jpg", np.zeros((8, 8))), "must end in .png"),
    ],
)
def test_bad_pictures_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_save_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "new" / "picture.png"
    pictures.save(path, COLOUR)
    np.testing.assert_array_equal(images.read(path), COLOUR)

    def failing(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(OSError, match="disk full"):
        pictures.save(path, RAMP)
    np.testing.assert_array_equal(images.read(path), COLOUR)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
