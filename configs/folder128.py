"""Any folder of images at 128x128: python train.py --config configs/folder128.py data.path=my_images

Cost and result: only begun here (RESULTS.md); at a batch of 8 it takes 13 to 18 GB on a CPU, 6.3 with
training.accumulate=4 in its first steps. Compiled for a T4 it takes at least 16 hours,
for a TPU v5e 48 minutes, for an H100 27.
"""

from jaxdiff.core import times
from jaxdiff.data import Folder
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, edm
from jaxdiff.nets import GaussianFourier, UNet
from jaxdiff.training import Adam, Ema, Schedule, Training

system = edm(
    network=UNet(
        channels=64,
        multipliers=(1, 2, 2, 4, 4),
        attention=(3, 4),
        head_channels=64,
        noise_embedding=GaussianFourier(1.0),
    ),
    times=times.LogNormal(mean=-0.4, deviation=1.4),  # larger images are still seen through more noise
    steps=30,
    shown=16,
)
config = Config(
    system=system,
    data=Folder("images", size=128),
    augment=Augment(flip=True),
    batch_size=16,
    training=Training(
        steps=200_000,
        optimiser=Adam(1e-4, Schedule(warmup=2000), clip=1.0),
        averages=(Ema(0.9999),),
        show_every=2000,
        save_every=1000,
    ),
)
