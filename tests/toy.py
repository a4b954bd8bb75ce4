"""A run of seconds: what the tests of the command train. Saves come thick and fast, to be killed in."""

from jaxdiff.augment import Augment
from jaxdiff.averages import Ema, PowerEma
from jaxdiff.conditions import Labels
from jaxdiff.data import Digits
from jaxdiff.denoise import flow, time
from jaxdiff.experiment import Config
from jaxdiff.grids import Uniform
from jaxdiff.nets import MLP
from jaxdiff.optimisers import Adam, Schedule
from jaxdiff.process import Flow
from jaxdiff.samplers import Euler
from jaxdiff.systems import Diffusion
from jaxdiff.training import Training

config = Config(
    system=Diffusion(
        network=MLP((16,), classes=10),
        process=Flow(),
        prediction=flow,
        told=time,
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
