"""Ten minutes of MNIST (SPEEDRUN.md) in latents: mnist_latent by the optimiser of mnist_speedrun.

`python benchmarks/speedrun.py mnist --config mnist_latent_speedrun` trains mnist_autoencoder_speedrun first, and gives
this one what is left of the ten minutes; `train.py` needs that run in runs/mnist_autoencoder_speedrun.
"""

from dataclasses import replace

from configs.mnist_latent import config as mnist_latent
from configs.mnist_latent import system
from configs.mnist_speedrun import config as mnist_speedrun

config = replace(
    mnist_latent,
    system=replace(system, codec="runs/mnist_autoencoder_speedrun", guidance_scale=1.4),
    training=replace(mnist_speedrun.training, minutes=6.5),
)
