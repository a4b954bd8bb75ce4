"""A run of seconds: what the tests of the command train. Saves come thick and fast, to be killed in."""

from jaxdiff.core.c_noise import time
from jaxdiff.core.grids import Uniform
from jaxdiff.core.predictions import flow
from jaxdiff.core.process import Flow
from jaxdiff.core.samplers import Euler
from jaxdiff.data import Digits
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, Diffusion, Labels
from jaxdiff.nets import MLP
from jaxdiff.training import Adam, Ema, PowerEma, Schedule, Training

config = Config(
    system=Diffusion(
        network=MLP((16,), classes=10),
        process=Flow(),
        prediction=flow,
        c_noise=time,
        condition=Labels(10, drop=0.1),
        sampler=Euler(),
        grid=Uniform(),
        steps=2,
        shown=10,
    ),
    data=Digits(),
    batch_size=16,
    augment=Augment(flip=True, pad=1),
    training=Training(
        steps=80,
        optimiser=Adam(2e-3, Schedule("cosine", warmup=10), clip=1.0),
        averages=(Ema(0.9), PowerEma(0.1)),
        log_every=10,
        show_every=40,
        save_every=5,
    ),
)
