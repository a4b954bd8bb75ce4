"""Fashion-MNIST by the score SDE of mnist_score."""

from dataclasses import replace

from configs.mnist_score import config as mnist
from jaxdiff.data import Tfds

config = replace(mnist, data=Tfds("fashion_mnist"))
