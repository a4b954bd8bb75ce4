"""CIFAR-10 in 10 minutes on one H100 (SPEEDRUN.md): cifar10_speedrun with DDPM's UNet and a batch of 512.

Cost and result: not run here. Compiled for an H100 it makes at most 14,060 images a second, 16,400
steps in ten minutes without compiling, and needs 11.3 GB.
"""

from dataclasses import replace

from configs.cifar10_speedrun import config as cifar10_speedrun
from configs.cifar10_speedrun import system
from jaxdiff.nets import GaussianFourier
from jaxdiff.nets.unet import DDPM_CIFAR10

network = DDPM_CIFAR10.clone(classes=10, dropout=0.0, noise_embedding=GaussianFourier(1.0))
config = replace(
    cifar10_speedrun,
    system=replace(system, network=network),
    batch_size=512,
    training=replace(cifar10_speedrun.training, minutes=10),
)
