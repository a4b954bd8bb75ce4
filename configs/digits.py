"""Digits of 8x8 pixels, with labels: the smallest model worth looking at.

Two minutes on 2 CPU cores.
"""

from jaxdiff.core.samplers import DDIM
from jaxdiff.core.tables import CosineBetas, Discrete
from jaxdiff.data import Digits
from jaxdiff.models import Config, Diffusion, Labels
from jaxdiff.nets import UNet
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Diffusion(
        network=UNet(channels=32, multipliers=(1, 2), blocks=1, attention=(1,), groups=8, classes=10),
        process=Discrete(CosineBetas(1000)),
        condition=Labels(10, drop=0.1),
        sampler=DDIM(),
        steps=30,
        guidance_scale=2.0,
        shown=80,
    ),
    data=Digits(),
    batch_size=128,
    training=Training(
        steps=1200,
        optimiser=Adam(2e-3, Schedule("cosine", warmup=100)),
        averages=(Ema(0.995),),
        log_every=50,
        show_every=300,
        save_every=300,
    ),
)
