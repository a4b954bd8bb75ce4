"""Which images are copies of training images: exactly, mirrored, moved by a pixel, or compressed in between.

An image is judged by a ratio: how far its nearest training image is, of how far its next ones are. That of an image
drawn anew is near 1, whatever kind it is; that of a copy is near 0, unless the training set holds the image itself
many times. Held-out images say how low it falls by chance, and how near an image must be at all.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxdiff.evaluation.neighbours import nearest

MARGIN, LOW = 0.36, 0.05  # a copy has a ratio below this share of what all but so many held-out images have
TINY = 0.1  # of the distance that 1 - LOW of held-out images exceed: nearer than that it is a copy, whatever its ratio
NEXT = 10  # training images, whose distance is the usual one
SMALLEST = 5  # pixels of a side: the rim, of two, is not looked at
_BLOCK = 20_000  # training images at a time


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each image the nearest training image, and how near."""

    index: np.ndarray  # [n]
    distance: np.ndarray  # root mean square, in gray levels of 255
    ratio: np.ndarray


def nearest_training_images(images: np.ndarray, training: Any) -> Nearest:
    """Of uint8 images [n, height, width, channels], with and without mirroring, moved by up to a pixel.

    All are smoothed before they are compared: what compression adds is in the finest detail, what tells images apart
    is not.
    """
    plain = _candidates(images, training, NEXT)
    moved = [np.roll(images, move, axis) for move in (-1, 1) for axis in (1, 2)]
    others = [_candidates(each, training, 4) for each in (images[:, :, ::-1], *moved)]
    candidates = np.concatenate([plain, *others], 1)
    index, distance, usual = np.zeros(len(images), int), np.zeros(len(images)), np.zeros(len(images))
    for i, image in enumerate(images):
        each = _moved_distances(_smooth(image[None])[0], _smooth(np.asarray(training[candidates[i]])))
        index[i], distance[i] = candidates[i][each.argmin()], each.min()
        usual[i] = np.sort(each[:NEXT])[1:].mean()
    return Nearest(index, distance, distance / np.maximum(usual, 1e-6))


def _candidates(images: np.ndarray, training: Any, k: int) -> np.ndarray:
    """The numbers of the k training images that are nearest at a glance, [n, k]; in memory of one block of them."""
    queries, found = _coarse(images), []
    for first in range(0, len(training), _BLOCK):
        block = np.asarray(training[np.arange(first, min(first + _BLOCK, len(training)))])
        distances, numbers = nearest(queries, _coarse(block), min(k, len(block)))
        found.append((distances, numbers + first))
    distances, numbers = (np.concatenate(part, 1) for part in zip(*found, strict=True))
    return np.take_along_axis(numbers, np.argsort(distances, 1, kind="stable")[:, :k], 1)


def _smooth(images: np.ndarray) -> np.ndarray:
    """The mean of the 3x3 pixels about each."""
    padded = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray(rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9


def _coarse(images: np.ndarray) -> np.ndarray:
    """Every second pixel of the smoothed images, as rows."""
    parts = [_smooth(images[first : first + 1000])[:, ::2, ::2] for first in range(0, len(images), 1000)]
    return np.concatenate(parts).reshape(len(images), -1)


def _moved_distances(image: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The least root mean square to each candidate over mirroring and moves; but for the rim, which moves change."""
    height, width = image.shape[:2]
    theirs, least = candidates[:, 2:-2, 2:-2], np.full(len(candidates), np.inf)
    for turned in (image, image[:, ::-1]):
        for down in (1, 2, 3):
            for right in (1, 2, 3):
                mine = turned[down : height - 4 + down, right : width - 4 + right]
                least = np.minimum(least, np.sqrt(((mine[None] - theirs) ** 2).mean((1, 2, 3))))
    return least


@dataclass(frozen=True, eq=False)
class Copies:
    """What came of it."""

    samples: Nearest
    held_out: Nearest

    @property
    def limit(self) -> float:
        """A ratio below it is no chance. Not taken from the lowest: of held-out images some may be copies too."""
        return MARGIN * float(np.quantile(self.held_out.ratio, LOW))

    def copied(self, images: Nearest) -> np.ndarray:
        """Whether each image is a copy."""
        near, middle = np.quantile(self.held_out.distance, (LOW, 0.5))
        return ((images.ratio < self.limit) & (images.distance < middle)) | (images.distance < TINY * near)

    @property
    def closer(self) -> float:
        """The share of samples nearer to a training image than the median held-out image is."""
        return float(np.mean(self.samples.distance < np.median(self.held_out.distance)))

    def quantiles(self) -> dict[str, tuple[float, float]]:
        """Of the distances, of samples and of held-out images."""
        at = (0.01, 0.1, 0.5)
        both = (np.quantile(each.distance, at) for each in (self.samples, self.held_out))
        return {f"{share:.0%}": pair for share, *pair in zip(at, *both, strict=True)}  # type: ignore[misc]


def copies(samples: np.ndarray, held_out: np.ndarray, training: Any) -> Copies:
    """`training` are `Images`, uint8; the others arrays of such."""
    if len(training) <= NEXT:
        raise ValueError(f"copies are told from {NEXT + 1} training images on, here are {len(training)}")
    height, width = held_out.shape[1:3]
    if min(height, width) < SMALLEST:
        raise ValueError(f"copies are told from {SMALLEST} pixels a side on, these images have {height}x{width}")
    found = Copies(*(nearest_training_images(images, training) for images in (samples, held_out)))
    if found.limit == 0:
        raise ValueError(f"{LOW:.0%} of the held-out images or more are training images: --reference must name others")
    return found
