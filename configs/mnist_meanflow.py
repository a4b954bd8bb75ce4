"""MNIST in one step, from nothing: a mean flow with guidance built in (MeanFlow, Geng et al. 2025).

Of its 3,500 steps 800 were run here, 15 minutes on 2 slow CPU cores.
Digits are blurred, and can be named (docs/mnist_meanflow.png).
"""

from dataclasses import replace

from configs.mnist import config as mnist
from configs.mnist import system as by_edm
from jaxdiff.core import c_noise, grids, predictions, process, samplers
from jaxdiff.core.few_steps import MeanFlowLoss
from jaxdiff.models import Diffusion, Labels
from jaxdiff.training import Adam, Ema, Schedule

system = Diffusion(
    network=by_edm.network,
    process=process.Flow(),
    prediction=predictions.flow,
    c_noise=c_noise.time,
    objective=MeanFlowLoss(),
    trained_scale=1.5,
    condition=Labels(10, drop=0.1),
    sampler=samplers.Jump(),
    grid=grids.Uniform(),
    steps=1,
    shown=80,
)
config = replace(
    mnist,
    system=system,
    training=replace(
        mnist.training,
        steps=3500,
        optimiser=Adam(2e-3, Schedule("cosine", warmup=200), clip=1.0),
        averages=(Ema(0.998),),
    ),
)
