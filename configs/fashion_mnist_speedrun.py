"""Ten minutes of Fashion-MNIST on 2 CPU cores (SPEEDRUN.md): mnist_speedrun on other data."""

from dataclasses import replace

from configs.mnist_speedrun import config as mnist_speedrun
from jaxdiff.data import Tfds

config = replace(mnist_speedrun, data=Tfds("fashion_mnist"), held_out=Tfds("fashion_mnist", "test"))
