"""A classifier of noisy CIFAR-10 images, on the process of config cifar10: the judge of its tracks in SPEEDRUN.md.

87.3% of the clean test images, after 4,340 steps in 115 minutes on one slow CPU core (SPEEDRUN.md). Compiled for an
H100 or a TPU v5e it takes at least three seconds.
"""

from jaxdiff.core import c_noise, inputs, process, times
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Classification, Config
from jaxdiff.nets import EncoderUNet, GaussianFourier
from jaxdiff.training import Ema, Muon, Schedule, Training

config = Config(
    system=Classification(
        network=EncoderUNet(
            channels=96,
            multipliers=(1, 2),
            blocks=1,
            attention=(),  # but for that of the middle, at 8x8
            patch=2,
            noise_embedding=GaussianFourier(1.0),
            noise_width=64,
            embedding_width=256,
        ),
        process=process.LinearVE(),
        input_scale=inputs.UnitVariance(),
        c_noise=c_noise.quarter_log_sigma,
        times=times.LogNormal(mean=-0.8, deviation=1.4),
        clean=0.75,
    ),
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True, pad=4),
    batch_size=128,
    training=Training(
        steps=4400,
        optimiser=Muon(6e-3, Schedule("cosine", warmup=100), weight_decay=0.05),
        averages=(Ema(0.998),),
        show_every=1000,
    ),
)
