"""What a system is: a value with the loss of one example and a picture of how far it is."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Array

from jaxdiff.data import Examples
from jaxdiff.data.augment import Augment
from jaxdiff.training.step import Seen

Fields = dict[str, Any]


class Constants(NamedTuple):
    """Other networks that a loss may need; neither is trained."""

    codec: Any = None  # of a latent model whose latents are not made beforehand
    teacher: Any = None  # the model from which a model of few steps begins
    trajectories: Any = None  # and walks of it


class System(Protocol):
    """What can be trained: parameters to begin with, the loss of one example, a picture to look at."""

    def check(self) -> None:
        """Refuses what would come to light only when a picture is made."""

    def fields(self, examples: Examples) -> Fields:
        """What a batch holds: arrays with one row an example."""

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        """New parameters, for images (or latents) of this shape."""

    def loss(
        self, augment: Augment, seen: Seen, constants: Constants, key: Array, u: Array, example: Fields, training: bool
    ) -> Array:
        """The loss of one example; `u` in [0, 1) is spread evenly over a batch. Not `training`, nothing is dropped."""

    def picture(self, params: Any, codec: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        """How far it is, always from the same seeds."""
