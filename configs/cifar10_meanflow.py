"""CIFAR-10 in one step, from nothing, as mnist_meanflow but without guidance; times are spread more widely,
and three quarters of the examples are jumps, as in the paper.

Cost and result: only begun here, with a small network (docs/few_steps.md). Compiled for an H100
it takes at least 24 hours, for a TPU v5e 93.
"""

from dataclasses import replace

from configs.cifar10 import config as cifar10
from configs.mnist_meanflow import system
from jaxdiff.core import times
from jaxdiff.core.few_steps import MeanFlowLoss
from jaxdiff.nets import GaussianFourier
from jaxdiff.nets.unet import DDPMPP
from jaxdiff.training import Adam, Ema, Schedule

config = replace(
    cifar10,
    system=replace(
        system,
        network=DDPMPP.clone(classes=10, dropout=0.2, noise_embedding=GaussianFourier(1.0)),  # waves of t are slow
        objective=MeanFlowLoss(times.LogitNormal(-2.0, 2.0), instant=0.25, p=0.75),
        trained_scale=None,
    ),
    training=replace(
        cifar10.training,
        steps=800_000,
        optimiser=Adam(6e-4, Schedule(warmup=10_000), clip=1.0),
        averages=(Ema(0.99995),),
        keep_every=None,
    ),
)
