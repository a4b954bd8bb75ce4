"""Ten minutes of MNIST on 2 CPU cores (SPEEDRUN.md), in pixels: mnist by the clock, drawn by a sampler with noise."""

from dataclasses import replace

from configs.mnist import config as mnist
from configs.mnist import system
from jaxdiff.core import samplers
from jaxdiff.training import Ema, Muon, Schedule, Training

config = replace(
    mnist,
    system=replace(system, sampler=samplers.DPMpp2M(eta=1.0), guidance_scale=1.2),
    training=Training(
        minutes=10,
        optimiser=Muon(6e-3, Schedule("cosine", warmup=100)),
        averages=(Ema(0.995),),
        show_every=1000,
        log_every=25,
        evaluate_every=500,
    ),
)
