"""Sources, the cache and batches, on data made here. Shared data sets are used where $JAXDIFF_TEST_DATA has them."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxdiff.base import files
from jaxdiff.data import Arrays, Batches, Digits, Examples, Folder, Hub, Source, Tfds, cache, folder, records
from jaxdiff.data.folder import shapes_in
from jaxdiff.data.labels import renumbered

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("JAXDIFF_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files decoded so far."""
    names, original = [], folder._Files._image
    monkeypatch.setattr(folder._Files, "_image", lambda self, name: (names.append(name), original(self, name))[1])
    return names


def level(value, height=12, width=12, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(file, form)
    return file.getvalue()


def fill(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


CLASSES = {
    "cat/1.png": level(10),
    "cat/deeper/2.JPG": level(20),  # a PNG all the same
    "ant/3.bmp": level(30, 20, 40, "BMP"),
    "ant/bad.jpg": b"no image",
    "ant/.hidden.png": b"",
    ".git/x.png": b"",
    "ant/notes.txt": b"text",
}


@pytest.fixture
def classes(tmp_path):
    return fill(tmp_path / "classes", CLASSES)


def levels(examples):
    """Of images that are flat: their gray levels."""
    images = examples.images[np.arange(len(examples))]
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits():
    digits = Digits().open()
    assert digits.images.shape == (1797, 8, 8, 1)
    assert digits.images.dtype == np.uint8
    np.testing.assert_array_equal(digits.labels[:12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    zero = np.array([[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]])  # as scikit-learn prints it
    np.testing.assert_array_equal(digits.images[0, :2, :, 0], np.round(zero * 255 / 16))
    assert digits.images.max() == 255
    np.testing.assert_array_equal(np.bincount(digits.labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_digits_of_other_sizes_and_parts():
    train, test = Digits(28, "train").open(), Digits(28, "test").open()
    assert (len(train), len(test)) == (1500, 297)
    assert train.images.shape == (1500, 28, 28, 1)
    small, large = Digits().open().images, Digits(16).open().images
    means = large.reshape(1797, 8, 2, 8, 2, 1).mean((2, 4))
    assert np.abs(means - small).mean() < 12


# --- arrays -----------------------------------------------------------------------------------------------------------

PIXELS = np.random.RandomState(0).randint(256, size=(7, 6, 5, 3)).astype(np.uint8)
LABELS = np.arange(7) % 3


@pytest.mark.parametrize("keys", [("images", "labels"), ("arr_0", "arr_1"), ("x_train", "y_train")])
def test_arrays_of_an_npz(tmp_path, keys):
    np.savez(tmp_path / "a.npz", **dict(zip(keys, (PIXELS, LABELS[:, None]), strict=True)))
    examples = Arrays(tmp_path / "a.npz").open()
    np.testing.assert_array_equal(examples.images, PIXELS)
    np.testing.assert_array_equal(examples.labels, LABELS)
    assert examples.labels.dtype == np.int32


def test_arrays_by_name_and_without_labels(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=PIXELS[:2], y_train=LABELS[:2], x_test=PIXELS, y_test=LABELS)
    examples = Arrays(tmp_path / "a.npz", "x_test", "y_test").open()
    np.testing.assert_array_equal(examples.images, PIXELS)
    np.testing.assert_array_equal(examples.labels, LABELS)
    np.savez(tmp_path / "b.npz", PIXELS)
    assert Arrays(tmp_path / "b.npz").open().labels is None


def test_arrays_of_an_npy_are_mapped(tmp_path):
    np.save(tmp_path / "gray.npy", PIXELS[..., 0])
    images = Arrays(tmp_path / "gray.npy").open().images
    assert isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, PIXELS[..., :1])
    np.save(tmp_path / "labels.npy", LABELS)
    np.testing.assert_array_equal(Arrays(tmp_path / "gray.npy").open().labels, LABELS)


@pytest.mark.parametrize(
    "numbers",
    [PIXELS / 255, (PIXELS / 255).astype(np.float32), PIXELS / np.float32(127.5) - 1, PIXELS.astype(np.int64)],
)
def test_arrays_of_other_numbers(tmp_path, numbers):
    np.save(tmp_path / "a.npy", numbers)
    np.testing.assert_array_equal(Arrays(tmp_path / "a.npy").open().images, PIXELS)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": PIXELS[0, 0]}, r"must be \[n, height, width\] .* got \(5, 3\)"),
        ({"images": np.moveaxis(PIXELS, -1, 1)}, "channels must be last"),
        ({"images": PIXELS[:0]}, "got .0, 6"),
        ({"images": PIXELS.astype(float)}, r"floats must be in \[0, 1\] or \[-1, 1\], got 0 to 255"),
        ({"images": np.full((2, 4, 4), np.nan)}, "floats must be in"),
        ({"images": PIXELS.astype(int) * 2}, "whole numbers must be in 0..255, got 0 to 510"),
        ({"images": PIXELS.astype(complex)}, "got complex128"),
        ({"images": PIXELS, "labels": LABELS[:3]}, "labels must be 7 whole numbers from 0 up"),
        ({"images": PIXELS, "labels": -LABELS}, "labels must be 7 whole numbers from 0 up"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels must be 7 whole numbers from 0 up"),
        ({"pictures": PIXELS}, "has no 'images', only pictures"),
        ({"images": np.array([[["a"]]], object)}, "[Oo]bject"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=says) as caught:
        Arrays(tmp_path / "a.npz").open()
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_damaged_arrays_are_refused(tmp_path):
    for name, data in (("a.npz", b"PK\3\4 no"), ("a.npy", b"text"), ("b.npy", b"\x93NUMPY\1\0v\0{"), ("c.npy", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            Arrays(tmp_path / name).open()
    with pytest.raises(ValueError, match="is not there"):
        Arrays(tmp_path / "none.npy").open()


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False, "auto"])
def test_folder_of_classes(classes, kept):
    for _ in range(2):  # decoded, then remembered
        examples = Folder(classes, 16).open(kept)
        assert examples.images.shape == (3, 16, 16, 3)
        assert examples.classes == ("ant", "cat")
        assert examples.labels.tolist() == [0, 1, 1]
        assert levels(examples) == [30, 10, 20]
        assert examples.unreadable == (("ant/bad.jpg", "not an image of a known format"),)
        assert isinstance(examples.images, records.Decoded if kept is False else np.memmap)


def test_folder_sizes_and_channels(classes):
    assert Folder(classes, (10, 20), channels=1).open().images.shape == (3, 10, 20, 1)


def test_images_outside_of_class_folders_mean_no_labels(classes):
    fill(Path(classes), {"top.png": level(99)})
    examples = Folder(classes).open()
    assert examples.labels is None
    assert examples.classes is None
    assert levels(examples) == [30, 10, 20, 99]
    with pytest.raises(ValueError, match=r"outside of the folders that name classes, top.png"):
        Folder(classes, labels="folders").open()


def test_folder_with_a_table(classes, tmp_path):
    table = 'file,label,caption\ncat/1.png,wild,a cat\nant/bad.jpg,wild,nothing\nant/3.bmp,tame,"an ant, small"\n'
    fill(Path(classes), {"labels.csv": ("\ufeff" + table).encode()})
    examples = Folder(classes).open()
    assert levels(examples) == [10, 30]
    assert examples.classes == ("tame", "wild")
    assert examples.labels.tolist() == [1, 0]
    assert examples.captions == ("a cat", "an ant, small")
    fill(tmp_path, {"other.csv": b"file,label\nant/3.bmp,10\ncat/1.png,2\n"})
    examples = Folder(classes, labels=str(tmp_path / "other.csv")).open()
    assert levels(examples) == [30, 10]
    assert examples.labels.tolist() == [10, 2]
    assert examples.classes == tuple(map(str, range(11)))


def test_folder_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name, data in CLASSES.items():
            archive.writestr(f"all/train/{name}", data)
        archive.writestr("__MACOSX/x.png", b"")
    for kept in (True, False):
        examples = Folder(tmp_path / "images.zip" / "all" / "train", 16).open(kept)
        assert levels(examples) == [30, 10, 20]
        assert examples.classes == ("ant", "cat")
        assert len(examples.unreadable) == 1


def test_a_lone_folder_in_a_folder_or_a_zip_is_looked_into(tmp_path):
    inside = {name.replace("/", "_"): data for name, data in CLASSES.items()}
    inside["captions.csv"] = b"file,caption\ncat_1.png,a cat\nant_3.bmp,an ant\n"
    fill(tmp_path / "all" / "my_images", inside)
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "all")
    for path in (tmp_path / "all", tmp_path / "all.zip"):
        assert Folder(path, 16).open().captions == ("a cat", "an ant")
    with zipfile.ZipFile(tmp_path / "classes.zip", "w") as archive:
        for name, data in CLASSES.items():
            archive.writestr(f"my_images/{name}", data)
    assert Folder(tmp_path / "classes.zip", 16).open().classes == ("ant", "cat")


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    examples = Folder(fill(tmp_path / "images", {f"{i}/a.png": level(i) for i in range(12)}), 16).open()
    assert examples.classes == tuple(map(str, range(12)))
    np.testing.assert_array_equal(examples.images[:, 0, 0, 0], examples.labels)


def test_a_folder_that_cannot_be_listed_is_said(classes, monkeypatch):
    def walk(root, onerror, **_):
        onerror(PermissionError(13, "Permission denied", f"{root}/cat"))

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(ValueError, match=r"cat cannot be listed \(Permission denied\)"):
        Folder(classes).open()


def test_heic_is_listed_as_what_it_is(classes):
    heic = b"\0\0\0\x18ftypheic" + bytes(100)
    for name in ("IMG_0.HEIC", "cat/IMG_1.HEIC", "ant/IMG_2.jpg", "alone/IMG_3.heic"):
        Path(classes, name).parent.mkdir(exist_ok=True)
        Path(classes, name).write_bytes(heic)
    examples = Folder(classes).open()
    said = dict(examples.unreadable)
    assert examples.classes == ("ant", "cat")
    assert said["ant/IMG_2.jpg"] == "HEIC: save it as JPEG"
    assert all(said[name] == "not read: save it as JPEG" for name in ("IMG_0.HEIC", "cat/IMG_1.HEIC"))
    with pytest.raises(ValueError, match=r"no image files, .*IMG_3.heic must be saved as JPEG"):
        Folder(Path(classes, "alone")).open()


def test_what_can_be_read_again_is(classes, monkeypatch):
    real = folder._Directory.read

    def away(self, name):
        if name == "cat/1.png":
            raise OSError(5, "Input/output error")
        return real(self, name)

    for size, cached in ((16, True), (24, False)):
        with monkeypatch.context() as patched:
            patched.setattr(folder._Directory, "read", away)
            assert len(Folder(classes, size).open(cached)) == 2
        assert len(Folder(classes, size).open(cached)) == 3


def test_links_that_go_round(classes):
    Path(classes, "cat", "up").symlink_to(classes)
    Path(classes, "cat", "nothing.png").symlink_to("gone")
    examples = Folder(classes).open()
    assert levels(examples) == [30, 10, 20]
    assert "cat/nothing.png" in dict(examples.unreadable)


@pytest.mark.parametrize(
    ("files", "options", "says"),
    [
        ({"notes.txt": b""}, {}, "no image files, such as .jpg or .png, among its 1 file$"),
        ({"photos.zip": b""}, {}, "no image files, .* among its 1 file: .*images/photos.zip may be meant"),
        ({"a.png": b""}, {}, "no file that can be read, a.png: the file is empty"),
        ({"train/a.png": level(0), "val/b.png": level(0)}, {}, "images holds train and val: name one, .*images/train"),
        (
            {"of/train/c/a.png": level(0), "of/val/c/b.png": level(0)},
            {},
            "images/of holds .*name one, .*images/of/train",
        ),
        ({"a.png": level(0), "Train/b.png": level(0), "test/c.png": level(0)}, {}, "holds Train and test: name one"),
        ({"extra/a.png": level(0), "train/b.png": level(0), "val/c.png": level(0)}, {}, "holds train and val"),
        ({"of/train/c/a.png": level(0), "of/train/d/b.png": level(0)}, {}, "images/of holds train: name one"),
        (CLASSES, {"strict": True}, "1 file that cannot be read, ant/bad.jpg: not an image"),
        ({"a.png": level(0), "labels.csv": b"name,label\na.png,1\n"}, {}, "needs a first row that says file,label"),
        ({"a.png": level(0), "labels.csv": b"file,label\nb.png,1\n"}, {}, "1 file not there, 'b.png'"),
        ({"a.png": level(0), "labels.csv": b"file,label\na.png,\n"}, {}, "gives no label to 'a.png'"),
        ({"a.png": level(0), "labels.csv": b"file,label\na.png,99999999\n"}, {}, "below 65536"),
        ({"a.png": level(0), "labels.csv": b"file,label\na.png,\xff\n"}, {}, "not a table in UTF-8"),
        ({"a.png": level(0), "labels.csv": b""}, {}, "needs a first row"),
        ({"a.png": level(0)}, {"labels": "none.csv"}, "none.csv is not there"),
    ],
)
def test_bad_folders_are_refused(tmp_path, files, options, says):
    with pytest.raises(ValueError, match=says):
        Folder(fill(tmp_path / "images", files), **options).open()


def test_a_zip_with_both_splits_is_refused_and_one_of_them_taken(tmp_path):
    files = {f"of/{split}/{name}/{i}.png": level(9) for split in ("train", "val") for name in "ab" for i in range(2)}
    shutil.make_archive(str(tmp_path / "images"), "zip", fill(tmp_path / "images", files))
    path = tmp_path / "images.zip"
    with pytest.raises(ValueError, match=f"{path}/of holds train and val: name one, {path}/of/train, or say"):
        Folder(path, 16).open(False)
    assert len(Folder(path / "of" / "train", 16).open(False)) == 4
    assert len(Folder(path, 16, labels="none").open(False)) == 8


@pytest.mark.parametrize("names", [("test", "cat"), ("cat", "dog/test", "dog/train")])
def test_a_class_may_be_called_as_a_split_is(tmp_path, names):
    files = {f"{name}/a.png": level(9) for name in names}
    assert len(Folder(fill(tmp_path / "images", files), 16).open().classes) == 2


def test_missing_folders_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    (tmp_path / "a.txt").write_bytes(b"")
    for name, says in (("none", "is not there"), ("a.txt", "neither a folder nor a .zip"), ("a.zip", "is damaged")):
        with pytest.raises(ValueError, match=says):
            Folder(tmp_path / name).open()


def test_a_file_that_goes_bad_is_named(classes):
    examples = Folder(classes).open(cache=False)
    Path(classes, "cat", "1.png").unlink()
    assert examples.images[np.array([0, 2])].shape == (2, 128, 128, 3)
    with pytest.raises(ValueError, match=r"cat/1.png could be read when it was first looked at"):
        examples.images[np.array([0, 1])]


def test_of_shapes_a_file_that_goes_bad_is_named_too(classes):
    Path(classes, "empty.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty.png cannot be read: the file is empty"):
        shapes_in(str(classes))


def test_labels_of_other_numbers_are_known_by_name():
    labels, cats = np.array([0, 1, 1], np.int32), ("cat", "dog")
    known = ("airplane", "cat", "dog")
    assert renumbered(labels, cats, known, "it").tolist() == [1, 2, 2]
    assert renumbered(labels, ("0", "10", "2"), known, "it").tolist() == [0, 10, 10]  # names of folders, as text
    assert renumbered(labels, ("Cat", "dog "), known, "it").tolist() == [1, 2, 2]
    assert renumbered(labels, ("3", "7"), tuple("0123456789"), "it").tolist() == [3, 7, 7]
    assert renumbered(labels, ("n01", "n02", "n03"), known, "it").tolist() == [0, 1, 1]  # other words for the same
    for unnamed in ((), ("0", "1", "2")):
        assert renumbered(labels, cats, unnamed, "it").tolist() == [0, 1, 1]
    assert renumbered(labels, None, known, "it").tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="it knows no class ship, but airplane, cat, dog: name the classes alike"):
        renumbered(labels, ("cat", "ship"), known, "it")
    assert renumbered(labels * 0, ("cat", "ship"), known, "it").tolist() == [1, 1, 1]  # of which there is none


@pytest.mark.skipif(not (DATA / "odd_images").exists(), reason="no shared odd images")
def test_shared_odd_images_as_a_folder():
    examples = Folder(DATA / "odd_images", 64).open()
    assert examples.images.shape == (39, 64, 64, 3)
    bad = {"golf_ball/text.jpg", "golf_ball/truncated.jpg", "golf_ball/zero_bytes.jpg"}
    assert {name for name, _ in examples.unreadable} == bad


# --- the cache --------------------------------------------------------------------------------------------------------


def test_decoded_once(classes, decoded, cache_folder):
    for _ in range(3):
        levels(Folder(classes, 16).open())
    assert len(decoded) == 4
    Folder(classes, 16).open(cache=False)
    assert len(decoded) == 4, "the cache knows which can be read"
    (entry,) = (path for path in cache_folder.iterdir() if path.is_dir())
    assert sorted(path.name for path in entry.iterdir()) == ["about.json", "images.npy", "numbers.npy"]


def test_without_pixels_the_readable_are_remembered(classes, decoded):
    for _ in range(3):
        examples = Folder(classes, 16).open(cache=False)
    assert len(decoded) == 4
    assert len(examples) == 3
    assert levels(examples) == [30, 10, 20]
    Folder(classes, 16).open(cache=True)
    assert len(decoded) == 4 + 3 + 4


def test_all_that_pixels_depend_on_is_in_the_key(classes, decoded):
    changed = Path(classes, "cat", "1.png")
    opened = [Folder(classes, 16).open(), Folder(classes, 24).open(), Folder(classes, 16, channels=1).open()]
    changed.write_bytes(level(77))
    os.utime(changed, ns=(0, 0))
    opened.append(Folder(classes, 16).open())
    changed.rename(changed.with_name("9.png"))
    opened.append(Folder(classes, 16).open())
    assert len(decoded) == 4 * len(opened)
    assert [levels(examples)[1] for examples in opened] == [10, 10, 10, 77, 77]


def test_automatic_caching_leaves_room_on_the_disk(classes, monkeypatch):
    need = 4 * 16 * 16 * 3
    for free, kind in ((4 * need, np.memmap), (4 * need - 1, records.Decoded)):
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert isinstance(Folder(classes, 16).open().images, kind)
        monkeypatch.setattr(cache, "_VERSION", 3)  # forget the first


def test_a_killed_write_is_not_taken_for_a_cache(classes, decoded, monkeypatch, cache_folder):
    expected = levels(Folder(classes, 16).open())
    (entry,) = (path for path in cache_folder.iterdir() if path.is_dir())
    left = entry.with_name(f".{entry.name}.{'0' * 16}.part")
    entry.rename(left)  # as if killed before it was moved
    assert levels(Folder(classes, 16).open()) == expected
    assert len(decoded) == 8
    assert not left.exists()
    with open(entry / "images.npy", "r+b") as file:
        file.truncate(500)
    assert levels(Folder(classes, 16).open()) == expected
    assert len(decoded) == 12
    (entry / "about.json").unlink()
    assert levels(Folder(classes, 16).open()) == expected
    assert len(decoded) == 16


def test_what_another_user_left_and_holds_is_no_reason_to_fail(classes, decoded, monkeypatch, cache_folder):
    expected = levels(Folder(classes, 16).open())
    (entry,) = (path for path in cache_folder.iterdir() if path.is_dir())
    left = entry.with_name(f".{entry.name}.{'0' * 16}.part")
    entry.rename(left)
    usual, unlinked = open, shutil.rmtree

    def refused(path, mode="r", **options):
        if str(path).endswith(".lock") and mode != "r":
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, mode, **options)

    def kept(path, ignore_errors):
        return None if path == left else unlinked(path, ignore_errors)

    monkeypatch.setattr("builtins.open", refused)
    monkeypatch.setattr(shutil, "rmtree", kept)
    assert levels(Folder(classes, 16).open()) == expected
    assert (entry / "images.npy").exists()
    assert left.exists()
    assert levels(Folder(classes, 16).open()) == expected
    assert len(decoded) == 8


def test_names_are_of_files_and_of_no_place(classes, tmp_path):
    same = shutil.copytree(classes, tmp_path / "elsewhere")
    assert Folder(classes, 16).open().names == Folder(same, 8).open().names
    pixels = np.random.default_rng(0).integers(256, size=(200, 4, 4, 1)).astype(np.uint8)
    for name, rows in (("here", pixels), ("there", pixels), ("other", pixels[::-1])):
        np.save(tmp_path / f"{name}.npy", rows)
    here, there, other = (Arrays(tmp_path / f"{name}.npy").open().names for name in ("here", "there", "other"))
    assert here == there != other


def test_an_interrupted_write_leaves_nothing(classes, monkeypatch, cache_folder):
    def interrupted(records):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(cache, "survey", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Folder(classes, 16).open()
    assert [path for path in cache_folder.iterdir() if path.suffix != ".lock"] == []


def test_decoding_lets_go_of_the_images(classes):
    names = ["cat/1.png"] * 300
    files = folder._Files(folder._Directory(Path(classes)), names, (300, 16, 16, 3))
    seen = []
    found = cache._collect(files, lambda chunk: seen.append(weakref.ref(chunk.images)))
    assert len(found[0]) == 300
    assert len(seen) > 3
    assert [image for image in seen if image() is not None] == []


def test_two_at_once_decode_once(classes, decoded):
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: Folder(classes, 16).open(), range(4)))
    assert [levels(examples) for examples in opened] == [[30, 10, 20]] * 4
    assert len(decoded) == 4


def test_a_cache_that_cannot_be_written(classes, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot write to the cache, .*: images are decoded anew"):
        examples = Folder(classes, 16).open()
    assert levels(examples) == [30, 10, 20]
    assert len(examples.unreadable) == 1
    with pytest.raises(ValueError, match=r"cannot write to the cache, .*: set JAXDIFF_CACHE"):
        Folder(classes, 16).open(cache=True)


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert files.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("JAXDIFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "jaxdiff"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "jaxdiff"
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-at-all").expanduser())  # as of a user who is not known
    with pytest.raises(ValueError, match="no home folder to keep a cache in: set JAXDIFF_CACHE"):
        files.cache_folder()
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))
    assert files.cache_folder() == tmp_path / "cache"


def test_decoded_images_take_any_rows(classes):
    images = Folder(classes, 16).open(cache=False).images
    rows = np.array([2, 2, 0, 1, 0])
    assert images[rows][:, 0, 0, 0].tolist() == [20, 20, 30, 10, 30]
    assert images[rows[:0]].shape == (0, 16, 16, 3)


# --- batches ----------------------------------------------------------------------------------------------------------


def numbered(count, **options):
    return Batches({"number": np.arange(count)}, **options)


@pytest.mark.parametrize(("count", "size"), [(10, 4), (12, 4), (7, 7), (3, 8), (1, 5), (1000, 64)])
def test_every_example_once_an_epoch(count, size):
    batches = numbered(count, size=size, seed=3)
    seen = np.concatenate([batches[step]["number"] for step in range(-(-4 * count // size))])[: 4 * count]
    epochs = seen.reshape(4, count)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(count), (4, 1)))
    if count >= 7:
        assert len({tuple(epoch) for epoch in epochs}) == 4, "each epoch has its own order"
    assert batches.steps_per_epoch == count / size
    assert batches.epoch(6) == 6 * size / count


def test_batches_are_a_function_of_seed_and_step():
    first, second = numbered(100, size=8, seed=5), numbered(100, size=8, seed=5)
    later = second[31]["number"]
    for step in (0, 31, 12):
        np.testing.assert_array_equal(first[step]["number"], second[step]["number"])
    np.testing.assert_array_equal(first[31]["number"], later)
    assert (numbered(100, size=8, seed=6)[0]["number"] != first[0]["number"]).any()
    order = np.random.RandomState([5, 0]).permutation(100)  # numpy promises these for ever
    np.testing.assert_array_equal(first[3]["number"], order[24:32])


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_make_up_the_batch(parts):
    whole = numbered(50, size=8, seed=1)
    for step in (0, 6, 40):
        shares = [numbered(50, size=8, seed=1, part=part, parts=parts)[step] for part in range(parts)]
        for name, values in whole[step].items():
            np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), values)
    assert whole[0]["index"].dtype == np.uint32
    np.testing.assert_array_equal(whole[0]["index"], np.arange(8))


def test_rows_of_all_fields_belong_together(classes, tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    batches = Batches({"image": mapped, "label": LABELS, "number": list(range(7))}, 3, 0)
    batch = batches[4]
    np.testing.assert_array_equal(batch["image"], PIXELS[batch["number"]])
    np.testing.assert_array_equal(batch["label"], LABELS[batch["number"]])
    assert type(batch["image"]) is np.ndarray
    batch["image"][:] = 0  # a copy
    images = Folder(classes, 16).open(cache=False).images
    batch = Batches({"image": images, "level": np.array([30, 10, 20])}, 4, 0)[1]
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["level"])


@pytest.mark.parametrize(
    ("start", "stop", "stride"), [(0, 9, 1), (3, 20, 1), (0, 8, 4), (5, 16, 4), (4, 4, 1), (7, 3, 2)]
)
def test_ahead_gives_the_same_batches(start, stop, stride):
    batches = numbered(30, size=4, seed=2)
    items = list(batches.ahead(start, stop, stride))
    assert len(items) == len(range(start, stop, stride))
    for first, item in zip(range(start, stop, stride), items, strict=True):
        steps = range(first, min(first + stride, stop))
        for name, values in item.items():
            expected = np.stack([batches[step][name] for step in steps])
            np.testing.assert_array_equal(values, expected[0] if stride == 1 else expected)


class Failing:
    """Rows that cannot be had from the third time on."""

    def __init__(self):
        self.asked, self.wait = 0, threading.Event()

    def __len__(self):
        return 4

    def __getitem__(self, rows):
        self.asked += 1
        if self.asked > 2:
            raise ValueError("the disk is gone")
        return rows


def test_errors_of_workers_are_seen():
    batches = Batches({"number": Failing()}, 4)
    with pytest.raises(ValueError, match="the disk is gone"):
        list(batches.ahead(0, 100, threads=1))


def test_ahead_stops_when_let_go():
    asked = []

    class Slow(Failing):
        def __getitem__(self, rows):
            asked.append(len(rows))
            time.sleep(0.01)
            return rows

    before = threading.active_count()
    iterator = Batches({"number": Slow()}, 4).ahead(0, 10**9)
    next(iterator)
    assert threading.active_count() > before
    iterator.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert len(asked) < 20, "no more than the buffer"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Batches({}, 4), "at least one example"),
        (lambda: Batches({"a": []}, 4), "at least one example"),
        (lambda: Batches({"a": [1, 2], "b": [1]}, 4), "one entry for each"),
        (lambda: Batches({"index": [1]}, 4), "no field may be called index"),
        (lambda: numbered(5, size=0), "size must be a whole number, at least 1"),
        (lambda: numbered(5, size=2.0), "size must be a whole number"),
        (lambda: numbered(5, size=4, parts=3), "size must be divisible by the 3 parts, got 4"),
        (lambda: numbered(5, size=4, part=2, parts=2), "part must be below the 2 parts, got 2"),
        (lambda: numbered(5, size=4, seed=-1), "seed must be a whole number"),
        (lambda: numbered(5, size=4, seed=2**32), "below 2.32"),
        (lambda: numbered(5, size=4)[-1], "a step must be a whole number, at least 0"),
        (lambda: numbered(5, size=4)[1.5], "a step must be a whole number"),
        (lambda: numbered(5, size=4).ahead(-1, 3), "start must be at least 0"),
        (lambda: numbered(5, size=4).ahead(0, 3, 0), "stride must be at least 1"),
        (lambda: Examples(PIXELS, labels=LABELS[:2]), "labels for each of 7 images, got 2"),
        (lambda: Digits(4), "size must be a whole number of pixels from 8 to 256, got 4"),
        (lambda: Digits(split="val"), "split must be one of train, test, all, got 'val'"),
        (lambda: Arrays("a.txt"), "must end in .npy or .npz"),
        (lambda: Folder("a", 0), "size must be a whole number of pixels from 1 to 4096"),
        (lambda: Folder("a", None), "size must be a whole number of pixels from 1 to 4096"),
        (lambda: Folder("a", (1, 2, 3)), "or .height, width."),
        (lambda: Folder("a", channels=2), "channels must be 1"),
        (lambda: Folder("a", labels="yes"), 'labels must be "auto"'),
        (lambda: Folder(".").open(cache="maybe"), 'True, False or "auto"'),
        (lambda: Tfds(""), "name must be that of a data set"),
        (lambda: Tfds("mnist", channels=4), "channels must be 1"),
        (lambda: Tfds("mnist", size=-2), "size must be a whole number"),
    ],
)
def test_bad_values_are_refused(call, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(level(0))
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("source", [Digits(), Tfds("mnist"), Hub("a/b"), Folder("a"), Arrays("a.npy")])
def test_sources_are_values(source):
    assert isinstance(source, Source)
    assert hash(source) == hash(type(source)(**vars(source)))


# --- TensorFlow Datasets ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with three small data sets in TFDS's form, written without TensorFlow: an image is given as a file."""
    import tensorflow_datasets as tfds

    place = tmp_path_factory.mktemp("tfds")
    for number, size in enumerate([(12, 12), (20, 30), (16, 16)]):
        (place / f"{number}.png").write_bytes(level(50 * number + 50, *size))
    (place / "3.png").write_bytes(b"no image")

    def write(title, features, examples):
        class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            name = title
            VERSION = tfds.core.Version("1.0.0")
            MODULE_DOC_PATH = None

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(), "test": self._generate_examples()}

            def _generate_examples(self):
                yield from enumerate(examples)

        Written(data_dir=str(place), file_format="array_record").download_and_prepare()

    image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["no", "yes"])
    examples = [
        {"image": str(place / f"{i}.png"), "label": label} for i, label in enumerate(["yes", "no", "yes", "no"])
    ]
    write("of_many_sizes", {"image": image, "label": label}, examples)
    square = {"picture": tfds.features.Image(shape=(12, 12, 1))}
    write("without_labels", square, [{"picture": str(place / "0.png")}] * 3)
    write("of_numbers", {"number": np.int64}, [{"number": 1}])
    return place


