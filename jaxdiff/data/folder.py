"""A folder of image files."""

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol
from zipfile import ZipFile

import numpy as np

from jaxdiff.base import files
from jaxdiff.base.fields import may_change
from jaxdiff.base.words import plural
from jaxdiff.data.archives import LARGEST, content
from jaxdiff.data.cache import stored
from jaxdiff.data.examples import Cache, Examples, height_and_width
from jaxdiff.data.images import extensions, shape_of
from jaxdiff.data.labels import by_name, numbered
from jaxdiff.data.records import Loaded, loaded

_TABLES = ("labels.csv", "captions.csv", "metadata.csv")
_COLUMNS = {"file_name": "file", "filename": "file", "image": "file", "text": "caption", "class": "label"}
_MOST_ROWS = 2**21
_NOT_READ = {".heic", ".heif", ".jxl", ".dng"}  # images that are left out, and listed as such
TRAINED_ON, HELD_OUT = {"train", "training"}, {"val", "valid", "validation", "test"}


@dataclass(frozen=True)
class Folder:
    """All image files in a folder and those below it, each cut to `size` about its centre.

    `path` is the folder; or a .zip file, or a folder within one, such as `images.zip/train`. Image
    files are recognised by their extensions, in any case, but read as what they are; hidden files are passed over.

    `labels`: "folders": the folders just below `path` are the classes, in the order of their names or numbers.
    A .csv file: its columns are file, label and caption (the last or both of these), and the examples are its rows;
    labels are whole numbers from 0, or names, numbered in their order. "none". "auto": `labels.csv`, `captions.csv` or
    `metadata.csv` if the folder has one, else folders if no image lies outside of these; a folder that is all there is,
    as in many a .zip, is looked into.

    Files that cannot be read are left out, listed in `Examples.unreadable`; or refused, if `strict`. So are files of
    more than 134 MB, and those in a .zip that are neither stored nor deflated; a table has at most two million rows.
    """

    path: str = may_change()
    size: int | tuple[int, int] = 128  # or (height, width)
    channels: int = 3  # 3: colour, 1: gray
    labels: str = "auto"
    strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        object.__setattr__(self, "labels", str(self.labels))
        height_and_width(self.size)
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (colour), got {self.channels!r}")
        if self.labels not in ("auto", "none", "folders") and not self.labels.lower().endswith(".csv"):
            raise ValueError(f'labels must be "auto", "none", "folders" or a path ending in .csv, got {self.labels!r}')

    def open(self, cache: Cache = "auto") -> Examples:
        place, listed = _found(self.path, self.labels)
        shape = (len(listed.names), *height_and_width(self.size), self.channels)
        records = _Files(place, listed.names, shape)
        found = stored(records, cache)
        unreadable = *found.unreadable, *((name, "not read: save it as JPEG") for name in listed.left_out)
        first = "; ".join(f"{name}: {reason}" for name, reason in unreadable[:1])
        if self.strict and first:
            raise ValueError(f"{self.path} has {plural(len(unreadable), 'file')} that cannot be read, {first}")
        if len(found.numbers) == 0:
            raise ValueError(f"{self.path} has no file that can be read, {first}")
        labels = None if listed.labels is None else listed.labels[found.numbers]
        captions = None if listed.captions is None else tuple(listed.captions[i] for i in found.numbers)
        names = records.known_by(found.numbers)
        return Examples(found.images, labels, listed.classes, captions, unreadable, names)


class _Place(Protocol):
    """Where files are. A name is the path below it, with /."""

    @property
    def where(self) -> str: ...

    def names(self) -> Iterator[str]:
        """Of all files that are not hidden."""

    def stamp(self, name: str) -> tuple[int, int]:
        """Its size, and what else changes with the file."""

    def read(self, name: str) -> bytes: ...

    def below(self, folder: str) -> "_Place":
        """A folder in it."""


@dataclass(frozen=True)
class _Directory:
    root: Path

    @property
    def where(self) -> str:
        return str(self.root)

    def names(self) -> Iterator[str]:
        seen = set()
        for above, below, names in os.walk(self.root, followlinks=True, onerror=_unlisted):
            real = os.path.realpath(above)
            below[:] = [] if real in seen else [name for name in below if not name.startswith(".")]
            if real not in seen:  # links may go round
                seen.add(real)
                folder = Path(above).relative_to(self.root)
                yield from ((folder / name).as_posix() for name in names if not name.startswith("."))

    def stamp(self, name: str) -> tuple[int, int]:
        try:
            status = os.stat(self.root / name)
        except OSError:  # a link to nothing
            return -1, 0
        return status.st_size, status.st_mtime_ns

    def read(self, name: str) -> bytes:
        return files.read(self.root / name, LARGEST)

    def below(self, folder: str) -> "_Directory":
        return _Directory(self.root / folder)


