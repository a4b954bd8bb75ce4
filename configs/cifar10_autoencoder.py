"""The autoencoder under cifar10_latent: 32x32 to latents of 8x8x4.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least a minute and a half,
for a TPU v5e three.
"""

from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Autoencoding, Config
from jaxdiff.nets.autoencoder import KL_32
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Autoencoding(KL_32, kl=1e-5),
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True),
    batch_size=128,
    training=Training(
        steps=40_000, optimiser=Adam(5e-4, Schedule("cosine", warmup=1000)), averages=(Ema(0.999),), show_every=2000
    ),
)
