"""The diffusion model, as something to train and to sample from."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base.checks import require, takes, whole
from jaxdiff.base.fields import may_change
from jaxdiff.base.pictures import laid_out
from jaxdiff.core import grids, guidance, losses, predictions, samplers, weightings
from jaxdiff.core.arguments import check_parts
from jaxdiff.core.c_noise import CNoise, index, quarter_log_sigma
from jaxdiff.core.denoise import Denoiser, NetworkDenoiser
from jaxdiff.core.few_steps import FewSteps, TrajectoryEnd
from jaxdiff.core.flow_maps import ConsistencyModel
from jaxdiff.core.inputs import InputScale, UnitVariance, unscaled
from jaxdiff.core.process import LinearVE, Process
from jaxdiff.core.rng import normal
from jaxdiff.core.samplers.base import FlowMap
from jaxdiff.core.sampling import sample
from jaxdiff.core.tables import LONGEST, Discrete
from jaxdiff.core.times import LogNormal, Times, UniformTimes
from jaxdiff.data import Examples
from jaxdiff.data.augment import Augment
from jaxdiff.models.conditions import Condition, Labels, for_condition
from jaxdiff.models.latents import decoded
from jaxdiff.models.system import Constants, Fields
from jaxdiff.nets.bound import Bound, started
from jaxdiff.training.step import Seen


@dataclass(frozen=True)
class Diffusion:
    """A network, what it predicts on which process, and how samples are drawn from it by default."""

    network: nn.Module  # (x, c_noise), or (x, c_noise, condition), -> F of the shape of x
    process: Process = Discrete()  # how noise is added
    prediction: predictions.Prediction = predictions.noise  # what the network's output is: noise, data, velocity ..
    input_scale: InputScale = unscaled  # c_in, by which the network's input is multiplied
    c_noise: CNoise = index  # the noise level as the network is told it
    weighting: weightings.Weighting | None = None  # None: the network's own error counts evenly
    times: Times = UniformTimes()  # which noise levels are trained on, and how often
    objective: FewSteps | None = None  # of a model of few steps, with times of its own; None: to denoise
    trained_scale: float | tuple[float, float] | None = None  # of guidance, that such a model learns; or from .. to
    condition: Condition | None = None  # Labels(..) or Prompts(..); None: it is told nothing
    codec: str | None = None  # a run that trained an autoencoder, or a diffusers folder of one: makes the model latent
    encode: Literal["once", "each step"] = "once"  # all images before the training, or a batch as it comes
    sampler: samplers.Sampler = may_change(samplers.DDPM())  # by which it is drawn unless said otherwise
    grid: grids.Grid = may_change(grids.Trailing())  # at which times the sampler steps
    steps: int = may_change(100)  # of the sampler
    guidance_scale: float = may_change(1.0)  # 0: unconditional; 1: the conditional model; above: sharper
    clip: bool = may_change(True)  # the expected clean image to [-1, 1]; not for latents
    shown: int = may_change(64)  # how many images the pictures of a run show

    def __post_init__(self) -> None:
        require(1 <= self.shown <= 2**16, "shown from 1 to 65536", self.shown)
        own = self.objective is None or (self.weighting is None and self.times == UniformTimes())
        require(own, "neither weighting nor times beside an objective, which has its own", self.objective)
        if self.trained_scale is not None:
            require(self.objective is not None, "an objective of few steps that learns it", self.trained_scale)
            require(self.scales[0] <= self.scales[1], "a scale, or two that rise", self.trained_scale)
            known = not self.told_scale or self.scales[0] <= self.guidance_scale <= self.scales[1]
            require(known, f"a guidance_scale that trained_scale={self.trained_scale} has", self.guidance_scale)
            learns = self.condition is not None and self.condition.drop > 0
            require(learns, "a condition that is dropped now and then, such as Labels(drop=0.1)", self.condition)

    def check(self) -> None:
        takes(self.prediction, "alpha", "sigma")
        takes(self.input_scale, "alpha", "sigma")
        takes(self.c_noise, "process", "t")
        takes(self.grid, "process", "steps")
        if self.objective is not None:
            self.objective.check(self.network_denoiser({}))
        check_parts(self.denoiser({}), self.process, self.sampler, grids.checked(self.times_of()))

    @property
    def scales(self) -> tuple[float, float]:
        """The lowest and the highest guidance scale that a model of few steps knows."""
        scale = 1.0 if self.trained_scale is None else self.trained_scale
        return scale if isinstance(scale, tuple) else (scale, scale)

    @property
    def told_scale(self) -> bool:
        """Whether the network is told the scale."""
        return self.scales[0] < self.scales[1]

    @property
    def walks(self) -> TrajectoryEnd | None:
        """The walks of its teacher that it learns of."""
        return None if self.objective is None else self.objective.walks

    @property
    def wants_teacher(self) -> bool:
        """Whether it learns of the model that it starts from, not only from its parameters."""
        mine = self.objective
        guided = self.trained_scale is not None
        return mine is not None and (mine.needs_teacher or (guided and not mine.guides_itself))

    def fields(self, examples: Examples) -> Fields:
        return {} if self.condition is None else self.condition.fields(examples)

    @property
    def net(self) -> nn.Module:
        """The network, with what it takes from the condition."""
        return for_condition(self.network, self.condition)

    def start(self, key: Array, shape: tuple[int, ...]) -> Any:
        known = getattr(self.network, "classes", None)
        if isinstance(self.condition, Labels) and known not in (None, self.condition.classes):
            raise ValueError(f"network.classes is {known}, condition.classes {self.condition.classes}: make them equal")
        condition = () if self.condition is None else (self.condition.null,)
        takes(type(self.net).__call__, "self", "x", "c_noise", *["condition"] * len(condition))
        more = self.told_scale + (0 if self.objective is None else self.objective.more_numbers)
        return started(self.net, key, jnp.zeros(shape), jnp.zeros((1 + more,) if more else ()), *condition)

    def network_denoiser(
        self, params: Any, dropout: Array | None = None, scale: Array | float | None = None
    ) -> NetworkDenoiser:
        """The denoiser that the parameters make; with a key for dropout the one that is trained."""
        network = Bound(self.net, params, dropout)
        told = (self.scales[0] if scale is None else scale,) if self.told_scale else ()
        return NetworkDenoiser(network, self.process, self.prediction, self.input_scale, self.c_noise, told)

    def loss(
        self, augment: Augment, seen: Seen, constants: Constants, key: Array, u: Array, example: Fields, training: bool
    ) -> Array:
        for_image, for_latents, for_loss, for_dropout, for_condition, for_drop, for_scale = jax.random.split(key, 7)
        if "moments" in example:
            moments = example["moments"]
            if augment.flip:  # there are those of the image and of its mirror image
                moments = moments[jax.random.bernoulli(for_image).astype(jnp.int32)]
            mean, deviation = jnp.split(moments, 2, -1)
            x_0 = mean + deviation * normal(for_latents, mean.shape)
        else:
            x_0 = augment(for_image, example["image"])
            x_0 = x_0 if constants.codec is None else constants.codec.encode(x_0, for_latents)
        condition = None if self.condition is None else self.condition.pick(for_condition, example)
        if self.condition is not None and self.condition.drop and training:
            condition = losses.dropped(for_drop, condition, self.condition.null, self.condition.drop)
        dropout = for_dropout if training else None
        if self.objective is None:
            return self.denoising(self.network_denoiser(seen.params, dropout), for_loss, x_0, condition, u)
        low, high = self.scales
        scale = None if self.trained_scale is None else jax.random.uniform(for_scale, minval=low, maxval=high)
        return self.objective(
            self.network_denoiser(seen.params, dropout, scale),
            for_loss,
            x_0,
            condition,
            u,
            step=seen.step,
            ema=self.network_denoiser(seen.ema[0], None, scale),
            teacher=constants.teacher and constants.teacher(scale),
            trajectories=constants.trajectories,
            null=self.condition and self.condition.null,
            scale=scale,
        )

    def denoising(self, model: NetworkDenoiser, key: Array, x_0: Array, condition: Any, u: Array) -> Array:
        """The loss of one example, where there is no objective: override it for a loss of your own."""
        return losses.DenoisingLoss(self.weighting, self.times)(model, key, x_0, condition, u)

    def denoiser(
        self,
        params: Any,
        guidance_scale: float | None = None,
        *,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        threshold: float | None = None,
        log_prob: guidance.LogProb | None = None,
    ) -> Denoiser:
        """The denoiser to sample from, guided by the model's own condition, or by a classifier's `log_prob`.

        `interval` are the noise levels sigma / alpha at which it is guided, `threshold` the quantile at which the clean
        image is cut off: 1 at the range of the data, 0 not at all.
        """
        scale = self.scale_of(guidance_scale)
        if self.objective is not None:
            if rescale or interval is not None or log_prob is not None:
                raise ValueError("a model of few steps is not guided further: leave out classifier, rescale, interval")
            flow_map = self.objective.flow_map(self.network_denoiser(params, scale=scale))
            if threshold and not isinstance(flow_map, ConsistencyModel):
                raise ValueError(
                    f"a {type(flow_map).__name__} has no expected clean image to cut off: leave out threshold"
                )
            return self.cut_off(flow_map, threshold)
        plain: Any = self.network_denoiser(params)
        if self.condition is None and log_prob is not None:
            plain = guidance.Unconditional(plain)
        model = self._guided(plain, scale, rescale, log_prob)
        if interval is not None and model is not plain:
            model = guidance.Within(model, plain, self.process, *interval)
        return self.cut_off(model, threshold)

    def scale_of(self, given: float | None) -> float:
        """The guidance scale that is given, or else the usual one."""
        if self.objective is None:
            return self.guidance_scale if given is None else given
        low, high = self.scales
        if given is None or low <= given <= high:
            return min(max(self.guidance_scale if given is None else given, low), high)
        if self.trained_scale is None:
            raise ValueError(f"guidance_scale={given:g} needs a model of few steps that has learnt it: trained_scale")
        knows = f"from {low:g} to {high:g}" if low < high else f"{low:g}, which it has built in"
        raise ValueError(f"this model of few steps knows the guidance_scale {knows}; got {given:g}")

    def cut_off(self, model: Denoiser, threshold: float | None = None) -> Denoiser:
        if isinstance(model, ConsistencyModel):
            return ConsistencyModel(self.cut_off(model.end, threshold))
        if isinstance(model, FlowMap):  # it jumps to what is noisy too
            return model
        if threshold is None:
            threshold = float(self.clip and self.codec is None)
        if threshold == 0:
            return model
        return guidance.Clip(model) if threshold == 1 else guidance.DynamicThreshold(model, threshold)

    def _guided(self, plain: Denoiser, scale: float, rescale: float, log_prob: guidance.LogProb | None) -> Any:
        conditional = self.condition is not None
        if log_prob is not None:
            return guidance.ClassifierGuidance(plain, log_prob, self.process, scale, conditional)
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
        return guidance.ClassifierFreeGuidance(plain, self.condition.null, scale, rescale)

    def times_of(self, steps: int | None = None) -> Array:
        steps = whole("steps", self.steps if steps is None else steps, 1, LONGEST + 1)
        return self.grid(self.process, steps)

    def picture(self, params: Any, codec: Any, shape: tuple[int, ...], held_out: Examples) -> np.ndarray:
        conditions, texts = None, None
        if self.condition is not None:
            choices, names = self.condition.choices(held_out.classes or ())
            turns = np.arange(self.shown) % len(names)
            if len(names) > self.shown:  # some of all
                turns = np.linspace(0, len(names) - 1, self.shown).round().astype(int)
            conditions, texts = choices[turns], [names[i] for i in turns]
        x = sample(
            self.denoiser(params),
            self.process,
            self.sampler,
            self.times_of(),
            shape=shape,
            indices=self.shown,
            conditions=conditions,
        )
        return laid_out(decoded(codec, x), texts)


def edm(network: nn.Module, sigma_data: float = 0.5, **fields: Any) -> Diffusion:
    """By EDM's recipe (Karras et al. 2022), for data of this deviation, sampled by DPM-Solver++; `fields` change it."""
    recipe: dict[str, Any] = {
        "process": LinearVE(),
        "prediction": predictions.EDMPreconditioning(sigma_data),
        "input_scale": UnitVariance(sigma_data),
        "c_noise": quarter_log_sigma,
        "times": LogNormal(),
        "sampler": samplers.DPMpp2M(),
        "grid": grids.Karras(),
        "steps": 20,
    }
    return Diffusion(network, **(recipe | fields))
