"""CIFAR-10 in one or two steps: cifar10, tuned to be consistent (ECT, Geng et al. 2024). It starts from runs/cifar10.

Cost and result: only begun here, with a small network (docs/few_steps.md). Compiled for an H100
it takes at least 3.1 hours, for a TPU v5e 11.6.
"""

from dataclasses import replace

from configs.cifar10 import config as cifar10
from configs.cifar10 import system
from jaxdiff.core import grids, samplers
from jaxdiff.core.few_steps import ConsistencyTuning
from jaxdiff.models import Diffusion
from jaxdiff.training import Adam, Ema

config = replace(
    cifar10,
    system=replace(
        system,
        network=system.network.clone(dropout=0.2),
        times=Diffusion.times,
        objective=ConsistencyTuning(stage=7, stage_steps=50_000),
        sampler=samplers.Consistency(),
        grid=grids.Karras(last=0.821 / 80),  # where the paper has its second step
        steps=2,
    ),
    start="runs/cifar10",
    batch_size=128,
    training=replace(
        cifar10.training,
        optimiser=Adam(1e-4, clip=1.0),
        averages=(Ema(0.9999),),
        keep_every=None,
    ),
)
