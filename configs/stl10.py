"""STL-10 at 96x96 from its 100,000 unlabelled photographs; the classifier of stl10_classifier can guide it.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least 2.6 hours,
for a TPU v5e 8.9.
"""

from jaxdiff.core import times
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, edm
from jaxdiff.nets import GaussianFourier, UNet
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=edm(
        network=UNet(
            multipliers=(1, 2, 2, 3), attention=(2, 3), head_channels=64, noise_embedding=GaussianFourier(1.0)
        ),
        times=times.LogNormal(mean=-0.8, deviation=1.4),
        steps=30,
        shown=16,
    ),
    data=Tfds("stl10", "unlabelled"),
    held_out=Tfds("stl10", "test"),
    augment=Augment(flip=True),
    batch_size=64,
    training=Training(
        steps=300_000,
        optimiser=Adam(1e-4, Schedule(warmup=5000), clip=1.0),
        averages=(Ema(0.9999),),
        show_every=5000,
        save_every=2500,
    ),
)
