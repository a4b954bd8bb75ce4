"""Fashion-MNIST in one step, from nothing, as mnist_meanflow.

Of its 3,500 steps 800 were run here, 18 minutes on one slow CPU core.
Clothes are blurred, and can be named (docs/fashion_mnist_meanflow.png).
"""

from dataclasses import replace

from configs.mnist_meanflow import config as mnist
from jaxdiff.data import Tfds

config = replace(mnist, data=Tfds("fashion_mnist"), held_out=Tfds("fashion_mnist", "test"))