@pytest.fixture
def tfds_folder(written, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(written))
    return written


@pytest.mark.parametrize("kept", [True, False])
def test_tfds(tfds_folder, kept):
    for _ in range(2):
        examples = Tfds("of_many_sizes", size=16).open(kept)
        assert examples.images.shape == (3, 16, 16, 3)
        assert examples.classes == ("no", "yes")
        assert examples.labels.dtype == np.int32
        assert sorted(zip(levels(examples), examples.labels.tolist(), strict=True)) == [(50, 1), (100, 0), (150, 1)]
        ((name, reason),) = examples.unreadable
        assert name.startswith("of_many_sizes/1.0.0 train, record ")
        assert reason == "not an image of a known format"
    whole = Tfds("without_labels:1.0.0", "train", (8, 24), channels=3).open(kept)
    part = Tfds("without_labels:1.0.0", "test[1:]", (8, 24), channels=3).open(kept)
    assert (whole.images.shape, part.images.shape) == ((3, 8, 24, 3), (2, 8, 24, 3))


def test_tfds_without_labels(tfds_folder):
    examples = Tfds("without_labels").open()
    assert examples.images.shape == (3, 12, 12, 1)
    assert levels(examples) == [50, 50, 50]
    assert examples.labels is None
    assert examples.classes is None


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Tfds("of_many_sizes"), "many sizes: needs a size, such as size=64"),
        (Tfds("of_numbers"), "not a data set of images: it has number"),
        (Tfds("of_many_sizes", "val", 8), "of_many_sizes has train, test, and parts of these, not 'val'"),
        (Tfds("of_many_sizes", "train[4:]", 8), "of_many_sizes"),
        (Tfds("of_many_sizes:9.0.0", size=8), "nor .* has of_many_sizes:9.0.0"),
        (Tfds("mnist:9.0.0"), "cannot open mnist:9.0.0: "),
        (Tfds("cifar1"), "has cifar1, did you mean cifar10 or"),
        (Tfds("qqqqqqqq"), "has qqqqqqqq: see https://www.tensorflow.org"),
        (Tfds("no/such/thing"), "no/such/thing"),
        (Tfds("ag_news_subset"), "not a data set of images"),
    ],
)
def test_bad_tfds_are_refused(tfds_folder, source, says):
    with pytest.raises(ValueError, match=says) as caught:
        source.open()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is here, and would download")
