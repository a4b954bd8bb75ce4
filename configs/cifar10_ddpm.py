"""CIFAR-10 by DDPM as published (Ho et al. 2020): 35.7 million parameters, 1,000 steps, 800,000 steps of training.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least 2 hours,
for a TPU v5e 5.
"""

from jaxdiff.core.samplers import DDPM
from jaxdiff.core.tables import Discrete
from jaxdiff.core.times import steps
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, Diffusion
from jaxdiff.nets.unet import DDPM_CIFAR10
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Diffusion(
        network=DDPM_CIFAR10, process=Discrete(), times=steps, sampler=DDPM(variance=1.0), steps=1000, shown=16
    ),
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True),
    batch_size=128,
    training=Training(
        steps=800_000,
        optimiser=Adam(2e-4, Schedule(warmup=5000), clip=1.0),
        averages=(Ema(0.9999),),
        show_every=10_000,
        save_every=5000,
    ),
)
