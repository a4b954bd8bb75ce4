"""What the tests walk over: processes, samplers, and denoisers whose answers are known."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxdiff.core import grids, predictions, process, samplers, tables
from jaxdiff.core.c_noise import time
from jaxdiff.core.exact import Mixture
from jaxdiff.models import Diffusion
from jaxdiff.nets.layers import Net

PROCESSES = (
    tables.Discrete(),
    tables.Discrete(tables.LinearBetas(20, 0.001, 0.7)),
    tables.Discrete(tables.ZeroTerminalSNR(tables.ScaledLinearBetas())),
    process.VP(),
    process.SubVP(),
    process.Cosine(),
    process.Flow(),
    process.VE(),
    process.PowerVE(),
    process.LinearVE(),
)
DETERMINISTIC = (
    samplers.DDPM(noise=0.0),
    samplers.DDIM(),
    samplers.Euler(),
    samplers.Heun(),
    samplers.EDM(),
    samplers.DPMpp2S(),
    samplers.DPMpp2M(),
    samplers.UniPC(1),
    samplers.UniPC(2),
    samplers.UniPC(3),
    samplers.AdaptiveODE(),
)
STOCHASTIC = (
    samplers.DDPM(),
    samplers.DDPM(variance=0.5, noise=0.5),
    samplers.DDPM(variance=1.0),
    samplers.DDIM(eta=0.5),
    samplers.EDM(churn=4.0),
    samplers.DPMpp2M(eta=1.0),
    samplers.EulerMaruyama(),
    samplers.ReverseDiffusion(),
    samplers.Langevin(),
    samplers.PredictorCorrector(),
    samplers.Resampling(times=2),
)
SAMPLERS = DETERMINISTIC + STOCHASTIC
GAUSSIAN = Mixture((0.3,), 0.5)


def name(value):
    if isinstance(value, tables.Discrete):
        return f"{type(value).__name__}({type(value.betas).__name__}{value.steps})"
    return getattr(value, "__name__", str(value))


@functools.cache  # one and the same denoiser is compiled once
def gaussian(process):
    return partial(GAUSSIAN.denoise, process)


def grid_for(sampler, process, steps):
    """A grid from noise to clean data on which the sampler is at home."""
    if isinstance(sampler, samplers.AdaptiveODE):
        return grids.Uniform(first=process.t_max)(process, 1)
    return grids.LogSNR()(process, steps)


def truth(prediction, point, x_0, eps):
    """What a network of this type should say of x_t = alpha x_0 + sigma eps, from the papers' definitions."""
    if isinstance(prediction, predictions.EDMPreconditioning):
        a, s, d = point.alpha, point.sigma, prediction.sigma_data
        variance = (a * d) ** 2 + s**2
        return (x_0 - a * d**2 / variance * point.perturb(x_0, eps)) / (s * d / jnp.sqrt(variance))
    return {
        predictions.data: x_0,
        predictions.noise: eps,
        predictions.velocity: point.alpha * eps - point.sigma * x_0,
        predictions.score: -eps / point.sigma,
        predictions.flow: eps - x_0,
    }[prediction]


# --- a network whose answers are known ------------------------------------------------------------------------------

MEANS = (-0.5, 0.1, 0.4)  # of all pixels, under each label


def log_shares(x, t):
    """log p(label | x_t) on `Flow`, but for a constant."""
    means, variance = jnp.asarray(MEANS), (0.5 * (1 - t)) ** 2 + t**2
    return (1 - t) * means * (jnp.sum(x) - (1 - t) * means * x.size / 2) / variance


class Exact(Net):
    """Exact, by EDM's prediction, for the Gaussian of a label, or without one the mixture. It has no parameters."""

    classes: int = len(MEANS)

    @nn.compact
    def __call__(self, x, t, label=None):
        means = jnp.asarray(MEANS)
        mean = jax.nn.softmax(log_shares(x, t)) @ means
        if label is not None:
            mean = jnp.where(label < len(MEANS), means[jnp.minimum(label, len(MEANS) - 1)], mean)
        return jnp.full_like(x, 2 * t * mean / jnp.sqrt((0.5 * (1 - t)) ** 2 + t**2))


class ExactClassifier(Net):
    """The logits that go with it."""

    classes: int = len(MEANS)

    @nn.compact
    def __call__(self, x, t):
        return log_shares(x, t)


def exact_system(**fields):
    """A model without training, on a straight line from pure noise."""
    flow = {
        "process": process.Flow(),
        "prediction": predictions.EDMPreconditioning(0.5),
        "c_noise": time,
        "clip": False,
    }
    return Diffusion(Exact(), **flow, **{"sampler": samplers.DDIM(), "grid": grids.Uniform(), "steps": 10} | fields)
