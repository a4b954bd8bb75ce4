"""Ten minutes of Fashion-MNIST on 2 CPU cores (SPEEDRUN.md): mnist_speedrun on other data.

1,143 steps on 2 slow cores; to a classifier 1,000 images are at the distance of real ones, and 88.4% of labels right.
"""

from dataclasses import replace

from configs.mnist_speedrun import config as mnist_speedrun
from jaxdiff.data import Tfds

config = replace(mnist_speedrun, data=Tfds("fashion_mnist"), held_out=Tfds("fashion_mnist", "test"))
