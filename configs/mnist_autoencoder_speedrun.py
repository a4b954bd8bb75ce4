"""The autoencoder under mnist_latent_speedrun: mnist_autoencoder in 2.7 minutes."""

from dataclasses import replace

from configs.mnist_autoencoder import config as mnist_autoencoder
from jaxdiff.training import Adam, Ema, Schedule, Training

config = replace(
    mnist_autoencoder,
    batch_size=32,
    training=Training(
        minutes=2.7, optimiser=Adam(2e-3, Schedule("cosine", warmup=50)), averages=(Ema(0.99),), show_every=1000
    ),
)
