"""cifar10_speedrun in one or two steps, taught as mnist_few_steps is. It starts from runs/cifar10_speedrun.

10 minutes on one slow CPU core; by lite0 two steps are at 1.13 times its teacher's distance (docs/few_steps.md).
"""

from dataclasses import replace

from configs.cifar10_speedrun import config as cifar10_speedrun
from configs.cifar10_speedrun import system as teacher
from configs.mnist_few_steps import config as mnist_few_steps
from configs.mnist_few_steps import few_steps

config = replace(
    cifar10_speedrun,
    system=few_steps(teacher),
    start="runs/cifar10_speedrun",
    batch_size=64,
    training=mnist_few_steps.training,
)
