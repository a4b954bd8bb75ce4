"""The image data sets of TensorFlow Datasets, without TensorFlow."""

import contextlib
import difflib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base.files import cache_folder, hold
from jaxdiff.base.text import first_line
from jaxdiff.data.cache import stored
from jaxdiff.data.examples import Cache, Examples, check_images, chosen, height_and_width, no_split
from jaxdiff.data.records import Loaded, loaded


@dataclass(frozen=True)
class Tfds:
    """A data set of https://www.tensorflow.org/datasets/catalog by its name there, "mnist" or "cifar10:3.0.2" say.

    It is read from $TFDS_DATA_DIR, or ~/tensorflow_datasets. One that is not there is prepared at its first use, in a
    process of its own: mnist, fashion_mnist and cifar10 from the files in which they were published, others by
    TensorFlow. `split` may be a part, "train[:1000]". `size` is needed if the images are of many sizes; labels are
    those of the feature `label`, or of the only one that names classes.
    """

    name: str  # in the catalogue of TensorFlow Datasets
    split: str = "train"
    size: int | tuple[int, int] | None = None  # or (height, width); None: as they are
    channels: int | None = None  # None: as they are

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f'name must be that of a data set, such as "mnist", got {self.name!r}')
        check_images(self.size, self.channels)

    def open(self, cache: Cache = "auto") -> Examples:
        image, label, shape = self._features()
        builder = _prepared(self.name)
        classes = None if label is None else tuple(builder.info.features[label].names)  # some are known from now on
        source = _data_source(builder, self.split, image)
        found = stored(_Records(builder, self.split, image, label, source, (len(source), *shape)), cache)
        names = f"{builder.info.full_name} {self.split}"
        if found.labels is None or (found.labels < 0).any():  # -1: TFDS does not know it
            return Examples(found.images, unreadable=found.unreadable, names=names)
        return Examples(found.images, found.labels, classes, unreadable=found.unreadable, names=names)

    def _features(self) -> tuple[str, str | None, tuple[int, int, int]]:
        """The names of the image and, if there is one, of the label; the shape of an image."""
        import tensorflow_datasets as tfds

        features = _builder(self.name).info.features
        images = [name for name, one in features.items() if _is_image(one)]
        labels = [name for name, one in features.items() if isinstance(one, tfds.features.ClassLabel)]
        if not images:
            raise ValueError(f"{self.name} is not a data set of images: it has {', '.join(features)}")
        image, label = chosen(images, "image") or images[0], chosen(labels, "label")
        return image, label, self._shape(*features[image].shape)

    def _shape(self, height: int | None, width: int | None, channels: int | None) -> tuple[int, int, int]:
        """Of an image, given that of the files."""
        if self.size is not None:
            height, width = height_and_width(self.size)
        if height is None or width is None:
            raise ValueError(f"the images of {self.name} are of many sizes: needs a size, such as size=64")
        return height, width, self.channels or (1 if channels == 1 else 3)


def _prepared(name: str) -> Any:
    """A builder whose data are on the disk and can be read in any order."""
    builder = _builder(name)
    about = builder.data_path / "dataset_info.json"
    if not about.exists():
        with _alone(builder.name):  # another process may be at it
            if not about.exists():
                _prepare(name, builder.data_path)
        builder = _builder(name)
    if builder.info.file_format.value not in ("array_record", "parquet"):
        raise ValueError(
            f"{builder.data_path} holds {builder.info.file_format.value}, which cannot be read in any order: set "
            f"TFDS_DATA_DIR to another folder to have it prepared anew, or convert it with `tfds convert_format`"
        )
    return builder


def _alone(name: str) -> contextlib.AbstractContextManager[Any]:
    """Held by whoever prepares this data set, where a lock can be written."""
    place = cache_folder() / "downloads"
    try:
        place.mkdir(parents=True, exist_ok=True)
        return hold(place / f"{name}.lock", wait=True)
    except OSError:
        return contextlib.nullcontext()


def _builder(name: str) -> Any:
    import tensorflow_datasets as tfds

    place = os.environ.get("TFDS_DATA_DIR", tfds.core.constants.DATA_DIR)
    try:
        return tfds.builder(name, data_dir=place)
    except tfds.core.registered.DatasetNotFoundError:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False))
        hint = f", did you mean {' or '.join(near)}?" if near else ": see https://www.tensorflow.org/datasets/catalog"
        raise ValueError(f"neither TensorFlow Datasets nor {place} has {name}{hint}") from None
    except Exception as error:  # a config or a version that is not there; TFDS has no one class for these
        raise ValueError(f"TensorFlow Datasets cannot open {name}: {first_line(error)}") from None


def _prepare(name: str, place: os.PathLike[str]) -> None:
    """Downloads and writes the data set, in another process: TensorFlow must not enter this one."""
    print(f"preparing {name} in {place}, once", file=sys.stderr)
    root = str(Path(__file__).parents[2])  # jaxdiff may be a clone that nobody installed
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-P", "-m", "jaxdiff.data.prepare", name]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=found)
    if child.returncode:
        said = child.stdout.strip().splitlines()
        reason = said[-1] if said else f"the process that prepares it ended with status {child.returncode}"
        raise ValueError(f"{name} is not in {place} and could not be prepared: {reason}")


def _data_source(builder: Any, split: str, image: str) -> Any:
    """Of examples whose image is still the bytes of a file."""
    import tensorflow_datasets as tfds

    try:
        source = builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
    except (ValueError, AssertionError) as error:
        raise no_split(builder.name, builder.info.splits, split, first_line(error)) from None
    if len(source) == 0:
        raise ValueError(f"{builder.name} has no examples in {split!r}")
    return source


def _is_image(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Image) and feature.np_dtype in (np.uint8, np.uint16)  # floats are packed


@dataclass(frozen=True, eq=False)
class _Records:
    """A split as records."""

    builder: Any
    split: str
    image: str
    label: str | None
    source: Any
    shape: tuple[int, int, int, int]

    @property
    def title(self) -> str:
        return f"{self.builder.info.full_name} {self.split}"

    @property
    def identity(self) -> str:
        stats = [(path.name, os.stat(path)) for path in sorted(self.builder.data_path.iterdir())]
        files = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
        return "\n".join([str(self.builder.data_path), self.split, self.image, str(self.label), *files])

    def name(self, number: int) -> str:
        return f"{self.title}, record {number}"

    def load(self, numbers: Sequence[int]) -> tuple[list[Loaded], np.ndarray | None]:
        records = self.source.__getitems__(list(numbers))
        labels = None if self.label is None else np.array([record[self.label] for record in records], np.int32)
        _, height, width, channels = self.shape
        return [loaded(partial(bytes, record[self.image]), channels, (height, width)) for record in records], labels
