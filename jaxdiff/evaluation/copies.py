"""Which images are copies of training images: exactly, mirrored, moved by a pixel, or compressed in between.

An image is judged by a ratio: how far its nearest training image is, of how far its next ones are. That of an image
drawn anew is near 1, whatever kind it is; that of a copy is near 0. Held-out images say how low it falls by chance.
"""

from dataclasses import dataclass

import numpy as np

from jaxdiff.evaluation.neighbours import nearest

MARGIN, RARE = 0.6, 0.005  # a copy has a ratio below this share of what all but so many held-out images have
_NEXT = 10  # training images, whose distance is the usual one


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each image the nearest training image, and how near."""

    index: np.ndarray  # [n]
    distance: np.ndarray  # root mean square, in gray levels of 255
    ratio: np.ndarray


def nearest_training_images(images: np.ndarray, training: np.ndarray) -> Nearest:
    """Of uint8 images [n, height, width, channels], with and without mirroring, moved by up to a pixel.

    All are smoothed before they are compared: what compression adds is in the finest detail, what tells images apart
    is not.
    """
    rows = _coarse(training)
    plain, there = nearest(_coarse(images), rows, _NEXT)
    moved = [np.roll(images, move, axis) for move in (-1, 1) for axis in (1, 2)]
    others = [nearest(_coarse(each), rows, 4)[1] for each in (images[:, :, ::-1], *moved)]
    candidates = np.concatenate([there, *others], 1)
    index, distance = np.zeros(len(images), int), np.zeros(len(images))
    for i, image in enumerate(images):
        each = _moved_distances(_smooth(image[None])[0], _smooth(training[candidates[i]]))
        index[i], distance[i] = candidates[i][each.argmin()], each.min()
    usual = plain[:, 1:].mean(1) / np.sqrt(rows.shape[1])
    return Nearest(index, distance, distance / np.maximum(usual, 1e-6))


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
    limit: float  # a ratio below it is no chance

    @property
    def copied(self) -> np.ndarray:
        """Whether each sample is a copy."""
        return self.samples.ratio < self.limit

    @property
    def closer(self) -> float:
        """The share of samples whose ratio is below the median of held-out images: a half, if nothing is copied."""
        return float(np.mean(self.samples.ratio < np.median(self.held_out.ratio)))

    def quantiles(self) -> dict[str, tuple[float, float]]:
        """Of the distances, of samples and of held-out images."""
        at = (0.01, 0.1, 0.5)
        both = (np.quantile(each.distance, at) for each in (self.samples, self.held_out))
        return {f"{share:.0%}": pair for share, *pair in zip(at, *both, strict=True)}  # type: ignore[misc]


def copies(samples: np.ndarray, held_out: np.ndarray, training: np.ndarray) -> Copies:
    mine, theirs = (nearest_training_images(images, training) for images in (samples, held_out))
    return Copies(mine, theirs, MARGIN * float(np.quantile(theirs.ratio, RARE)))
