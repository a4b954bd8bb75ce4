"""What can be trained: a diffusion model, the autoencoder under a latent one, the classifier that guides one.

Each is a frozen value with the loss of one example and a picture of how far it is. The same step and loop train all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jaxdiff import denoise as d
from jaxdiff import grids, guidance, images, losses, samplers
from jaxdiff.augment import Augment, plain
from jaxdiff.conditions import Condition, Labels, labels_of
from jaxdiff.data import Examples
from jaxdiff.nets.autoencoder import Autoencoder, Codec
from jaxdiff.nets.classifier import Classifier
from jaxdiff.nets.layers import Net
from jaxdiff.parallel import Devices
from jaxdiff.process import Discrete, Karras, Process
from jaxdiff.rng import normal
from jaxdiff.sampling import sample

Fields = dict[str, Any]


class System(Protocol):
    def check(self) -> None:
        """Refuses what would come to light only when a picture is made."""

    def fields(self, examples: Examples) -> Fields:
        """What a batch holds: arrays with one row an example."""

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        """New parameters, for images (or latents) of this shape."""

    def loss(self, augment: Augment, params: Any, constants: Any, key: Array, u: Array, example: Fields) -> Array:
        """The loss of one example; `u` in [0, 1) is spread evenly over a batch."""

    def picture(self, params: Any, constants: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        """How far it is, always from the same seeds."""


@dataclass(frozen=True)
class Diffusion:
    """A network, what it predicts on which process, and how samples are drawn from it by default."""

    network: Net
    process: Process = Discrete()
    prediction: d.Prediction = d.noise
    input_scale: d.InputScale = d.unscaled
    told: d.Told = d.index
    weighting: losses.Weighting = losses.simple
    times: losses.Times = losses.Uniform()
    condition: Condition | None = None
    codec: str | None = None  # a run that trained an autoencoder, or a diffusers folder of one: makes the model latent
    encode: Literal["once", "each step"] = "once"  # all images before the training, or a batch as it comes
    sampler: samplers.Sampler = samplers.DDPM()
    grid: grids.Grid = grids.Trailing()
    steps: int = 100
    guidance_scale: float = 1.0
    clip: bool = True  # the clean image that is expected to [-1, 1]; not for latents
    shown: int = 64

    def check(self) -> None:
        self.times_of()
        self.denoiser({})

    def fields(self, examples: Examples) -> Fields:
        return {} if self.condition is None else self.condition.fields(examples)

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        known = getattr(self.network, "classes", None)
        if isinstance(self.condition, Labels) and known not in (None, self.condition.classes):
            raise ValueError(f"network.classes is {known}, condition.classes {self.condition.classes}: make them equal")
        condition = () if self.condition is None else (self.condition.null,)
        return jax.jit(self.network.init)(key, jnp.zeros(shape), jnp.zeros(()), *condition)["params"]

    def network_denoiser(self, params: Any, dropout: Array | None = None) -> d.NetworkDenoiser:
        """The denoiser that the parameters make; with a key for dropout the one that is trained."""
        apply = _apply if dropout is None else _apply_with_dropout
        network = jax.tree_util.Partial(apply, Static(self.network), params, *(() if dropout is None else (dropout,)))
        return d.NetworkDenoiser(network, self.process, self.prediction, self.input_scale, self.told)

    def loss(self, augment: Augment, params: Any, constants: Any, key: Array, u: Array, example: Fields) -> Array:
        for_image, for_latents, for_loss, for_dropout, for_condition = jax.random.split(key, 5)
        if "moments" in example:
            mean, deviation = jnp.split(example["moments"], 2, -1)
            x_0 = mean + deviation * normal(for_latents, mean.shape)
        else:
            x_0 = augment(for_image, example["image"])
            x_0 = x_0 if constants is None else constants.encode(x_0, for_latents)
        told = None if self.condition is None else self.condition.pick(for_condition, example)
        drop, null = (0.0, None) if self.condition is None else (self.condition.drop, self.condition.null)
        loss = losses.DenoisingLoss(self.weighting, self.times, drop, null if drop else None)
        return loss(self.network_denoiser(params, for_dropout), for_loss, x_0, told, u)

    def denoiser(
        self,
        params: Any,
        guidance_scale: float | None = None,
        *,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        threshold: float | None = None,
        log_prob: guidance.LogProb | None = None,
    ) -> d.Denoiser:
        """The denoiser to sample from, guided by the model's own condition, or by a classifier's `log_prob`.

        `interval` are the noise levels sigma / alpha at which it is guided, `threshold` the quantile at which the clean
        image is cut off: 1 at the range of the data, 0 not at all.
        """
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        plain: Any = self.network_denoiser(params)
        if self.condition is None and log_prob is not None:
            plain = guidance.Unconditional(plain)
        model = self._guided(plain, scale, rescale, log_prob)
        if interval is not None and model is not plain:
            model = guidance.Within(model, plain, self.process, *interval)
        return self.cut_off(model, threshold)

    def cut_off(self, model: d.Denoiser, threshold: float | None = None) -> d.Denoiser:
        if threshold is None:
            threshold = float(self.clip and self.codec is None)
        if threshold == 0:
            return model
        return guidance.Clip(model) if threshold == 1 else guidance.DynamicThreshold(model, threshold)

    def _guided(self, plain: d.Denoiser, scale: float, rescale: float, log_prob: guidance.LogProb | None) -> Any:
        conditional = self.condition is not None
        if log_prob is not None:
            return guidance.Classifier(plain, log_prob, self.process, scale, conditional)
        if scale == 1:
            return plain
        if self.condition is None:
            raise ValueError(
                f"guidance_scale={scale} needs a conditional model or a classifier, and this model has no condition"
            )
        if not self.condition.drop:
            raise ValueError(
                f"guidance_scale={scale} needs a model that was trained without its condition now and then: "
                f"condition.drop=0.1 does that; this one was not, and knows guidance_scale=1 only"
            )
        return guidance.ClassifierFree(plain, self.condition.null, scale, rescale)

    def times_of(self, steps: int | None = None) -> Array:
        return self.grid(self.process, self.steps if steps is None else steps)

    def picture(self, params: Any, constants: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        told, texts = None, None
        if self.condition is not None:
            choices, names = self.condition.choices(held_out.classes or ())
            turns = np.arange(self.shown) % len(names)
            told, texts = choices[turns], [names[i] for i in turns]
        x = sample(
            self.denoiser(params),
            self.process,
            self.sampler,
            self.times_of(),
            shape=shape,
            indices=self.shown,
            conditions=told,
        )
        return laid_out(decoded(constants, x), texts)


def edm(network: Net, sigma_data: float = 0.5, **fields: Any) -> Diffusion:
    """By EDM's recipe (Karras et al. 2022), for data of this deviation, sampled by DPM-Solver++; `fields` change it."""
    recipe: dict[str, Any] = {
        "process": Karras(),
        "prediction": d.EDM(sigma_data),
        "input_scale": d.UnitVariance(sigma_data),
        "told": d.quarter_log_sigma,
        "weighting": losses.EDM(sigma_data),
        "times": losses.LogNormal(),
        "sampler": samplers.DPMpp2M(),
        "grid": grids.Karras(),
        "steps": 20,
    }
    return Diffusion(network, **(recipe | fields))


