"""The autoencoder under mnist_latent: 28x28 to latents of 7x7x4, L1 and a little KL.

5 minutes on 2 busy CPU cores (docs/mnist_autoencoder.png).
"""

from jaxdiff.data import Tfds
from jaxdiff.models import Autoencoding, Config
from jaxdiff.nets.autoencoder import KL_28
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Autoencoding(KL_28.clone(channels=16), kl=1e-3),
    data=Tfds("mnist"),
    held_out=Tfds("mnist", "test"),
    batch_size=64,
    training=Training(
        steps=1500, optimiser=Adam(2e-3, Schedule("cosine", warmup=100)), averages=(Ema(0.99),), show_every=500
    ),
)
