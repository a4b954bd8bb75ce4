"""Fashion-MNIST in the latents of fashion_mnist_autoencoder, as mnist_latent.

Cost and result: not trained to its end here yet.
"""

from dataclasses import replace

from configs.mnist_latent import config as mnist
from configs.mnist_latent import system
from jaxdiff.data import Tfds

config = replace(
    mnist,
    data=Tfds("fashion_mnist"),
    held_out=Tfds("fashion_mnist", "test"),
    system=replace(system, codec="runs/fashion_mnist_autoencoder"),
)
