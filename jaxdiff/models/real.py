"""The real images that samples are compared with, and what features make of them: kept, since they do not change."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxdiff.base import files
from jaxdiff.base.console import say, warn
from jaxdiff.data import Arrays, Folder
from jaxdiff.data.examples import Examples, Images, mixed, opened
from jaxdiff.data.folder import shapes_in
from jaxdiff.data.identity import identity_of
from jaxdiff.data.splits import split_of
from jaxdiff.evaluation.features import Features
from jaxdiff.evaluation.summary import Summary
from jaxdiff.models.conditions import Prompts
from jaxdiff.models.config import Config
from jaxdiff.models.model import Model

_FORM = 1  # of what is kept: to be raised when features of the same weights change


@dataclass(frozen=True, eq=False)
class Real:
    """A split of the data."""

    name: str
    examples: Examples

    @property
    def identity(self) -> str:
        """What tells these images from others."""
        return f"{self.name} {pixels_of(self.examples)}"

    def check_alike(self, shape: tuple[int, ...]) -> None:
        real = tuple(self.examples.images.shape[1:])
        if real != tuple(shape):
            sizes = ["x".join(map(str, each)) for each in (shape, real)]
            raise ValueError(f"the images drawn are {sizes[0]}, the real ones {sizes[1]}: name other --data")


def pixels_of(examples: Examples) -> str:
    """Which images these are: how many, their labels and captions, and the pixels of up to 4,096 of them."""
    known, count = identity_of(examples), len(examples)
    spread = np.arange(0, count, -(-count // 4096))
    digest = hashlib.sha256(known["hash"].encode())
    for some in np.array_split(spread, -(-len(spread) // 256)):
        digest.update(np.ascontiguousarray(examples.images[some]).data)
    return f"{count} {list(examples.images.shape[1:])} {digest.hexdigest()[:16]}"


def reference_of(config: Config, split: str | None, instead: str = "") -> Real:
    """The real images that samples are compared with; by default those that were not trained on.

    `instead` is what to do if there are none.
    """
    if split == "train":
        return Real("train", opened(config.data))
    if split in (None, "test") and config.held_out is not None:
        return Real("test", opened(config.held_out))
    try:
        source = split_of(config.data, split or "test")
    except ValueError as error:
        raise ValueError(f"no {split or 'test'} split: {error}; {instead}") from None
    return Real(split or "test", opened(source))


def others_of(config: Config, reference: Real) -> Real | None:
    """More real images, that are not the reference: what a perfect model would draw; None if there are none."""
    try:
        return reference_of(config, "train" if reference.name != "train" else "test")
    except ValueError:
        return None


Asked = tuple[list[int | str] | None, list[str] | None]  # labels, or prompts; neither leaves the choice to the model


def asked_for(model: Model, real: Examples) -> Asked:
    """Labels or prompts for what is held against real images: of a model of prompts their captions, or all its classes.

    The prompts of its pictures may be of a few things alone.
    """
    if not isinstance(model.system.condition, Prompts):
        return None, None
    if real.captions is not None:
        return None, [real.captions[row] for row in mixed(len(real))]
    return list(range(len(model.classes))) or None, None


def samples_of(path: Path, like: tuple[int, ...]) -> Examples:
    """Anyone's images, from a file or a folder, if they are of the reference's size: fitting them would change them."""
    from_file = path.suffix.lower() in (".npz", ".npy")
    found = Arrays(str(path)).open() if from_file else None
    shapes = shapes_in(str(path)) if found is None else {tuple(found.images.shape[1:]): path.name}
    gray = {(*like[:2], 1)} if found is None else set()  # a gray file may show a colour image
    other = next((shape for shape in shapes if shape not in {like, *gray}), None)
    if other is not None:
        sizes = ["x".join(map(str, shape)) for shape in (other, like)]
        raise ValueError(
            f"{path} has images of {sizes[0]}, {shapes[other]}; the reference has {sizes[1]}: make them equal"
        )
    return found or Folder(str(path), size=(like[0], like[1]), channels=like[2], strict=True).open()


class Shuffled:
    """Some images, or all, in an order that is always the same."""

    def __init__(self, images: Images, count: int | None = None) -> None:
        self._images = images
        self.rows = mixed(len(images), count)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self._images.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self._images[self.rows[places]])


def summary_of(features: Features, images: Shuffled, what: str) -> Summary:
    """What features make of images, with a bar."""
    made = Summary(len(images))
    with tqdm(total=len(images), desc=what, unit=" images", disable=None, dynamic_ncols=True) as bar:
        for rows, logits in features.batches(images):
            made.add(rows, logits)
            bar.update(len(rows))
    made.close()
    return made


def known_summary(features: Features, real: Real, count: int | None = None) -> Summary:
    """The same of real images, of all or of the first `count`; kept in the cache."""
    images = Shuffled(real.examples.images, count)
    key = hashlib.sha256(f"{_FORM} {features.name} {features.hash} {real.identity} {len(images)}".encode()).hexdigest()[
        :24
    ]
    path = files.cache_folder() / "features" / f"{key}.npz"
    found = Summary.load(path)
    if found is None:
        say(f"features of the {len(images):,} real images, {real.name}, once")
        found = summary_of(features, images, real.name)
        try:
            found.save(path)
        except OSError as error:
            warn(
                f"features are not kept ({error.strerror or error}): set JAXDIFF_CACHE to a folder that can be written"
            )
    return found
