"""The autoencoder under a latent model, as something to train."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base import pictures
from jaxdiff.base.fields import may_change
from jaxdiff.core import losses
from jaxdiff.data import Examples
from jaxdiff.data.augment import Augment, plain
from jaxdiff.data.examples import mixed
from jaxdiff.models.system import Constants, Fields
from jaxdiff.nets.bound import started
from jaxdiff.training.step import Seen


@dataclass(frozen=True)
class Autoencoding:
    """An autoencoder whose latents a diffusion model can be trained on."""

    network: nn.Module  # with encode and decode: nets.Autoencoder()
    distance: losses.Distance = losses.absolute  # of an image and its reconstruction
    kl: float = 1e-6  # how much the latents are drawn towards N(0, 1)
    shown: int = may_change(32)  # how many images the pictures of a run show

    def check(self) -> None:
        pass

    def fields(self, examples: Examples) -> Fields:
        return {}

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        return started(self.network, key, jnp.zeros(shape))

    def loss(
        self, augment: Augment, seen: Seen, constants: Constants, key: Array, u: Array, example: Fields, training: bool
    ) -> Array:
        for_image, for_loss = jax.random.split(key)
        model = self.network.bind({"params": seen.params})
        return losses.AutoencoderLoss(self.distance, self.kl)(model, for_loss, augment(for_image, example["image"]))

    def picture(self, params: Any, codec: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        """Images and, to the right of each, their reconstructions."""
        x = np.asarray(plain(held_out.images[mixed(len(held_out), self.shown)]))
        y = np.asarray(_reconstructed(self.network, params, x))
        return pictures.sheet(np.concatenate([x, y], 2), columns=4)


@partial(jax.jit, static_argnums=0)
def _reconstructed(network: nn.Module, params: Any, x: Array) -> Array:
    return jnp.asarray(network.apply({"params": params}, x))
