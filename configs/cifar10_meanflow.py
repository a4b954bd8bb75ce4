"""CIFAR-10 in one step, from nothing: times, p and rates of MeanFlow (Geng et al. 2025), with labels beside.

Cost and result: only begun here.
"""

from dataclasses import replace

from configs.cifar10 import config as cifar10
from jaxdiff.core import c_noise, grids, predictions, process, samplers, times
from jaxdiff.core.few_steps import MeanFlowLoss
from jaxdiff.models import Diffusion, Labels
from jaxdiff.nets import GaussianFourier
from jaxdiff.nets.unet import DDPMPP
from jaxdiff.training import Adam, Ema, Schedule

system = Diffusion(
    network=DDPMPP.clone(classes=10, dropout=0.2, noise_embedding=GaussianFourier(1.0)),  # slow waves: they have a jvp
    process=process.Flow(),
    prediction=predictions.flow,
    c_noise=c_noise.time,
    objective=MeanFlowLoss(times.LogitNormal(-2.0, 2.0), p=0.75),
    condition=Labels(10, drop=0.1),
    sampler=samplers.Jump(),
    grid=grids.Uniform(),
    steps=1,
    shown=80,
)
config = replace(
    cifar10,
    system=system,
    training=replace(
        cifar10.training,
        steps=800_000,
        optimiser=Adam(6e-4, Schedule(warmup=10_000), clip=1.0),
        averages=(Ema(0.99995),),
    ),
)
