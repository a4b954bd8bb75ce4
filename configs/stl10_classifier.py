"""A classifier of noisy photographs at 96x96, on the process of config stl10, from its 5,000 labelled ones.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least a minute and a half,
for a TPU v5e five.
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
            channels=64, multipliers=(1, 2, 3, 4), attention=(2, 3), dropout=0.1, noise_embedding=GaussianFourier(1.0)
        ),
        process=process.LinearVE(),
        input_scale=inputs.UnitVariance(),
        c_noise=c_noise.quarter_log_sigma,
        times=times.LogNormal(mean=-0.8, deviation=1.4),
    ),
    data=Tfds("stl10"),
    held_out=Tfds("stl10", "test"),
    augment=Augment(flip=True, pad=8),
    batch_size=64,
    training=Training(
        steps=20_000,
        optimiser=Adam(3e-4, Schedule("cosine", warmup=500), weight_decay=0.05),
        averages=(Ema(0.999),),
        show_every=1000,
    ),
)
