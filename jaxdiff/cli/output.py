"""Where sampled images go, as they come: a file for evaluators, a folder of pictures, an animation.

What an interrupted process wrote is kept, and the same output opened again goes on after it. Images are uint8.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from jaxdiff.base import files, pictures
from jaxdiff.base.checks import require
from jaxdiff.data import images

_ABOUT, _DONE, _LABELS = "about.json", "done", "labels.csv"


class Output(Protocol):
    """Takes images in their order. It belongs to one process, until that finishes, closes or ends."""

    done: int  # images that are written, by earlier processes too

    def write(self, batch: np.ndarray, labels: np.ndarray | None = None) -> None:
        """The next images, [n, height, width, channels], and their labels [n] if there are any."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Images `start` to `stop` - 1 of those written; not after `finish`."""

    def finish(self) -> None:
        """To be called when all are written."""

    def close(self) -> None:
        """Leaves it as it is, for another to go on with."""


# --- a file -----------------------------------------------------------------------------------------------------------


class Npz:
    """An .npz file as evaluators read it: `arr_0` are the images, [n, height, width, channels], `arr_1` int64 labels.

    Until it is finished all is in a folder beside it, `path`.part. `about` says what is drawn and how, in plain JSON:
    only what is about the same is gone on with.
    """

    def __init__(self, path: Path, count: int, shape: tuple[int, int, int], labelled: bool, about: dict[str, Any]):
        require(path.suffix.lower() == ".npz", "a name that ends in .npz", str(path))
        require(count >= 1, "at least one image", count)
        require(len(shape) == 3 and min(shape) >= 1, "the shape (height, width, channels) of an image", shape)
        self._path, self._part = path, path.with_name(f"{path.name}.part")
        self._count, self._shape, self._labelled = count, tuple(shape), labelled
        self._arrays = [_Rows(self._part / "arr_0.npy", (count, *shape), "u1")]
        self._arrays += [_Rows(self._part / "arr_1.npy", (count,), "<i8")] if labelled else []
        self._whole, self._about = self._part / "whole.npz", _fingerprint(about, count)
        self._check_absent()
        self._check_space()
        with contextlib.ExitStack() as hold:
            hold.enter_context(_held(self._part, about | {"arr_0": [count, *shape], "arr_1": labelled}))
            self._check_absent()  # whoever held the folder until now may have finished
            self.done = self._counted()
            self._hold = hold.pop_all()

    def write(self, batch: np.ndarray, labels: np.ndarray | None = None) -> None:
        _check_batch(batch, labels, self._count - self.done)
        require(batch.shape[1:] == self._shape, f"images of {self._shape}", batch.shape[1:])
        require((labels is not None) == self._labelled, "labels if labelled, and only then", type(labels).__name__)
        with _kept(self, self._part):
            for array, rows in zip(self._arrays, [batch] if labels is None else [batch, labels], strict=True):
                array.write(self.done, rows)
            files.write(self._part / _DONE, str(self.done + len(batch)))  # not before these are on the disk
        self.done += len(batch)

    def read(self, start: int, stop: int) -> np.ndarray:
        _check_rows(start, stop, self.done)
        return self._arrays[0].read(start, stop)

    def finish(self) -> None:
        _check_all(self.done, self._count)
        self._check_absent()
        with _kept(self, self._part):
            self._zip()
            os.replace(self._whole, self._path)
        self.close()  # first: some file systems keep a folder whose lock is open
        shutil.rmtree(self._part, ignore_errors=True)

    def close(self) -> None:
        self._hold.close()
        if not self.done:  # nothing that another call should mind
            shutil.rmtree(self._part, ignore_errors=True)

    def _zip(self) -> None:
        try:
            self._whole.unlink(missing_ok=True)
            with open(self._whole, "xb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    archive.comment = self._about
                    for array in self._arrays:
                        entry = zipfile.ZipInfo(array.path.name)  # of no date: the same images, the same bytes
                        with open(array.path, "rb") as rows, archive.open(entry, "w", force_zip64=True) as copy:
                            shutil.copyfileobj(rows, copy, 2**20)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._whole.unlink(missing_ok=True)  # to leave room on a full disk
            raise

    def _counted(self) -> int:
        counter = self._part / _DONE
        if not counter.exists():
            return 0
        text = counter.read_bytes()
        done = int(text) if text.isdigit() else self._count + 1
        if not all(array.holds(done) for array in self._arrays):
            raise ValueError(f"{self._part} is damaged: remove it to start over")
        return done

    def _check_absent(self) -> None:
        if self._path.exists():
            raise ValueError(f"{self._path} exists already: name another, or remove it")

    def _check_space(self) -> None:
        """For all images twice: at the end they are copied into the file."""
        paths = (*(array.path for array in self._arrays), self._whole)
        there = sum(path.stat().st_size for path in paths if path.exists())
        need = 2 * sum(array.end(self._count) for array in self._arrays) + 2**20 - there
        free = files.free_bytes(self._part)
        if free < need:
            left = f"{self._path.parent} has {free / 1e6:.1f} MB of space left"
            raise ValueError(f"{left}, {self._path.name} needs {need / 1e6:.1f} MB until it is finished: make room")


def is_finished(path: Path, count: int, about: dict[str, Any]) -> bool:
    """Whether the file has these images; a ValueError if it is another."""
    if not path.exists():
        return False
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        if archive.comment == _fingerprint(about, count):
            return True
    raise ValueError(f"{path} exists already, with something else in it: name another, or remove it")


def _fingerprint(about: dict[str, Any], count: int) -> bytes:
    return hashlib.sha256(_as_json({**about, "count": count}).encode()).hexdigest().encode()


class _Rows:
    """An .npy file of a known shape, written from its first row on."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self._row, self._dtype = path, shape[1:], np.dtype(dtype)
        self._header = files.npy_header(self._dtype.str, shape)

    def end(self, rows: int) -> int:
        """Bytes of the header and so many rows."""
        return len(self._header) + rows * int(np.prod(self._row)) * self._dtype.itemsize

    def holds(self, rows: int) -> bool:
        own = self.path.is_file() and not self.path.is_symlink()  # a link would be written through
        return own and self.path.stat().st_size >= self.end(rows)

    def write(self, start: int, rows: np.ndarray) -> None:
        if start == 0:
            self.path.unlink(missing_ok=True)
        with open(self.path, "r+b" if start else "xb", opener=files.unlinked) as file:
            if start == 0:
                file.write(self._header)
            file.seek(self.end(start))  # over what was written and not counted
            file.write(np.ascontiguousarray(rows, self._dtype).data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, start: int, stop: int) -> np.ndarray:
        size = (stop - start) * int(np.prod(self._row))
        return np.fromfile(self.path, self._dtype, size, offset=self.end(start)).reshape(stop - start, *self._row)


# --- a folder ---------------------------------------------------------------------------------------------------------


class Singles:
    """A folder of PNGs, each named by its image's number. Labels are in labels.csv, as `data.Folder` reads them.

    `about` says what is drawn and how, in plain JSON, and stays there in about.json.
    """

    def __init__(self, folder: Path, numbers: Sequence[int], about: dict[str, Any]) -> None:
        require(len(numbers) >= 1, "the number of one image or more", len(numbers))
        require(min(numbers) >= 0, "numbers from 0", min(numbers))
        require(len(set(numbers)) == len(numbers), f"{len(numbers)} numbers that differ", len(set(numbers)))
        self._folder, self._names = folder, [f"{number:06d}.png" for number in numbers]
        with contextlib.ExitStack() as hold:
            hold.enter_context(_held(folder, about))
            there = set(os.listdir(folder))
            self._labels = self._known_labels() if _LABELS in there else {}
            self._write_labels()  # without a row that was cut off
            self.done = next((i for i, name in enumerate(self._names) if name not in there), len(self._names))
            self._hold = hold.pop_all()

    def write(self, batch: np.ndarray, labels: np.ndarray | None = None) -> None:
        _check_batch(batch, labels, len(self._names) - self.done)
        require(batch.shape[-1] in (1, 3), "images of 1 or 3 channels", batch.shape)
        names = self._names[self.done : self.done + len(batch)]
        with _kept(self, self._folder):
            if labels is not None:
                new = dict(zip(names, map(str, labels), strict=True))
                if not self._labels:
                    files.write(self._folder / _LABELS, "file,label\n")
                with open(self._folder / _LABELS, "a", encoding="utf-8", opener=files.unlinked) as file:
                    file.writelines(f"{name},{label}\n" for name, label in new.items())
                self._labels |= new
            for name, image in zip(names, batch, strict=True):
                pictures.save(self._folder / name, image)
                self.done += 1

    def read(self, start: int, stop: int) -> np.ndarray:
        _check_rows(start, stop, self.done)
        paths = [self._folder / name for name in self._names[start:stop]]
        with Image.open(paths[0]) as first:
            channels = 1 if first.mode == "L" else 3
        return np.stack([images.read(path, channels) for path in paths])

    def finish(self) -> None:
        _check_all(self.done, len(self._names))
        self._write_labels()
        self.close()  # first: Windows keeps a file that is open
        (self._folder / "lock").unlink(missing_ok=True)

    def close(self) -> None:
        self._hold.close()
        if not self.done:  # nothing that another call should mind
            for name in (_ABOUT, "lock"):
                (self._folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def _write_labels(self) -> None:
        if self._labels:
            rows = (f"{name},{label}\n" for name, label in sorted(self._labels.items()))
            files.write(self._folder / _LABELS, "".join(["file,label\n", *rows]))

    def _known_labels(self) -> dict[str, str]:
        rows = (self._folder / _LABELS).read_text(encoding="utf-8").splitlines()[1:]
        return {name: label for name, _, label in (row.partition(",") for row in rows)}


# --- both -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held(folder: Path, about: dict[str, Any]) -> Iterator[None]:
    """The folder is there, of this process alone, and about this."""
    _check_about(folder, about)  # before it is touched
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder, "written", "name another"):
            _check_about(folder, about)  # what came between
            if not (folder / _ABOUT).exists():
                files.write(folder / _ABOUT, json.dumps(about, indent=1) + "\n")
            yield
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}): name another") from None


def _check_about(folder: Path, about: dict[str, Any]) -> None:
    """Nothing there, or images about the same."""
    there = os.listdir(folder) if folder.is_dir() else []
    if _ABOUT not in there:
        if any(name != "lock" and not name.startswith(".") for name in there):
            raise ValueError(f"{folder} is not empty, and nothing there says what it is about: name another")
        return
    try:
        old = files.read_json(folder / _ABOUT)
    except ValueError:
        raise ValueError(f"{folder / _ABOUT} is damaged: name another, or remove {folder} to start over") from None
    was, now = ({name: _as_json(value) for name, value in each.items()} for each in (old, about))
    changed = sorted(name for name in was | now if was.get(name) != now.get(name))
    if changed:
        fields = ", ".join(
            f"{name} was {_short(was.get(name, 'nothing'))}, is {_short(now.get(name, 'nothing'))}" for name in changed
        )
        raise ValueError(f"{folder} is about other images ({fields}): name another, or remove {folder} to start over")


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextlib.contextmanager
def _kept(output: Output, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why, kept = error.strerror or error, f"the {output.done} images that are finished are kept"
        raise ValueError(f"{folder} cannot be written ({why}): {kept}; make room, and start the same again") from None


def _check_batch(batch: np.ndarray, labels: np.ndarray | None, left: int) -> None:
    got = f"{batch.dtype} {batch.shape}"
    require(batch.dtype == np.uint8 and batch.ndim == 4, "images of uint8 [n, height, width, channels]", got)
    require(len(batch) <= left, f"no more than the {left} images that are left", len(batch))
    if labels is not None:
        got = f"{labels.dtype} {labels.shape}"
        require(labels.dtype.kind in "iu" and labels.shape == batch.shape[:1], "whole numbers as labels [n]", got)


def _check_rows(start: int, stop: int, done: int) -> None:
    require(0 <= start < stop <= done, f"rows of the {done} images that are written", (start, stop))


def _check_all(done: int, count: int) -> None:
    require(done == count, f"all {count} images to finish", done)


# --- an animation -----------------------------------------------------------------------------------------------------

_LAST = 2.0  # more seconds for the last frame


def gif(path: Path, frames: Sequence[np.ndarray], seconds: float = 0.1) -> None:
    """An endless animation of pictures, uint8 [height, width, 3], each seen for `seconds`, the last for two more."""
    require(path.suffix.lower() == ".gif", "a name that ends in .gif", str(path))
    require(0.02 <= seconds <= 10, "from 0.02 to 10 seconds for a frame", seconds)  # browsers slow down what is faster
    require(len(frames) >= 1, "at least one frame", len(frames))
    for frame in frames:
        legal = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[-1] == 3 and frame.shape == frames[0].shape
        require(legal, "frames of uint8 [height, width, 3], all of one size", f"{frame.dtype} {frame.shape}")
    first, *others = _indexed(frames)
    times = [round(1000 * seconds)] * len(others) + [round(1000 * (seconds + _LAST))]
    stored = io.BytesIO()
    first.save(stored, "GIF", save_all=True, append_images=others, duration=times, loop=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, stored.getvalue())


def _indexed(frames: Sequence[np.ndarray]) -> list[Image.Image]:
    """Frames of one palette: all grays; or 52 of them and the 204 colours that fit best what is not gray."""
    gray = [np.ptp(frame, axis=-1) == 0 for frame in frames]
    colours = np.concatenate([frame[~where] for frame, where in zip(frames, gray, strict=True)])
    step = 5 if len(colours) else 1
    palette = np.arange(0, 256, step).repeat(3).tolist()
    if len(colours):
        some = np.random.default_rng(0).choice(colours, min(len(colours), 2**14), replace=False)
        palette += (Image.fromarray(some[None]).quantize(204, kmeans=1).getpalette() or [])[: 3 * 204]
    known = Image.new("P", (1, 1))
    known.putpalette(palette)
    indexed = []
    for frame, where in zip(frames, gray, strict=True):
        nearest = Image.fromarray(frame).quantize(palette=known, dither=Image.Dither.NONE)
        # a gray pixel takes a gray even where a colour is nearer
        indices = np.where(where, np.rint(frame[..., 0] / step).astype(np.uint8), np.asarray(nearest))
        indexed.append(Image.fromarray(indices))
        indexed[-1].putpalette(palette)
    return indexed
