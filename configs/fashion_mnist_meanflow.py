"""Fashion-MNIST in one step, from nothing, as mnist_meanflow.

Cost and result: not trained to its end here yet.
"""

from dataclasses import replace

from configs.mnist_meanflow import config as mnist
from jaxdiff.data import Tfds

config = replace(mnist, data=Tfds("fashion_mnist"), held_out=Tfds("fashion_mnist", "test"))
