"""The image data sets of the Hugging Face Hub."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base import files
from jaxdiff.base.logs import quiet
from jaxdiff.base.text import first_line
from jaxdiff.data.archives import LARGEST
from jaxdiff.data.cache import stored
from jaxdiff.data.examples import Cache, Examples, check_images, chosen, height_and_width, no_split
from jaxdiff.data.images import shape_of
from jaxdiff.data.labels import numbered
from jaxdiff.data.records import Loaded, loaded

_LOOKED_AT = 64  # images, to see what all are like
_SITE = "https://huggingface.co/datasets"


@dataclass(frozen=True)
class Hub:
    """A data set of https://huggingface.co/datasets by its name there, "uoft-cs/cifar10" say.

    The library `datasets` downloads it at its first use, and keeps it in $HF_HOME, where it is found without a network.
    `split` may be a part, "train[:1000]"; `config` and `revision` are those of `datasets.load_dataset`.

    `image`, `label` and `caption` name columns. If they do not: images are the only column of images, or "image" or
    "img"; labels the only column that names classes, or "label" or "labels", so none if there are fine and coarse ones;
    captions are "caption", "text" or "prompt". A column named by `label` may also hold whole numbers from 0, or names.

    `size` is needed if the images are of many sizes. Those that cannot be read are left out and listed.
    """

    name: str  # owner/name
    split: str = "train"
    size: int | tuple[int, int] | None = None  # or (height, width); None: as they are
    channels: int | None = None  # None: as they are
    image: str | None = None
    label: str | None = None
    caption: str | None = None
    config: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", self.name):
            raise ValueError(f'name must be OWNER/NAME, as {_SITE} has it, "uoft-cs/cifar10" say, got {self.name!r}')
        if not self.split or not isinstance(self.split, str):
            raise ValueError(f'split must be "train", "test" or a part, such as "train[:1000]", got {self.split!r}')
        check_images(self.size, self.channels)
        for field in ("image", "label", "caption", "config", "revision"):
            value = getattr(self, field)
            if value is not None and (not value or not isinstance(value, str)):
                raise ValueError(f"{field} must be a name or None, got {value!r}")

    def open(self, cache: Cache = "auto") -> Examples:
        builder = _prepared(self.name, self.config, self.revision)
        rows = _rows(builder, self.name, self.split)
        image, label, caption = self._columns(rows.features)
        version = f"{self.name} {builder.config.name} {builder.hash}"
        records = _Files(_encoded(rows, image), image, f"{self.name} {self.split}", version, self.size, self.channels)
        found = stored(records, cache)
        labels, classes = (None, None) if label is None else self._labels(rows, label)
        captions = None if caption is None else [text or "" for text in _values(rows, caption)]
        return Examples(
            found.images,
            None if labels is None else labels[found.numbers],
            classes,
            None if captions is None else tuple(captions[i] for i in found.numbers),
            found.unreadable,
            f"{records.title} {records.digest()}",
        )

    def _columns(self, features: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
        """Those of images, labels and captions."""
        import datasets

        types = {name: getattr(one, "dtype", "") for name, one in features.items()}
        images = [name for name, one in features.items() if isinstance(one, datasets.Image)]
        labels = [name for name, one in features.items() if isinstance(one, datasets.ClassLabel)]
        texts = [name for name, one in types.items() if str(one) in ("string", "large_string")]
        whole = [name for name, one in types.items() if re.fullmatch(r"u?int\d+|bool", str(one))]
        if not images:
            raise ValueError(f"{self.name} is not a data set of images: it has {', '.join(features)}")
        for field, legal in (("image", images), ("label", [*labels, *whole, *texts]), ("caption", texts)):
            named = getattr(self, field)
            if named is not None and named not in legal:
                can = f"must be {' or '.join(dict.fromkeys(legal))}" if legal else "cannot be found"
                raise ValueError(f"{field} {can}, got {named!r}: {self.name} has {', '.join(features)}")
        image = self.image or chosen(images, "image", "img")
        if image is None:
            raise ValueError(f"{self.name} has several images in a row: needs one of image={' or image='.join(images)}")
        caption = next((name for name in ("caption", "text", "prompt") if name in texts), None)
        return image, self.label or chosen(labels, "label", "labels"), self.caption or caption

    def _labels(self, rows: Any, label: str) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Of all rows, and what they mean; none if some row has none, unless they are asked for."""
        values = _values(rows, label)
        lacking = sum(value is None or value == -1 for value in values)
        if lacking and self.label is None:
            return None, None
        if lacking:
            raise ValueError(f"{self.name} has no {label} in {lacking} of {len(values)} rows: needs one in each")
        names = getattr(rows.features[label], "names", None)
        if names is not None:
            return np.array(values, np.int32), tuple(names)
        return numbered([str(value) for value in values], f"{self.name}, {label},")


# --- the library ------------------------------------------------------------------------------------------------------


def _prepared(name: str, config: str | None, revision: str | None) -> Any:
    """A builder whose data are on the disk."""
    try:
        import datasets
    except ImportError:
        raise ValueError("Hub needs the library datasets: pip install datasets") from None
    if Path(name).is_dir():
        raise ValueError(f"{name} is also a folder here, which would be read instead: start from another folder")
    with quiet("datasets", "huggingface_hub"), contextlib.nullcontext() if reachable() else _offline():
        try:
            builder = datasets.load_dataset_builder(name, config, revision=revision)
            builder.download_and_prepare()
        except Exception as error:  # of many classes
            raise ValueError(_why(error, name, config, revision)) from None
        return _revised(builder, name, revision)


