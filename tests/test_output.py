"""Sampled images as they come: read back, interrupted everywhere, on full disks, in bounded memory."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from jaxdiff.base.files import locked
from jaxdiff.cli.output import Npz, Output, Singles, gif
from jaxdiff.data import images
from jaxdiff.data.folder import Folder

SHAPE = (4, 5, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, *SHAPE), np.uint8)
LABELS = np.arange(10) % 3
ABOUT = {"run": "runs/mnist", "seed": {"of": 0, "first": 1}, "labels": (0, 1, 2)}


def npz(folder, about=ABOUT, count=10, shape=SHAPE, labelled=True) -> Output:
    return Npz(folder / "images.npz", count, shape, labelled, about)


def singles(folder, about=ABOUT, numbers=range(10)) -> Output:
    return Singles(folder / "images", numbers, about)


BOTH = pytest.mark.parametrize("opened", [npz, singles])


def draw(out, upto=10, size=4):
    for start in range(out.done, upto, size):
        rows = slice(start, min(start + size, upto))
        out.write(IMAGES[rows], LABELS[rows])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def whole(tmp_path, opened):
    """What an uninterrupted call leaves."""
    out = opened(tmp_path / "whole")
    draw(out)
    out.finish()
    return contents(tmp_path / "whole")


# --- read back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_npz_is_read_by_numpy_and_by_zipfile(tmp_path, labelled, channels):
    pixels = IMAGES[..., :channels]
    out = npz(tmp_path / "new", shape=pixels.shape[1:], labelled=labelled)
    for start in (0, 4, 8):
        out.write(pixels[start : start + 4], LABELS[start : start + 4].astype(np.int32) if labelled else None)
        assert list((tmp_path / "new").glob("*.npz")) == []
    out.finish()
    path = tmp_path / "new" / "images.npz"
    assert list(path.parent.iterdir()) == [path]
    expected = {"arr_0": pixels, "arr_1": LABELS} if labelled else {"arr_0": pixels}
    with np.load(path) as loaded:
        assert loaded.files == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}  # the same bytes at any time
        with archive.open("arr_0.npy") as entry:  # as a reader of batches does
            assert np.lib.format.read_magic(entry) == (1, 0)
            assert np.lib.format.read_array_header_1_0(entry) == (pixels.shape, False, np.uint8)
            np.testing.assert_array_equal(np.frombuffer(entry.read(), np.uint8), pixels.ravel())


def test_an_npz_may_be_larger_than_a_plain_zip(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 500)  # 2 GiB otherwise
        out = npz(tmp_path)
        draw(out)
        out.finish()
    with np.load(tmp_path / "images.npz") as loaded:
        np.testing.assert_array_equal(loaded["arr_0"], IMAGES)


@pytest.mark.parametrize("channels", [1, 3])
def test_singles_are_a_folder_of_images_with_labels(tmp_path, channels):
    numbers, pixels = [7, 3, 1_000_000, *range(100, 107)], IMAGES[..., :channels]
    out = singles(tmp_path, numbers=numbers)
    out.write(pixels[:6], LABELS[:6])
    np.testing.assert_array_equal(out.read(0, 6), pixels[:6])
    out.write(pixels[6:], LABELS[6:])
    out.finish()
    folder = tmp_path / "images"
    assert {path.name for path in folder.iterdir()} == {f"{n:06d}.png" for n in numbers} | {"about.json", "labels.csv"}
    for number, image in zip(numbers, pixels, strict=True):
        with Image.open(folder / f"{number:06d}.png") as file:
            assert file.mode == ("L" if channels == 1 else "RGB")
        np.testing.assert_array_equal(images.read(folder / f"{number:06d}.png", channels), image)
    examples = Folder(folder, SHAPE[:2], channels).open(cache=False)
    in_order = np.argsort([f"{number:06d}.png" for number in numbers])
    np.testing.assert_array_equal(examples.images[:], pixels[in_order])
    np.testing.assert_array_equal(examples.labels, LABELS[in_order])


def test_singles_without_labels(tmp_path):
    out = singles(tmp_path)
    out.write(IMAGES)
    out.finish()
    assert not (tmp_path / "images" / "labels.csv").exists()


@BOTH
def test_what_is_written_can_be_read(tmp_path, opened):
    out = opened(tmp_path)
    draw(out, 7)
    for start, stop in ((0, 7), (3, 5), (6, 7)):
        np.testing.assert_array_equal(out.read(start, stop), IMAGES[start:stop])
    for rows in ((0, 8), (-1, 3), (3, 3), (4, 3)):
        with pytest.raises(ValueError, match=r"needs rows of the 7 images that are written, got \("):
            out.read(*rows)


# --- interrupted ------------------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """Passes by what catches exceptions."""


class Doom:
    """Kills before or after one of the calls by which files are made sure of, moved and removed."""

    def __init__(self, patch, after, error=KilledError):
        self.calls, self.fatal, self.after, self.error = 0, None, after, error
        patch.setattr(os, "fsync", partial(self.call, lambda descriptor: None))  # it would take most of the time
        patch.setattr(os, "replace", partial(self.call, os.replace))
        patch.setattr(shutil, "rmtree", partial(self.call, shutil.rmtree))
        patch.setattr(shutil, "copyfileobj", partial(self.call, shutil.copyfileobj))

    def call(self, function, *arguments, **options):
        self.calls += 1
        if self.calls - 1 == self.fatal and not self.after:
            raise self.error
        function(*arguments, **options)
        if self.calls - 1 == self.fatal:
            raise self.error


@BOTH
@pytest.mark.parametrize("after", [False, True])
def test_interrupted_anywhere_it_goes_on(tmp_path, opened, whole, after, monkeypatch):
    def attempt(folder):
        out = opened(folder)
        if out.done:
            np.testing.assert_array_equal(out.read(0, out.done), IMAGES[: out.done])
        draw(out)
        out.finish()
        return out

    with monkeypatch.context() as patch:
        doom = Doom(patch, after)
        attempt(tmp_path / "all")
        calls = doom.calls
        assert calls > 15
        for fatal in range(calls):
            doom.calls, doom.fatal = 0, fatal
            with pytest.raises(KilledError):
                attempt(tmp_path / str(fatal))
    for fatal in range(calls):
        folder = tmp_path / str(fatal)
        if (folder / "images.npz").exists():  # all but the part's removal
            assert fatal >= calls - 2
            with pytest.raises(ValueError, match=r"images\.npz exists already: name another, or remove it"):
                attempt(folder)
            shutil.rmtree(folder / "images.npz.part", ignore_errors=True)
        else:
            attempt(folder)
        assert contents(folder) == whole


@BOTH
def test_a_killed_process_is_gone_on_with(tmp_path, opened, whole):
    script = f"""if True:
        import pathlib, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import test_output
        out = test_output.{opened.__name__}(pathlib.Path(sys.argv[1]))
        while True:
            test_output.draw(out, out.done + 1)
            print(out.done, flush=True)
            out.done %= 9  # begins again, and is killed while it writes
    """
    folder = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, cwd=os.getcwd()) as child:
        for _ in range(15):
            assert child.stdout.readline()
        child.kill()
    assert child.returncode == -9
    out = opened(folder)
    assert out.done >= 1
    draw(out)
    out.finish()
    assert contents(folder) == whole


@BOTH
def test_it_belongs_to_one_process(tmp_path, opened):
    out = opened(tmp_path)
    draw(out, 4)
    with pytest.raises(ValueError, match=f"is being written by process {os.getpid()}: wait for it, or name another"):
        opened(tmp_path)
    out.close()
    assert opened(tmp_path).done == 4


def test_another_may_finish_first(tmp_path, monkeypatch):
    path = tmp_path / "images.npz"

    def meanwhile(folder):
        path.write_text("another's")
        return 10**12

    with monkeypatch.context() as patch:
        patch.setattr("jaxdiff.base.files.free_bytes", meanwhile)  # asked for before the folder is held
        with pytest.raises(ValueError, match="exists already"):
            npz(tmp_path)
    path.unlink()
    draw(out := npz(tmp_path))
    meanwhile(tmp_path)
    with pytest.raises(ValueError, match="exists already"):
        out.finish()
    shutil.rmtree(tmp_path / "images.npz.part")
    with pytest.raises(ValueError, match="exists already"):
        npz(tmp_path)
    assert contents(tmp_path) == {"images.npz": b"another's"}


@BOTH
def test_another_may_begin_first(tmp_path, opened, monkeypatch):
    def meanwhile(folder, *rest):
        (folder / "about.json").write_text('{"run": "runs/other"}')
        return locked(folder, *rest)

    monkeypatch.setattr("jaxdiff.base.files.locked", meanwhile)
    with pytest.raises(ValueError, match=r'about other images .*run was "runs/other"'):
        opened(tmp_path)


def test_finished_singles_stay_and_more_may_come(tmp_path):
    draw(first := singles(tmp_path))
    first.finish()
    before = contents(tmp_path)
    again = singles(tmp_path)
    assert again.done == 10
    again.finish()
    assert contents(tmp_path) == before
    more = singles(tmp_path, numbers=range(8, 12))
    assert more.done == 2
    more.write(IMAGES[:2], LABELS[:2])
    more.finish()
    assert (tmp_path / "images" / "labels.csv").read_text().splitlines()[-3:] == [
        "000009.png,0",
        "000010.png,0",
        "000011.png,1",
    ]
    assert contents(tmp_path).items() > {k: v for k, v in before.items() if "labels" not in k}.items()


def test_a_missing_single_is_drawn_again(tmp_path):
    draw(first := singles(tmp_path))
    first.finish()
    before = contents(tmp_path)
    (tmp_path / "images" / "000005.png").unlink()
    for name in (f".{file}.{16 * '3'}.part" for file in ("000005.png", "labels.csv", "about.json")):
        (tmp_path / "images" / name).write_text("of a process that was killed")
    again = singles(tmp_path)
    assert again.done == 5
    draw(again)
    again.finish()
    assert contents(tmp_path) == before


# --- disks and memory -------------------------------------------------------------------------------------------------


def test_a_small_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    free = 2 * (10 * 64 * 64 * 3 + 80 + 2 * 128) + 2**20  # two headers
    monkeypatch.setattr("jaxdiff.base.files.free_bytes", lambda folder: free)
    larger = partial(npz, tmp_path / "new", shape=(64, 64, 3))
    with pytest.raises(
        ValueError, match=r"new has 1\.3 MB of space left, images.npz needs 1\.5 MB until .*: make room"
    ):
        larger(count=20)
    assert list(tmp_path.iterdir()) == []
    out = larger()
    out.write(np.zeros((5, 64, 64, 3), np.uint8), LABELS[:5])
    out.close()
    free -= 5 * 64 * 64 * 3 + 40 + 2 * 128
    larger().close()  # that much is there
    free -= 1
    with pytest.raises(ValueError, match="make room"):
        larger()


@BOTH
def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path, opened, whole, monkeypatch):
    with monkeypatch.context() as patch:
        doom = Doom(patch, False, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        out = opened(tmp_path / "full")
        draw(out, 4)
        doom.fatal = doom.calls + 2
        with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\): the [45] images .*kept"):
            draw(out)
        out.close()
    assert not any("npz.part/." in name or "images/." in name for name in contents(tmp_path / "full"))
    out = opened(tmp_path / "full")
    draw(out)
    out.finish()
    assert contents(tmp_path / "full") == whole


@pytest.mark.parametrize("opened", [npz])
@pytest.mark.parametrize(("limit", "kept"), [(500, 4), (800, 10)])
def test_files_that_cannot_grow(tmp_path, opened, whole, limit, kept):
    """The real thing: some of the images are written, then no more; or too little of the .npz file."""
    script = f"""if True:
        import pathlib, resource, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import test_output
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        out = test_output.npz(pathlib.Path(sys.argv[1]))
        try:
            test_output.draw(out)
            out.finish()
        except ValueError as error:
            sys.exit(str(error))
    """
    folder = tmp_path / "full"
    child = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    part = folder / "images.npz.part"
    reason = f"{part} cannot be written (File too large): the {kept} images that are finished are kept; "
    assert child.stderr == f"{reason}make room, and start the same again\n"
    assert not (part / "whole.npz").exists()
    out = opened(folder)
    assert out.done == kept
    draw(out)
    out.finish()
    assert contents(folder) == whole


def test_memory_is_that_of_a_batch(tmp_path):
    batch = np.random.default_rng(1).integers(0, 256, (40, 128, 128, 3), np.uint8)  # of 2 MB
    tracemalloc.start()
    try:
        out = npz(tmp_path, count=4000, shape=batch.shape[1:], labelled=False)
        for _ in range(100):
            out.write(batch)
        np.testing.assert_array_equal(out.read(3990, 4000), batch[-10:])
        out.finish()
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    assert (tmp_path / "images.npz").stat().st_size > 100 * batch.nbytes


# --- refused ----------------------------------------------------------------------------------------------------------


@BOTH
def test_another_about_is_refused(tmp_path, opened):
    out = opened(tmp_path)
    draw(out, 4)
    out.close()
    before = contents(tmp_path)
    other = {"run": "runs/" + 100 * "x", "seed": {"first": 1, "of": 0}, "steps": 18, "labels": [0, 1, 2]}
    with pytest.raises(
        ValueError, match=r"about other images \(run was \"runs/mnist\", is \"runs/x{51}\.\.\., "
    ) as info:
        opened(tmp_path, about=other)
    (folder,) = tmp_path.iterdir()
    assert str(info.value).endswith(f"steps was nothing, is 18): name another, or remove {folder} to start over")
    assert "seed" not in str(info.value)
    assert contents(tmp_path) == before
    assert opened(tmp_path).done == 4


@pytest.mark.parametrize("change", [{"count": 11}, {"shape": (5, 4, 3)}, {"labelled": False}])
def test_an_npz_of_another_form_is_refused(tmp_path, change):
    with contextlib.closing(npz(tmp_path)) as begun:
        draw(begun, upto=2)
    with pytest.raises(ValueError, match=r"about other images \(arr_[01] was .*remove .*images.npz.part to start over"):
        npz(tmp_path, **change)


@BOTH
def test_folders_of_others_are_not_touched(tmp_path, opened):
    for name in ("images", "images.npz.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000001.png").write_text("a cat")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="is not empty, and nothing there says what it is about: name another"):
        opened(tmp_path)
    assert contents(tmp_path) == before


@BOTH
def test_what_a_system_hides_in_a_folder_is_no_image(tmp_path, opened):
    for name in ("images", "images.npz.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".DS_Store").write_text("")
    assert opened(tmp_path).done == 0


@BOTH
def test_what_never_began_is_in_nobody_s_way(tmp_path, opened):
    opened(tmp_path, about={"run": "another"}).close()
    assert contents(tmp_path) == {}
    draw(opened(tmp_path))


@BOTH
@pytest.mark.parametrize("junk", [b"", b"{", b"3", b"[1]", b"\xff"])
def test_a_damaged_about(tmp_path, opened, junk):
    with contextlib.closing(opened(tmp_path)) as begun:
        draw(begun, upto=2)
    (folder,) = tmp_path.iterdir()
    (folder / "about.json").write_bytes(junk)
    with pytest.raises(ValueError, match=r"about\.json is damaged: name another, or remove .* to start over"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda part: (part / "done").write_bytes(b"many"),
        lambda part: (part / "done").write_bytes(b"11"),
        lambda part: (part / "arr_1.npy").unlink(),
        lambda part: os.truncate(part / "arr_0.npy", 300),
    ],
)
def test_a_damaged_part(tmp_path, spoil):
    draw(out := npz(tmp_path), 4)
    out.close()
    spoil(tmp_path / "images.npz.part")
    with pytest.raises(ValueError, match=r"images\.npz\.part is damaged: remove it to start over"):
        npz(tmp_path)


@BOTH
def test_places_that_cannot_be_written(tmp_path, opened):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written \(Not a directory\): name another"):
        opened(tmp_path / "file")
    for name in ("images", "images.npz.part"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"cannot be written \(File exists\): name another"):
        opened(tmp_path)


@BOTH
def test_bad_batches_are_refused(tmp_path, opened):
    out = opened(tmp_path)
    for batch, labels, says in (
        (IMAGES / 255, LABELS, r"needs images of uint8 \[n, height, width, channels\], got 'float64 \(10, 4, 5, 3\)'"),
        (IMAGES[0], LABELS, "needs images of uint8"),
        (IMAGES[..., :2], LABELS, "needs images of"),
        (IMAGES, LABELS[:9], r"needs whole numbers as labels \[n\], got 'int64 \(9,\)'"),
        (IMAGES, LABELS / 2, "needs whole numbers as labels"),
        (np.concatenate([IMAGES, IMAGES[:1]]), None, "needs no more than the 10 images that are left, got 11"),
    ):
        with pytest.raises(ValueError, match=says):
            out.write(batch, labels)
    draw(out, 9)
    with pytest.raises(ValueError, match="needs all 10 images to finish, got 9"):
        out.finish()
    draw(out)
    out.finish()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: Npz(p / "images", 1, SHAPE, False, {}), r"needs a name that ends in \.npz, got '.*images'"),
        (lambda p: npz(p, count=0), "needs at least one image, got 0"),
        (lambda p: npz(p, shape=(4, 5)), r"needs the shape \(height, width, channels\) of an image, got \(4, 5\)"),
        (lambda p: npz(p, shape=(0, 5, 3)), "needs the shape"),
        (lambda p: npz(p).write(IMAGES), "needs labels if labelled, and only then, got 'NoneType'"),
        (lambda p: npz(p, labelled=False).write(IMAGES, LABELS), "needs labels if labelled, and only then"),
        (lambda p: npz(p).write(IMAGES[:, :3], LABELS), r"needs images of \(4, 5, 3\), got \(3, 5, 3\)"),
        (lambda p: singles(p, numbers=[]), "needs the number of one image or more, got 0"),
        (lambda p: singles(p, numbers=[3, -1]), "needs numbers from 0, got -1"),
        (lambda p: singles(p, numbers=[3, 4, 3]), "needs 3 numbers that differ, got 2"),
        (lambda p: singles(p).write(IMAGES[..., :2]), "needs images of 1 or 3 channels"),
        (lambda p: gif(p / "a.png", [IMAGES[0]]), r"needs a name that ends in \.gif"),
        (lambda p: gif(p / "a.gif", []), "needs at least one frame, got 0"),
        (lambda p: gif(p / "a.gif", [IMAGES[0], IMAGES[1, :3]]), r"needs frames of uint8 .*got 'uint8 \(3, 5, 3\)'"),
        (lambda p: gif(p / "a.gif", [IMAGES[0] / 255]), "needs frames of uint8"),
        (lambda p: gif(p / "a.gif", [IMAGES[0, ..., :1]]), "needs frames of uint8"),
        (lambda p: gif(p / "a.gif", [IMAGES[0]], 0.01), r"needs from 0\.02 to 10 seconds for a frame, got 0\.01"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, call, says):
    with pytest.raises(ValueError, match=says):
        call(tmp_path)
    assert not list(tmp_path.rglob("*.gif"))


# --- an animation -----------------------------------------------------------------------------------------------------


def shown(path):
    """Frames and their milliseconds."""
    with Image.open(path) as animation:
        assert animation.info["loop"] == 0  # without end
        frames, times = [], []
        for i in range(animation.n_frames):
            animation.seek(i)
            frames.append(np.asarray(animation.convert("RGB")))
            times.append(animation.info["duration"])
    return frames, times


def test_gray_frames_are_exact(tmp_path):
    frames = list(np.random.default_rng(2).integers(0, 256, (5, 30, 40, 1), np.uint8).repeat(3, -1))
    gif(tmp_path / "new" / "gray.gif", frames, seconds=0.25)
    got, times = shown(tmp_path / "new" / "gray.gif")
    np.testing.assert_array_equal(got, frames)
    assert times == [250, 250, 250, 250, 2250]


def test_grays_among_colours_stay_gray(tmp_path):
    rng = np.random.default_rng(3)
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32, 1).repeat(3, -1)
    tinted = ramp + rng.integers(0, 3, ramp.shape, np.uint8) * (ramp < 250)  # colours that are nearer than the grays
    bright = np.stack(np.broadcast_arrays(ramp[..., 0], 255 - ramp[..., 0], np.uint8(200)), -1)
    frames = [np.concatenate([ramp, tinted, one]) for one in (bright, bright[::-1], bright[:, ::-1])]
    gif(tmp_path / "colours.gif", frames)
    got, times = shown(tmp_path / "colours.gif")
    assert times == [100, 100, 2100]
    for frame, expected in zip(got, frames, strict=True):
        error = np.abs(frame.astype(int) - expected)
        assert np.ptp(frame[:8], axis=-1).max() == 0
        assert error[:8].max() <= 2
        assert error[16:].mean() < 4


def test_colours_are_near(tmp_path):
    noise = np.random.default_rng(4).integers(0, 256, (64, 64, 3), np.uint8)  # of which no palette has all
    gif(tmp_path / "noise.gif", [noise])
    assert np.abs(shown(tmp_path / "noise.gif")[0][0].astype(int) - noise).mean() < 11


def test_frames_may_be_alike(tmp_path):
    gif(tmp_path / "still.gif", [IMAGES[0]])
    assert shown(tmp_path / "still.gif")[0][0].shape == SHAPE
    gif(tmp_path / "alike.gif", [IMAGES[0], IMAGES[0], IMAGES[1]])
    _, times = shown(tmp_path / "alike.gif")
    assert sum(times) == 2300


def test_a_gif_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "images.gif"
    gif(path, [IMAGES[0], IMAGES[1]])
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        Doom(patch, False, OSError("disk full")).fatal = 0
        with pytest.raises(OSError, match="disk full"):
            gif(path, [IMAGES[2], IMAGES[3]])
    assert contents(tmp_path) == before
