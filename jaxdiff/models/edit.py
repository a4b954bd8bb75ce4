"""What images are made from beside a seed: other starts, and what is known of the image."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.process import Process


class EditCondition(NamedTuple):
    """The condition of an edited image: what the edit knows of it, then the model's own condition if it has one."""

    by_edit: Any  # what `Edit.given` has of this image
    condition: tuple[Any, ...]  # the model's own, or nothing


@dataclass(frozen=True, eq=False)
class Edit:
    """What images are made from beside a seed: see `jaxdiff.models.editing`. The rows of its arrays take turns."""

    images: np.ndarray | None = None  # to start from, made as noisy as `strength` of the steps make them
    strength: float = 1.0
    noise: np.ndarray | None = None  # to start from, in place of the seed's
    given: Any = None  # what the denoiser that `transform` makes gets of each image
    transform: Callable[[Denoiser, Process], Denoiser] | None = None  # to one of (x_t, t, EditCondition)
    exact: bool = False  # `transform` comes after the threshold, which so leaves alone what it puts in
    kept: tuple[np.ndarray, np.ndarray] | None = None  # images and masks: what stays where these are 0
    shown: np.ndarray | None = None  # what was given, to be looked at

    def __len__(self) -> int:
        """How many given images there are."""
        return len(next((leaf for leaf in jax.tree.leaves((self.images, self.noise, self.given))), ((),)))

    def starts(self, numbers: np.ndarray) -> dict[str, Any]:
        """What the images of these numbers start from, for `sampling.batches`."""
        return {"images": turns(numbers, self.images), "noise": turns(numbers, self.noise)}

    def repeated(self, times: int) -> "Edit":
        """Each so many times in succession, for as many conditions."""
        return self._each(lambda leaf: np.repeat(leaf, times, 0))

    def rolled(self, first: int) -> "Edit":
        """With the first row for image `first`."""
        return self._each(lambda leaf: np.roll(leaf, first % len(self), 0))

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Edit":
        names = ("images", "noise", "given", "shown", "kept")
        return replace(self, **{name: jax.tree.map(change, getattr(self, name)) for name in names})

    def pasted(self, numbers: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Images with the pixels in them that are to stay: an autoencoder may have changed them."""
        if self.kept is None:
            return images
        known, mask = (turns(numbers, rows) for rows in self.kept)
        return np.where(mask > 0, images, known)


def turns(numbers: np.ndarray, rows: Any) -> Any:
    """A row for each number; of one row no copies are made. Nothing for nothing."""
    if rows is None:
        return None
    if len(rows) == 1:
        return np.broadcast_to(rows, (len(numbers), *rows.shape[1:]))
    return rows[numbers % len(rows)]
