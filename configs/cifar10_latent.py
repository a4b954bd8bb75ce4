"""CIFAR-10 in the latents of cifar10_autoencoder, which is trained first; otherwise as mnist_latent, but larger.

Images are not flipped, since their latents are made once: augment.flip=True 'system.encode=each step' flips them.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least 2.7 minutes,
for a TPU v5e 3.4.
"""

from dataclasses import replace

from configs.mnist_latent import config as mnist
from configs.mnist_latent import system
from jaxdiff.data import Tfds
from jaxdiff.nets import GaussianFourier, UNet
from jaxdiff.training import Adam, Ema, Schedule

network = UNet(
    multipliers=(1, 2), blocks=3, attention=(0, 1), dropout=0.1, noise_embedding=GaussianFourier(1.0), classes=10
)
config = replace(
    mnist,
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    system=replace(system, codec="runs/cifar10_autoencoder", network=network),
    training=replace(
        mnist.training,
        steps=100_000,
        optimiser=Adam(3e-4, Schedule("cosine", warmup=2000), clip=1.0),
        averages=(Ema(0.9999),),
        show_every=5000,
        save_every=2500,
    ),
)
