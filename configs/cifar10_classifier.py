"""A classifier of noisy CIFAR-10 images, on the process of config cifar10: the judge of its tracks in SPEEDRUN.md.

Cost and result: not trained to its end here yet; it was begun at 30 images a second on 2 CPU cores, a day in all.
"""

from dataclasses import replace

from configs.mnist_classifier import config as mnist_classifier
from jaxdiff.core import inputs
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.nets import EncoderUNet, GaussianFourier
from jaxdiff.training import Adam, Ema, Schedule

network = EncoderUNet(
    channels=64, multipliers=(1, 2, 4), blocks=2, dropout=0.1, noise_embedding=GaussianFourier(1.0), noise_width=64
)
config = replace(
    mnist_classifier,
    system=replace(mnist_classifier.system, network=network, input_scale=inputs.UnitVariance(), clean=0.5),
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    batch_size=128,
    augment=Augment(flip=True, pad=4),
    training=replace(
        mnist_classifier.training,
        steps=20_000,
        optimiser=Adam(1e-3, Schedule("cosine", warmup=500), weight_decay=0.05),
        averages=(Ema(0.999),),
        show_every=1000,
    ),
)