@dataclass(frozen=True)
class Autoencoding:
    """An autoencoder whose latents a diffusion model can be trained on."""

    network: Autoencoder
    distance: losses.Distance = losses.absolute
    kl: float = 1e-6
    shown: int = 32

    def check(self) -> None:
        pass

    def fields(self, examples: Examples) -> Fields:
        return {}

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        return jax.jit(self.network.init)(key, jnp.zeros(shape))["params"]

    def loss(self, augment: Augment, params: Any, constants: Any, key: Array, u: Array, example: Fields) -> Array:
        for_image, for_loss = jax.random.split(key)
        model = self.network.bind({"params": params})
        return losses.AutoencoderLoss(self.distance, self.kl)(model, for_loss, augment(for_image, example["image"]))

    def picture(self, params: Any, constants: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        """Images and, to the right of each, their reconstructions."""
        x = np.asarray(plain(held_out.images[np.arange(min(self.shown, len(held_out)))]))
        y = np.asarray(_reconstructed(self.network, params, x))
        return images.sheet(np.concatenate([x, y], 2), columns=4)


@dataclass(frozen=True)
class Classification:
    """A classifier of noisy images on a process, for classifier guidance."""

    network: Classifier
    process: Process = Discrete()
    input_scale: d.InputScale = d.unscaled
    told: d.Told = d.index
    times: losses.Times = losses.Uniform()
    clean: float = 0.0  # the share of examples without noise
    shown: int = 1000

    def check(self) -> None:
        pass

    def fields(self, examples: Examples) -> Fields:
        return {"label": labels_of(examples, self.network.classes)}

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        return jax.jit(self.network.init)(key, jnp.zeros(shape), jnp.zeros(()))["params"]

    def logits(self, params: Any, x_t: Array, t: Array, dropout: Array | None = None) -> Array:
        c_in = self.input_scale(self.process.alpha(t), self.process.sigma(t))
        rngs = None if dropout is None else {"dropout": dropout}
        return jnp.asarray(self.network.apply({"params": params}, c_in * x_t, self.told(self.process, t), rngs=rngs))

    def log_prob(self, params: Any, x_t: Array, t: Array, label: Array) -> Array:
        """log p(label | x_t), as `guidance.Classifier` asks for it."""
        return jax.nn.log_softmax(self.logits(params, x_t, t))[label]

    def log_prob_of(self, params: Any) -> guidance.LogProb:
        """The same as a function of the rest: what classifier guidance needs."""
        return jax.tree_util.Partial(_log_prob, Static(self), params)

    def loss(self, augment: Augment, params: Any, constants: Any, key: Array, u: Array, example: Fields) -> Array:
        for_image, for_noise, for_dropout, for_clean = jax.random.split(key, 4)
        x_0 = augment(for_image, example["image"])
        t = jnp.where(jax.random.bernoulli(for_clean, self.clean), self.process.t_min, self.times(self.process, u))
        x_t = self.process.at(t).perturb(x_0, normal(for_noise, x_0.shape))
        logits = self.logits(params, x_t, t, for_dropout)
        return optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])

    def accuracy(self, params: Any, held_out: Examples, t: float, count: int) -> float:
        """The share of the first `count` images, made as noisy as at time t, that it tells."""
        labels = labels_of(held_out, self.network.classes)[:count]
        told = []
        for start in range(0, len(labels), 256):
            rows = np.arange(start, start + 256) % len(held_out)  # the last ones over again: one program for all
            told.append(np.asarray(_told_apart(self, params, held_out.images[rows], rows, t)))
        return float(np.mean(np.concatenate(told)[: len(labels)] == labels))

    def picture(self, params: Any, constants: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        """Eight images at each of eight noise levels; beside them, the share that it tells: of all clean ones first."""
        times = np.asarray(grids.LogSNR(to_data=False)(self.process, 7))[::-1]
        counts = [len(held_out), *[self.shown] * 7]
        shares = [self.accuracy(params, held_out, float(t), n) for t, n in zip(times, counts, strict=True)]
        levels = [float(self.process.at(jnp.asarray(t)).ratio) for t in times]
        x = plain(held_out.images[np.arange(8) % len(held_out)])
        noise = jax.vmap(lambda i: normal(jax.random.fold_in(jax.random.key(0), i), shape))(jnp.arange(8))
        noisy = np.concatenate([self.process.at(jnp.asarray(t)).perturb(x, noise) for t in times])
        labels = [f"noise {level:.2g}: {share:.2%}" for level, share in zip(levels, shares, strict=True)]
        return images.sheet(noisy, columns=8, labels=labels)


@partial(jax.jit, static_argnums=0)
def _reconstructed(network: Autoencoder, params: Any, x: Array) -> Array:
    return jnp.asarray(network.apply({"params": params}, x))


@partial(jax.jit, static_argnums=0)
def _told_apart(system: Classification, params: Any, x: Array, numbers: Array, t: Array) -> Array:
    def one(image: Array, number: Array) -> Array:
        noise = normal(jax.random.fold_in(jax.random.key(1), number), image.shape)
        return jnp.argmax(system.logits(params, system.process.at(t).perturb(plain(image), noise), t))

    return jax.vmap(one)(x, numbers)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """A value as a part of a tree that holds no arrays: programs compiled for equal values are shared."""

    value: Any


def _apply(static: Static, params: Any, x: Array, told: Array, *condition: Any) -> Any:
    return static.value.apply({"params": params}, x, told, *condition)


def _log_prob(static: Static, params: Any, x_t: Array, t: Array, label: Array) -> Array:
    return static.value.log_prob(params, x_t, t, label)


def _apply_with_dropout(static: Static, params: Any, key: Array, x: Array, told: Array, *condition: Any) -> Any:
    return static.value.apply({"params": params}, x, told, *condition, rngs={"dropout": key})


def decoded(codec: Codec | None, x: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] of what was sampled, a few at a time."""
    return x if codec is None else in_parts(_decode, codec, x)


def in_parts(function: Callable[[Codec, Array], Array], codec: Codec, x: np.ndarray, size: int = 16) -> np.ndarray:
    """function(codec, x), a few images at a time on all devices: an autoencoder takes much memory."""
    group = Devices()
    size, codec = group.round_up(min(size, len(x))), group.replicate(codec)
    parts = [
        np.asarray(function(codec, group.shard(x[np.arange(i, i + size) % len(x)]))) for i in range(0, len(x), size)
    ]
    return np.concatenate(parts)[: len(x)]


@jax.jit
def _decode(codec: Codec, z: Array) -> Array:
    return codec.decode(z)


def laid_out(x: np.ndarray, texts: list[str] | None) -> np.ndarray:
    """Samples as a picture: a row for each text if they come round and round, else a square."""
    distinct = list(dict.fromkeys(texts or []))
    if len(distinct) < 2 or len(x) % len(distinct):
        return images.sheet(x)
    order = np.arange(len(x)).reshape(-1, len(distinct)).T.reshape(-1)
    return images.sheet(x[order], columns=len(x) // len(distinct), labels=distinct)