def reachable() -> bool:
    """Asked once: the library itself would try for a minute before it looks into its cache."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # those of requests or of httpx; or HF_HUB_OFFLINE is set
        return False
    return True


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """What $HF_HUB_OFFLINE does, for a while."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _why(error: Exception, name: str, config: str | None, revision: str | None) -> str:
    """Why there is no builder, in a line."""
    from datasets.exceptions import DatasetNotFoundError

    said = str(error)
    if isinstance(error, ConnectionError):
        return f"{name} is not in the cache of datasets, and the Hub cannot be reached: connect once, or copy $HF_HOME"
    if isinstance(error, DatasetNotFoundError):
        if said.startswith("Revision"):
            return f"{name} has no revision {revision!r}: see {_SITE}/{name}/commits/main"
        if "gated" in said:
            return f"{name} is gated: ask for access at {_SITE}/{name}, then `hf auth login`"
        return f"there is no data set {name}, or it is private: see {_SITE}, or `hf auth login`"
    known = re.search(r"(?:Available|configs|in the cache): \[?([^\]\n]+)", said)
    if known:
        needs = "needs a config, one of" if config is None else f"has no config {config!r}, only"
        return f"{name} {needs} {known[1]}"
    return f"{name} cannot be opened: {first_line(error.__cause__ or error)}"


def _revised(builder: Any, name: str, revision: str | None) -> Any:
    """That of the revision: from its cache the library takes what was put there last, whichever is asked for."""
    from datasets.packaged_modules.cache.cache import Cache

    commit = _commit(name, revision or "main")
    if not isinstance(builder, Cache) or builder.hash == commit:
        return builder
    about = {"repo_id": name, "dataset_name": builder.dataset_name, "config_name": builder.config.name}
    older = Cache(**about, version=str(builder.config.version), hash=commit)
    if Path(older.cache_dir).is_dir():
        return older
    if revision is None:
        return builder
    raise ValueError(f"revision {revision} of {name} is not in the cache of datasets, and cannot be downloaded")


def _commit(name: str, revision: str) -> str:
    """What a branch or a tag meant when the Hub was last asked; anything else is a commit."""
    from huggingface_hub import constants

    path = Path(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}", "refs", revision)
    return files.read(path).decode().strip() if path.is_file() else revision


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(builder: Any, name: str, split: str) -> Any:
    try:
        rows = builder.as_dataset(split)
    except Exception as error:  # of several classes
        raise no_split(name, builder.info.splits or (), split, first_line(error)) from None
    if len(rows) == 0:
        raise ValueError(f"{name} has no rows in {split!r}")
    return rows


def _values(rows: Any, column: str) -> list[Any]:
    """All of a column."""
    values: list[Any] = rows.select_columns([column])[:][column]
    return values


def _encoded(rows: Any, image: str) -> Any:
    """Only the images, each as its file: {"bytes": ..., "path": ...}, of which one is enough."""
    import datasets

    return rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))


def _content(file: Mapping[str, Any] | None) -> bytes:
    if file is None or (file["bytes"] is None and file["path"] is None):
        raise ValueError("there is none")
    data: bytes | None = file["bytes"]
    return files.read(Path(file["path"]), LARGEST) if data is None else data


@dataclass(frozen=True, eq=False)
class _Files:
    """The images of a split as records."""

    rows: Any
    image: str
    title: str
    version: str
    size: int | tuple[int, int] | None
    channels: int | None

    @property
    def identity(self) -> str:
        return "\n".join([self.version, self.title, self.image, str(self.size)])

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        shapes = [shape for shape in map(_shape, self._some()) if shape is not None]
        if not shapes:
            raise ValueError(f"{self.title} has no image that can be read among the {_LOOKED_AT} looked at")
        sizes = {shape[:2] for shape in shapes}
        if self.size is None and len(sizes) > 1:
            raise self._many_sizes()
        height, width = sizes.pop() if self.size is None else height_and_width(self.size)
        return len(self.rows), height, width, self.channels or max(shape[2] for shape in shapes)

    def name(self, number: int) -> str:
        return f"{self.title}, row {number}"

    def load(self, numbers: Sequence[int]) -> tuple[list[Loaded], None]:
        return [self._image(file) for file in self.rows[list(numbers)][self.image]], None

    def _image(self, file: Mapping[str, Any] | None) -> Loaded:
        _, height, width, channels = self.shape
        image = loaded(partial(_content, file), channels, None if self.size is None else (height, width))
        if not isinstance(image, ValueError) and image.shape != (height, width, channels):
            raise self._many_sizes()
        return image

    def _many_sizes(self) -> ValueError:
        return ValueError(f"the images of {self.title} are of many sizes: needs a size, such as size=64")

    def _some(self) -> list[Mapping[str, Any] | None]:
        """Files from all over."""
        found: list[Mapping[str, Any] | None] = self.rows[:: -(-len(self.rows) // _LOOKED_AT)][self.image]
        return found

    def digest(self) -> str:
        """Of the sizes of all files and the content of some: the same on any machine, and of a revision with these."""
        import pyarrow.compute as pc

        table, hashed = self.rows.with_format("arrow"), hashlib.sha256()
        for first in range(0, len(table), 2**14):
            column = table[first : first + 2**14][self.image]
            sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
            paths = pc.struct_field(column, "path").to_pylist()
            known = [_size(path) if size is None else size for size, path in zip(sizes, paths, strict=True)]
            hashed.update(repr(known).encode())
        for file in self._some():
            with contextlib.suppress(OSError, ValueError):
                hashed.update(_content(file))
        return hashed.hexdigest()[:16]


def _shape(file: Mapping[str, Any] | None) -> tuple[int, int, int] | None:
    """Of an image, if it can be read."""
    try:
        return shape_of(_content(file))
    except (OSError, ValueError):
        return None


def _size(path: str | None) -> int:
    try:
        return -1 if path is None else os.stat(path).st_size
    except (OSError, ValueError):
        return -1
