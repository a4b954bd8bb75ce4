"""CIFAR-10 by a score SDE (Song et al. 2021): exploding variance, NCSN++ in EDM's form, Gaussian Fourier features.

Cost and result: not trained to its end here yet.
"""

from jaxdiff import denoise
from jaxdiff.augment import Augment
from jaxdiff.averages import Ema
from jaxdiff.data import Tfds
from jaxdiff.experiment import Config
from jaxdiff.grids import Uniform
from jaxdiff.nets.unet import NCSNPP
from jaxdiff.optimisers import Adam, Schedule
from jaxdiff.process import VE
from jaxdiff.samplers import PredictorCorrector
from jaxdiff.systems import Diffusion
from jaxdiff.training import Training

config = Config(
    system=Diffusion(
        network=NCSNPP.clone(dropout=0.1),
        process=VE(0.02, 100.0),  # 0.01 to 50 for images in [0, 1]
        told=denoise.log_sigma,
        sampler=PredictorCorrector(),
        grid=Uniform(),
        steps=1000,
        clip=False,
    ),
    data=Tfds("cifar10"),
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
