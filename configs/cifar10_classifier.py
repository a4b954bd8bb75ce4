"""A classifier of noisy CIFAR-10 images, on the process of config cifar10: the judge of its tracks in SPEEDRUN.md.

Cost and result: not trained to its end here yet; it was begun at 30 images a second on 2 CPU cores, a day in all.
Compiled for an H100 it takes at least half a minute, for a TPU v5e 47 seconds.
"""

from jaxdiff.core import c_noise, inputs, process, times
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Classification, Config
from jaxdiff.nets import EncoderUNet, GaussianFourier
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Classification(
        network=EncoderUNet(
            channels=64,
            multipliers=(1, 2, 4),
            blocks=2,
            dropout=0.1,
            noise_embedding=GaussianFourier(1.0),
            noise_width=64,
        ),
        process=process.LinearVE(),
        input_scale=inputs.UnitVariance(),
        c_noise=c_noise.quarter_log_sigma,
        times=times.LogNormal(mean=-0.8, deviation=1.4),
        clean=0.5,
    ),
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True, pad=4),
    batch_size=128,
    training=Training(
        steps=20_000,
        optimiser=Adam(1e-3, Schedule("cosine", warmup=500), weight_decay=0.05),
        averages=(Ema(0.999),),
        show_every=1000,
    ),
)
