"""The data set that is always there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from jaxdiff.data.examples import Cache, Examples
from jaxdiff.data.images import fit

Split = Literal["train", "test", "all"]
_TRAIN = 1500  # the rest was written by other people


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits of 8x8 pixels in 17 levels of gray, or enlarged (Alpaydin & Kaynak 1998, CC BY 4.0).

    It is the test set of UCI's "Optical Recognition of Handwritten Digits", which scikit-learn has as `load_digits`.
    """

    size: int = 8  # of a side, in pixels: larger than 8 is enlarged
    split: Split = "all"  # train: the first 1,500; test: the rest, by other writers; all

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 8 <= self.size <= 256:
            raise ValueError(f"size must be a whole number of pixels from 8 to 256, got {self.size!r}")
        if self.split not in get_args(Split):
            raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {self.split!r}")

    def open(self, cache: Cache = "auto") -> Examples:
        del cache  # there is nothing to decode
        part = {"train": slice(_TRAIN), "test": slice(_TRAIN, None), "all": slice(None)}[self.split]
        with np.load(Path(__file__).with_name("digits.npz")) as stored:
            levels, labels = stored["images"][part], stored["labels"][part]
        images = np.rint(levels * (255 / 16)).astype(np.uint8)[..., None]
        images = np.stack([fit(image, self.size, self.size) for image in images])
        return Examples(images, labels.astype(np.int32), tuple("0123456789"))
