"""Fashion-MNIST from prompts in one or two steps: fashion_mnist_text, taught as mnist_few_steps is, for twice as long.

It starts from runs/fashion_mnist_text. For a model of your own, copy this file and import your config.
24 minutes on one slow CPU core; to a classifier two steps are as good as twenty of its teacher (docs/few_steps.md).
"""

from dataclasses import replace

from configs.fashion_mnist_text import config as fashion_mnist_text
from configs.fashion_mnist_text import system as teacher
from configs.mnist_few_steps import config as mnist_few_steps
from configs.mnist_few_steps import few_steps

config = replace(
    fashion_mnist_text,
    system=few_steps(teacher, walks=3000, steps=800),
    start="runs/fashion_mnist_text",
    training=replace(mnist_few_steps.training, steps=900),
)
