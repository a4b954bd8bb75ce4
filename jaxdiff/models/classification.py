"""The classifier of noisy images that guides a model, as something to train."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Array

from jaxdiff.base import pictures
from jaxdiff.base.checks import require, takes
from jaxdiff.base.fields import may_change
from jaxdiff.core import grids
from jaxdiff.core.c_noise import CNoise, index
from jaxdiff.core.inputs import InputScale, unscaled
from jaxdiff.core.process import Process
from jaxdiff.core.rng import normal
from jaxdiff.core.tables import Discrete
from jaxdiff.core.times import Times, UniformTimes
from jaxdiff.data import Examples
from jaxdiff.data.augment import Augment, plain
from jaxdiff.data.examples import mixed
from jaxdiff.models.conditions import labels_of
from jaxdiff.models.system import Constants, Fields
from jaxdiff.nets.bound import Bound, started
from jaxdiff.training.step import Seen


@dataclass(frozen=True)
class Classification:
    """A classifier of noisy images on a process, for classifier guidance."""

    network: nn.Module  # (x, c_noise) -> logits, of `classes` classes: nets.EncoderUNet(classes=10)
    process: Process = Discrete()  # that of the model which it is to guide
    input_scale: InputScale = unscaled  # c_in, by which the network's input is multiplied
    c_noise: CNoise = index  # the noise level as the network is told it
    times: Times = UniformTimes()  # which noise levels are trained on, and how often
    clean: float = 0.0  # the share of examples without noise
    shown: int = may_change(1000)  # how many held-out images are classified for a row of accuracies

    def check(self) -> None:
        known = isinstance(getattr(self.network, "classes", None), int)
        require(known, "a network that says how many classes, such as EncoderUNet(classes=10)", self.network)

    def fields(self, examples: Examples) -> Fields:
        return {"label": labels_of(examples, self.network.classes)}

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        takes(type(self.network).__call__, "self", "x", "c_noise")
        return started(self.network, key, jnp.zeros(shape), jnp.zeros(()))

    def logits(self, params: Any, x_t: Array, t: Array, dropout: Array | None = None) -> Array:
        c_in = self.input_scale(self.process.alpha(t), self.process.sigma(t))
        network = Bound(self.network, params, dropout)
        return jnp.asarray(network(c_in * x_t, self.c_noise(self.process, t)))

    def log_prob(self, params: Any, x_t: Array, t: Array, label: Array) -> Array:
        """log p(label | x_t)."""
        return jax.nn.log_softmax(self.logits(params, x_t, t))[label]

    def loss(
        self, augment: Augment, seen: Seen, constants: Constants, key: Array, u: Array, example: Fields, training: bool
    ) -> Array:
        for_image, for_noise, for_dropout, for_clean = jax.random.split(key, 4)
        x_0 = augment(for_image, example["image"])
        noisy = jnp.minimum(self.times(self.process, u), self.process.t_max)
        t = jnp.where(jax.random.bernoulli(for_clean, self.clean), self.process.t_min, noisy)
        x_t = self.process.at(t).perturb(x_0, normal(for_noise, x_0.shape))
        logits = self.logits(seen.params, x_t, t, for_dropout if training else None)
        return optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])

    def accuracy(self, params: Any, held_out: Examples, t: float, count: int) -> float:
        """The share of `count` of the images, made as noisy as at time t, that it classifies correctly."""
        some = mixed(len(held_out), count)
        labels = labels_of(held_out, self.network.classes)[some]
        guesses = []
        for start in range(0, len(labels), 256):
            rows = some[np.arange(start, start + 256) % len(some)]  # the last ones over again: one program for all
            guesses.append(np.asarray(_guessed(self, params, held_out.images[rows], rows, t)))
        return float(np.mean(np.concatenate(guesses)[: len(labels)] == labels))

    def picture(self, params: Any, codec: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        """Eight images at each of eight noise levels, and the share of correct guesses, at the lowest of all images."""
        times = np.asarray(grids.LogSNR(to_data=False)(self.process, 7))[::-1]
        counts = [len(held_out), *[self.shown] * 7]
        shares = [self.accuracy(params, held_out, float(t), n) for t, n in zip(times, counts, strict=True)]
        levels = [float(self.process.at(jnp.asarray(t)).ratio) for t in times]
        x = plain(held_out.images[np.resize(mixed(len(held_out), 8), 8)])
        noise = jax.vmap(lambda i: normal(jax.random.fold_in(jax.random.key(0), i), shape))(jnp.arange(8))
        noisy = np.concatenate([self.process.at(jnp.asarray(t)).perturb(x, noise) for t in times])
        labels = [f"noise {level:.2g}: {share:.2%}" for level, share in zip(levels, shares, strict=True)]
        return pictures.sheet(noisy, columns=8, labels=labels)


@partial(jax.jit, static_argnums=0)
def _guessed(system: Classification, params: Any, x: Array, numbers: Array, t: Array) -> Array:
    def one(image: Array, number: Array) -> Array:
        noise = normal(jax.random.fold_in(jax.random.key(1), number), image.shape)
        return jnp.argmax(system.logits(params, system.process.at(t).perturb(plain(image), noise), t))

    return jax.vmap(one)(x, numbers)


@struct.dataclass
class LogProb:
    """log p(label | x_t) of a trained classifier, as `guidance.ClassifierGuidance` asks for it."""

    system: Classification = struct.field(pytree_node=False)
    params: Any

    def __call__(self, x_t: Array, t: Array, label: Array) -> Array:
        return self.system.log_prob(self.params, x_t, t, label)