def _unlisted(error: OSError) -> None:
    if Path(error.filename).name in ("lost+found", "System Volume Information"):  # of the system
        return
    raise ValueError(f"{error.filename} cannot be listed ({error.strerror}): its images would be left out")


@dataclass(frozen=True)
class _Zip:
    archive: ZipFile
    root: str  # within it: "" or ends in /

    @property
    def where(self) -> str:
        return f"{self.archive.filename}/{self.root}"

    def names(self) -> Iterator[str]:
        for name in self.archive.namelist():
            below = name.removeprefix(self.root)
            hidden = any(part.startswith((".", "__MACOSX")) for part in below.split("/"))
            if name.startswith(self.root) and not name.endswith("/") and not hidden:
                yield below

    def stamp(self, name: str) -> tuple[int, int]:
        entry = self.archive.getinfo(self.root + name)
        return entry.file_size, entry.CRC

    def read(self, name: str) -> bytes:
        return content(self.archive, self.root + name)

    def below(self, folder: str) -> "_Zip":
        return _Zip(self.archive, f"{self.root}{folder}/")


def _place(path: Path) -> _Place:
    if path.is_dir():
        return _Directory(path.resolve())
    for archive in (path, *path.parents):
        if archive.suffix.lower() == ".zip" and archive.is_file():
            below = path.relative_to(archive).as_posix()
            try:
                return _Zip(ZipFile(archive.resolve()), "" if below == "." else f"{below}/")
            except Exception as error:  # of many classes
                raise ValueError(f"{archive} is damaged: {error or type(error).__name__}") from None
    what = "is a file, neither a folder nor a .zip" if path.is_file() else "is not there"
    raise ValueError(f"{path} {what}: path must be a folder of images")


def has_files(path: str) -> bool:
    """Whether it is a folder, or one within a .zip, with anything in it."""
    try:
        return any(_place(Path(path)).names())
    except ValueError:
        return False


def shapes_in(path: str) -> dict[tuple[int, ...], str]:
    """The shapes of the images in it as they are, each with the name of a file that has it."""
    place, listed = _found(path, "auto")
    found: dict[tuple[int, ...], str] = {}
    for name in reversed(listed.names):
        try:
            found[shape_of(place.read(name))] = name
        except ValueError as error:
            raise ValueError(f"{place.where}/{name} cannot be read: {error}") from None
    return found


class _Listed(NamedTuple):
    """The files of the examples, and what is known of each."""

    names: Sequence[str]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    captions: Sequence[str] | None = None
    left_out: Sequence[str] = ()  # of kinds that are not read


def _found(path: str, labels: str) -> tuple[_Place, _Listed]:
    """The examples of a `Folder`, and the place that their names are below."""
    place = _place(Path(path))
    names = sorted(place.names())
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    top = tops.pop() if labels == "auto" and len(tops) == 1 else ""
    if top and top.lower() not in TRAINED_ON | HELD_OUT:  # one folder is all there is, as in a .zip of a folder
        place, path, names = place.below(top), f"{path}/{top}", [name.removeprefix(f"{top}/") for name in names]
    return place, _listed(place, names, labels, path)


def _listed(place: _Place, everything: Sequence[str], labels: str, path: str) -> _Listed:
    """`everything` are the names of all files, `labels` as in `Folder`, `path` for messages."""
    if labels.lower().endswith(".csv"):
        if not Path(labels).is_file():
            raise ValueError(f"{labels} is not there: labels must be the path of a .csv file")
        return _rows(lambda: files.read(Path(labels), LARGEST), everything, labels)
    tables = [name for name in _TABLES if labels == "auto" and name in everything]
    if len(tables) > 1:
        raise ValueError(f"{path} has {' and '.join(tables)}: put all columns into one of them, and remove the others")
    if tables:
        return _rows(lambda: place.read(tables[0]), everything, tables[0])
    of_a_kind = {name: PurePosixPath(name).suffix.lower() for name in everything}
    names = [name for name, kind in of_a_kind.items() if kind in extensions()]
    left_out = [name for name, kind in of_a_kind.items() if kind in _NOT_READ]
    if not names:
        packed = next((f": {path}/{name} may be meant" for name in everything if name.lower().endswith(".zip")), "")
        count = plural(len(everything), "file")
        if left_out and not packed:
            packed = f": {left_out[0]} must be saved as JPEG"
        raise ValueError(f"{path} has no image files, such as .jpg or .png, among its {count}{packed}")
    if labels == "auto":
        _check_one_split(names, path)
    outside = [name for name in names if "/" not in name]
    if labels == "none" or (labels == "auto" and outside):
        return _Listed(names, left_out=left_out)
    if outside:
        raise ValueError(f'{path} has images outside of the folders that name classes, {outside[0]}: labels="none"?')
    folders = [name.split("/")[0] for name in names]
    return _Listed(names, *by_name(folders), left_out=left_out)


