"""A classifier of noisy photographs at 96x96, on the process of config stl10, from its 5,000 labelled ones.

Cost and result: not trained to its end here yet.
"""

from jaxdiff import denoise, losses, process
from jaxdiff.augment import Augment
from jaxdiff.averages import Ema
from jaxdiff.data import Tfds
from jaxdiff.experiment import Config
from jaxdiff.nets import Classifier, GaussianFourier
from jaxdiff.optimisers import Adam, Schedule
from jaxdiff.systems import Classification
from jaxdiff.training import Training

config = Config(
    system=Classification(
        network=Classifier(
            channels=64, multipliers=(1, 2, 3, 4), attention=(2, 3), dropout=0.1, embedding=GaussianFourier(1.0)
        ),
        process=process.Karras(),
        input_scale=denoise.UnitVariance(),
        told=denoise.quarter_log_sigma,
        times=losses.LogNormal(mean=-0.8, deviation=1.4),
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
