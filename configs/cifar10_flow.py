"""CIFAR-10 by flow matching (Lipman et al. 2023), times most often in the middle (Esser et al. 2024).

Cost and result: not trained to its end here yet.
"""

from jaxdiff import denoise, grids, losses, process, samplers
from jaxdiff.augment import Augment
from jaxdiff.averages import Ema
from jaxdiff.conditions import Labels
from jaxdiff.data import Tfds
from jaxdiff.experiment import Config
from jaxdiff.nets.unet import DDPM_CIFAR10
from jaxdiff.optimisers import Adam, Schedule
from jaxdiff.systems import Diffusion
from jaxdiff.training import Training

system = Diffusion(
    network=DDPM_CIFAR10.clone(classes=10),
    process=process.Flow(),
    prediction=denoise.flow,
    told=denoise.ScaledTime(1000.0),
    weighting=losses.flow,
    times=losses.LogitNormal(),
    condition=Labels(10, drop=0.1),
    sampler=samplers.Heun(),
    grid=grids.Uniform(),
    steps=25,
    shown=80,
)
config = Config(
    system=system,
    data=Tfds("cifar10"),
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
