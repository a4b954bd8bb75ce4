"""What a run would be and cost, from the compiler, without training it."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.base import tree
from jaxdiff.base.console import gigabytes
from jaxdiff.models.experiment import Experiment
from jaxdiff.training.state import bytes_of, parameters


def dry_run(experiment: Experiment) -> str:
    """The config, and what the compiler says of one step on one device."""
    experiment.check()
    config, state, images = experiment.config, experiment.state_shapes, experiment.examples.images
    cost, memory = _compiled(experiment)
    steps, devices = len(images) / config.batch_size, experiment.trainer.devices.devices
    there = "there already" if (experiment.folder / "config.json").exists() else "new"
    facts = {
        "images": f"{len(images):,} of {'x'.join(map(str, images.shape[1:]))}",
        "parameters": f"{parameters(state):,}",
        "one step": f"{cost['flops'] / 1e9:.4g} GFLOP, {cost['bytes accessed'] / 1e9:.3g} GB moved",
        "state": f"{gigabytes(bytes_of(state))}, and working memory of {gigabytes(memory.temp_size_in_bytes)}",
        "an epoch": f"{steps:.1f} steps; the run is {config.training.steps / steps:.1f} epochs",
        "devices": f"{len(devices)} {devices[0].platform}, {experiment.trainer.placing}",
        "folder": f"{experiment.folder}, {there}",
    }
    return "\n".join([tree.show(config), "", *(f"{name:12}{fact}" for name, fact in facts.items())])


def _compiled(experiment: Experiment) -> tuple[dict[str, float], Any]:
    """The compiler's analyses of cost and memory."""
    config = experiment.config
    rows = {"index": jax.ShapeDtypeStruct((), jnp.uint32), **experiment.example_shapes()}
    batch = jax.tree.map(lambda row: row.update(shape=(1, config.batch_size, *row.shape)), rows)
    on_one = Experiment(replace(config, training=replace(config.training, placing="jit")), experiment.folder)
    inputs = experiment.state_shapes, experiment.codec, batch
    with jax.default_matmul_precision("highest"):  # convolutions as written, not in fewer multiplications
        cost = on_one.step().lower(*inputs).cost_analysis()
    return cost, on_one.step().lower(*inputs).compile().memory_analysis()
