"""mnist_classifier on Fashion-MNIST, by Muon: tells if clothes are what was asked for (`evaluate.py --features`).

89.3% of the clean test images after 16 minutes on one slow CPU core.
"""

from dataclasses import replace

from configs.mnist_classifier import config as mnist_classifier
from configs.mnist_classifier import system
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.training import Ema, Muon, Schedule

config = replace(
    mnist_classifier,
    system=replace(system, clean=0.5),
    data=Tfds("fashion_mnist"),
    held_out=Tfds("fashion_mnist", "test"),
    augment=Augment(flip=True, pad=2),
    training=replace(
        mnist_classifier.training,
        steps=3000,
        optimiser=Muon(6e-3, Schedule("cosine", warmup=100)),
        averages=(Ema(0.998),),
    ),
)
