"""Fashion-MNIST from prompts in one or two steps: fashion_mnist_text, taught as mnist_few_steps is.

It starts from runs/fashion_mnist_text. For a model of your own, copy this file and import your config.
Cost and result: not trained to its end here yet.
"""

from dataclasses import replace

from configs.fashion_mnist_text import config as fashion_mnist_text
from configs.fashion_mnist_text import system as teacher
from configs.mnist_few_steps import config as mnist_few_steps
from configs.mnist_few_steps import system as student

config = replace(
    fashion_mnist_text,
    system=replace(
        teacher,
        times=student.times,
        objective=student.objective,
        trained_scale=teacher.guidance_scale,
        sampler=student.sampler,
        grid=student.grid,
        steps=student.steps,
    ),
    start="runs/fashion_mnist_text",
    training=mnist_few_steps.training,
)
