"""CIFAR-10 by a score SDE (Song et al. 2021a): exploding variance, NCSN++ in EDM's form, Gaussian Fourier features.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least 7.5 hours,
for a TPU v5e 29.
"""

from jaxdiff.core import c_noise
from jaxdiff.core.grids import Uniform
from jaxdiff.core.process import VE
from jaxdiff.core.samplers import PredictorCorrector
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, Diffusion
from jaxdiff.nets.unet import NCSNPP
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Diffusion(
        network=NCSNPP.clone(dropout=0.1),
        process=VE(0.02, 100.0),  # 0.01 to 50 for images in [0, 1]
        c_noise=c_noise.log_sigma,
        sampler=PredictorCorrector(),
        grid=Uniform(),
        steps=1000,
        clip=False,
    ),
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True),
    batch_size=128,
    training=Training(
        steps=1_300_000,
        optimiser=Adam(2e-4, Schedule(warmup=5000), clip=1.0),
        averages=(Ema(0.999),),
        show_every=10_000,
        save_every=5000,
    ),
)
