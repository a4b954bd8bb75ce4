"""CIFAR-10 by flow matching (Lipman et al. 2023), times most often in the middle (Esser et al. 2024).

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least 1 hour,
for a TPU v5e 2.5.
"""

from jaxdiff.core import c_noise, grids, predictions, process, samplers, times
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, Diffusion, Labels
from jaxdiff.nets.unet import DDPM_CIFAR10
from jaxdiff.training import Adam, Ema, Schedule, Training

system = Diffusion(
    network=DDPM_CIFAR10.clone(classes=10),
    process=process.Flow(),
    prediction=predictions.flow,
    c_noise=c_noise.ScaledTime(1000.0),
    times=times.LogitNormal(),
    condition=Labels(10, drop=0.1),
    sampler=samplers.Heun(),
    grid=grids.Uniform(),
    steps=25,
    shown=80,
)
config = Config(
    system=system,
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True),
    batch_size=128,
    training=Training(
        steps=400_000,
        optimiser=Adam(2e-4, Schedule(warmup=5000), clip=1.0),
        averages=(Ema(0.9999),),
        show_every=5000,
        save_every=2500,
    ),
)
