"""MNIST in the latents of mnist_autoencoder, which is trained first: the whole image is 7x7 places of four numbers.

13 minutes on 2 busy CPU cores; nearly every digit can be named (docs/mnist_latent.png).
"""

from jaxdiff.core import times
from jaxdiff.data import Tfds
from jaxdiff.models import Config, Labels, edm
from jaxdiff.nets import GaussianFourier, UNet
from jaxdiff.training import Adam, Ema, Schedule, Training

system = edm(
    network=UNet(
        channels=32, multipliers=(2,), blocks=2, attention=(0,), noise_embedding=GaussianFourier(1.0), classes=10
    ),
    sigma_data=1.0,  # the codec scales latents to a deviation of 1
    times=times.LogNormal(mean=0.2),
    condition=Labels(10, drop=0.1),
    codec="runs/mnist_autoencoder",
    guidance_scale=1.5,
    shown=80,
)
config = Config(
    system=system,
    data=Tfds("mnist"),
    held_out=Tfds("mnist", "test"),
    batch_size=128,
    training=Training(
        steps=3000, optimiser=Adam(1e-3, Schedule("cosine", warmup=200)), averages=(Ema(0.999),), show_every=1000
    ),
)
