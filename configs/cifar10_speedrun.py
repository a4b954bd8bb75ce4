"""CIFAR-10 in 100 minutes on 2 CPU cores (SPEEDRUN.md): mnist_speedrun with noise levels and colours of cifar10.

Cost and result: not run here yet; there is no record. It was begun at 20 to 23 images a second: 2,000 steps in all.
"""

from dataclasses import replace

from configs.mnist import system as mnist
from configs.mnist_speedrun import config as mnist_speedrun
from jaxdiff.core import samplers
from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Labels, edm
from jaxdiff.training import Ema

system = edm(
    network=mnist.network.clone(channels=32),
    condition=Labels(10, drop=0.1),
    sampler=samplers.DPMpp2M(eta=1.0),
    guidance_scale=1.5,
    shown=80,
)
config = replace(
    mnist_speedrun,
    system=system,
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True),
    training=replace(mnist_speedrun.training, minutes=100, averages=(Ema(0.999),)),
)