def _check_one_split(names: Sequence[str], path: str) -> None:
    """Refuses what is divided into images to train on and to test with: at its top, or in the only folder there."""
    folders = [name.split("/")[:-1] for name in names]
    for _ in range(2):
        found = sorted({each[0] for each in folders if each})
        kinds = {name.lower(): name for name in found}
        trains, tests = kinds.keys() & TRAINED_ON, kinds.keys() & HELD_OUT
        if (trains and tests) or (all(folders) and kinds.keys() <= TRAINED_ON | HELD_OUT):
            splits = [kinds[kind] for kind in (*sorted(trains), *sorted(tests))]
            raise ValueError(
                f"{path} holds {' and '.join(splits)}: name one, {path}/{splits[0]}, or say what labels are"
            )
        if len(found) > 1 or not all(folders):
            return
        path, folders = f"{path}/{found[0]}", [each[1:] for each in folders]


def _rows(read: Callable[[], bytes], listed: Sequence[str], path: str) -> _Listed:
    """What the .csv file at `path` says of these files."""
    columns = _columns(read, path)
    if "file" not in columns or not columns.keys() & {"label", "caption"} or not columns["file"]:
        legal = "file,label or file,caption or file,label,caption"
        raise ValueError(f"{path} needs a first row that says {legal}, and further rows")
    names = columns["file"]
    missing = set(names) - set(listed)
    if missing:
        raise ValueError(f"{path} lists {plural(len(missing), 'file')} not there, {min(missing)!r} for one")
    captions = columns.get("caption")
    if "label" not in columns:
        return _Listed(names, captions=captions)
    labels = [label.strip() for label in columns["label"]]
    if "" in labels:
        raise ValueError(f"{path} gives no label to {names[labels.index('')]!r}: needs one in each row")
    return _Listed(names, *numbered(labels, path), captions)


def _columns(read: Callable[[], bytes], path: str) -> dict[str, list[str]]:
    """Those of a table that matter, each value held once."""
    try:
        lines = csv.reader(io.TextIOWrapper(io.BytesIO(read()), "utf-8-sig", newline=""), strict=True)
        header = [_COLUMNS.get(name, name) for name in next(lines, [])]
        places = {name: i for i, name in enumerate(header) if name in ("file", "label", "caption")}
        columns: dict[str, list[str]] = {name: [] for name in places}
        once: dict[str, str] = {}
        for number, line in enumerate(filter(None, lines)):
            if number == _MOST_ROWS:
                raise ValueError(f"it has more than {_MOST_ROWS} rows")
            for name, i in places.items():
                value = line[i] if i < len(line) else ""
                columns[name].append(once.setdefault(value, value))
        return columns
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table in UTF-8: {error}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


@dataclass(frozen=True, eq=False)
class _Files:
    """Image files as records."""

    place: _Place
    names: Sequence[str]
    shape: tuple[int, int, int, int]

    @property
    def title(self) -> str:
        return Path(self.place.where).name

    @cached_property
    def stamps(self) -> list[tuple[int, int]]:
        return [self.place.stamp(name) for name in self.names]

    @property
    def identity(self) -> str:
        stamps = zip(self.names, self.stamps, strict=True)
        return "\n".join([self.place.where, *(f"{name} {size} {more}" for name, (size, more) in stamps)])

    def known_by(self, readable: np.ndarray) -> str:
        """A hash of all names and sizes, and of 64 of the files: what is quick, and the same of any copy."""
        lines = (f"{name} {size}\n" for name, (size, _) in zip(self.names, self.stamps, strict=True))
        digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape"))
        for number in readable[:: -(-len(readable) // 64)]:
            digest.update(self.place.read(self.names[number]))
        return digest.hexdigest()

    def name(self, number: int) -> str:
        return self.names[number]

    def load(self, numbers: Sequence[int]) -> tuple[list[Loaded], None]:
        return [self._image(self.names[number]) for number in numbers], None

    def _image(self, name: str) -> Loaded:
        _, height, width, channels = self.shape
        return loaded(partial(self.place.read, name), channels, (height, width))
