"""What a system is: a value with the loss of one example and a picture of how far it is."""

from typing import Any, Protocol

import numpy as np
from jaxtyping import Array

from jaxdiff.data import Examples
from jaxdiff.data.augment import Augment

Fields = dict[str, Any]


class System(Protocol):
    def check(self) -> None:
        """Refuses what would come to light only when a picture is made."""

    def fields(self, examples: Examples) -> Fields:
        """What a batch holds: arrays with one row an example."""

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        """New parameters, for images (or latents) of this shape."""

    def loss(
        self, augment: Augment, params: Any, constants: Any, key: Array, u: Array, example: Fields, training: bool
    ) -> Array:
        """The loss of one example; `u` in [0, 1) is spread evenly over a batch. Not `training`, nothing is dropped."""

    def picture(self, params: Any, constants: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        """How far it is, always from the same seeds."""
