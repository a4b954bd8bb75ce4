"""CIFAR-10 by a transformer, DiT-S with patches of 2x2 pixels (Peebles & Xie 2023), trained as cifar10_flow.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least 1.5 hours,
for a TPU v5e 4.7.
"""

from dataclasses import replace

from configs.cifar10_flow import config as flow
from configs.cifar10_flow import system
from jaxdiff.nets.dit import DIT_S

config = replace(flow, system=replace(system, network=DIT_S.clone(classes=10)))