def test_preparing_says_what_to_install(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(ValueError, match=r"svhn_cropped is not in .* could not be prepared: .* pip install tensorflow"):
        Tfds("svhn_cropped").open()
    assert "preparing svhn_cropped" in capfd.readouterr().err
    assert not (tmp_path / "tfds").exists()


def test_what_was_prepared_in_another_form(tmp_path, tfds_folder, monkeypatch):
    import shutil

    shutil.copytree(tfds_folder / "without_labels", tmp_path / "without_labels")
    about = tmp_path / "without_labels" / "1.0.0" / "dataset_info.json"
    about.write_text(about.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="holds tfrecord, which cannot be read in any order: set TFDS_DATA_DIR"):
        Tfds("without_labels").open()


def test_preparing_in_a_child(tmp_path, monkeypatch, capfd):
    """What the child does is done by a stand-in: it needs a network and TensorFlow."""
    from jaxdiff.data import tfds

    asked = []
    for status, said, says in ((1, "noise\nno network\n", "prepared: no network"), (-9, "", "ended with status -9")):
        result = SimpleNamespace(returncode=status, stdout=said)
        run = lambda command, result=result, **_: (asked.append(command), result)[1]  # noqa: E731
        monkeypatch.setattr(tfds.subprocess, "run", run)
        with pytest.raises(ValueError, match=says):
            tfds._prepare("mnist", tmp_path)
    assert asked[0][-1] == "mnist"


def test_files_to_be_fetched_by_hand(tmp_path, monkeypatch):
    """As those of ImageNet: nobody should look for a fault of the network."""
    from jaxdiff.data import prepare

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(prepare, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match=r"in there \(its files are fetched by hand: .*_train") as caught:
        prepare.prepare("imagenet2012")
    assert str(tmp_path / "downloads" / "manual") in str(caught.value)
    assert "network" not in str(caught.value)


@pytest.mark.skipif(not (DATA / "tfds" / "mnist").exists(), reason="no shared MNIST")
def test_shared_mnist(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(DATA / "tfds"))
    examples = Tfds("mnist", "test[:2000]").open()
    assert examples.images.shape == (2000, 28, 28, 1)
    assert examples.images[:].mean() == pytest.approx(33.8, abs=0.5)
    assert examples.classes == tuple("0123456789")
    assert np.bincount(examples.labels, minlength=10).min() > 150


LEAN = """
import sys
import jaxdiff.data
assert not {"jax", "grain", "tensorflow_datasets", "datasets"} & set(sys.modules), "slow to import"
assert jaxdiff.data.Tfds("of_many_sizes", size=8).open().images.shape == (3, 8, 8, 3)
batches = jaxdiff.data.Batches({"image": jaxdiff.data.Digits().open().images}, 8)
assert len(list(batches.ahead(0, 5))) == 5
assert not {"tensorflow", "torch", "sklearn", "cv2"} & set(sys.modules)
"""


def test_tensorflow_never_enters(tfds_folder):
    subprocess.run([sys.executable, "-W", "error", "-c", LEAN], cwd=ROOT, check=True)
