"""The loss of images that are held out: the same images under the same noise each time, so that it can be compared."""

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxdiff.data import Examples
from jaxdiff.data.augment import Augment, plain
from jaxdiff.data.examples import mixed
from jaxdiff.models.system import Constants, System
from jaxdiff.training.state import HELD_OUT
from jaxdiff.training.step import Seen

COUNT, LEVELS = 128, 8  # images, each at so many noise levels
COLUMNS = (
    HELD_OUT,
    *(f"{HELD_OUT}_{level}" for level in range(1, LEVELS + 1)),
)  # in all, and from little noise to much


class HeldOut:
    """`encoded`: latents are made beforehand. So many losses are computed `together`, as in a training step."""

    def __init__(
        self,
        system: System,
        examples: Examples,
        constants: Constants,
        encoded: bool,
        together: int,
        dequantize: bool = False,
    ):
        self._system, self._examples, self._together = system, examples, together
        self._augment = Augment(dequantize=dequantize)  # the only part of it by which images stay what they are
        self._constants, self._encoded = constants, encoded

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """Of some images, always the same."""
        some = mixed(len(self._examples), COUNT)
        own = {name: np.asarray(field[some]) for name, field in self._system.fields(self._examples).items()}
        images = np.asarray(self._examples.images[some])
        if not self._encoded:
            return {"image": images, **own}
        parts = np.array_split(images, -(-len(images) // 16))
        return {"moments": np.concatenate([self._constants.codec.moments(plain(part)) for part in parts]), **own}

    def numbers(self, params: Any, step: int) -> dict[str, float]:
        """The losses, by column: at times spread evenly over those trained on, and so like the loss in training."""
        constants = self._constants._replace(codec=None) if self._encoded else self._constants
        seen, how = Seen(params, (params,), jnp.int32(step)), (self._system, self._augment, self._together)
        losses = np.asarray(_losses(*how, seen, constants, self._rows), np.float64)
        return dict(zip(COLUMNS, map(float, (losses.mean(), *losses.mean(0))), strict=True))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _losses(
    system: System, augment: Augment, together: int, seen: Seen, constants: Constants, examples: dict[str, Array]
) -> Array:
    """[images, levels], without dropout."""
    count = len(next(iter(examples.values())))
    key = jax.random.key(0, impl="threefry2x32")

    def one(place: Array) -> Array:
        example = {name: field[place // LEVELS] for name, field in examples.items()}
        u = (place % LEVELS + 0.5) / LEVELS
        return system.loss(augment, seen, constants, jax.random.fold_in(key, place), u, example, False)

    return lax.map(one, jnp.arange(count * LEVELS), batch_size=together).reshape(count, LEVELS)
