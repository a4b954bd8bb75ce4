"""What a run would be and cost, and whether this machine can hold it, without training it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import jax

from jaxdiff.base import devices, tree
from jaxdiff.base.words import amount, duration, plural, speed
from jaxdiff.models.experiment import Experiment
from jaxdiff.training.logbook import read_metrics
from jaxdiff.training.state import bytes_of, parameters

ROWS = 10  # of metrics.csv, the last ones, whose speed counts


def dry_run(experiment: Experiment) -> Iterator[str]:
    """The whole config, then facts, each as soon as it is known, and the conclusion."""
    config = experiment.config
    yield tree.show(config, whole=True)
    there = "there already" if (experiment.folder / "config.json").exists() else "new"
    yield f"\nfolder      {experiment.folder}, {there}"
    images = experiment.examples.images
    yield f"images      {len(images):,} of {'x'.join(map(str, images.shape[1:]))}"
    experiment.check()
    state = experiment.state_shapes
    yield f"parameters  {parameters(state):,}; a checkpoint takes {amount(bytes_of(state), 'B')}"
    yield f"devices     {experiment.trainer}"
    yield f"a step      {amount(_flops(experiment), 'FLOP')} for a batch of {config.batch_size}"
    passes = config.training.steps * config.batch_size / len(images)
    epochs = f"{passes:,.0f} epochs" if passes >= 100 else f"{passes:.3g} epochs"
    yield f"the run     {plural(config.training.steps, 'step')}, {epochs}{_time(experiment)}"
    yield _conclusion(experiment)


def _flops(experiment: Experiment) -> float:
    """Of one step, convolutions as written and not in fewer multiplications; nothing is compiled."""
    training = replace(experiment.config.training, placing="jit", steps_per_call=1)
    on_one = Experiment(replace(experiment.config, training=training), experiment.folder, experiment.code)
    with jax.default_matmul_precision("highest"):
        cost: Any = on_one.lowered().cost_analysis()
        return float(cost["flops"])


def _time(experiment: Experiment) -> str:
    """How long what is left of the run takes, if it was seen at work."""
    training, rows = experiment.config.training, read_metrics(experiment.folder / "metrics.csv")
    speeds = [row["images_per_second"] for row in rows[-ROWS:] if 0 < row["images_per_second"] < math.inf]
    if not speeds:
        return ""
    seen = median(speeds)
    left = max(training.steps - rows[-1]["step"], 0) * experiment.config.batch_size / seen
    return f"; {duration(left)} from step {rows[-1]['step']:.0f} on, at {speed(seen)} as in metrics.csv"


def _conclusion(experiment: Experiment) -> str:
    """Whether the memory of this machine is enough, and if not, what to try."""
    compiled: Any = experiment.compiled().memory_analysis()
    if compiled is None:
        return "whether it fits this machine is not known: its compiler does not tell"
    has = devices.memory()
    arguments = compiled.argument_size_in_bytes
    computing = compiled.temp_size_in_bytes + compiled.output_size_in_bytes - compiled.alias_size_in_bytes
    shared = len(experiment.trainer.devices.devices) if jax.default_backend() == "cpu" else 1
    arguments, needs = shared * arguments, shared * (arguments + computing)
    said = f"this machine (needs {amount(needs, 'B')} of {amount(has, 'B')})"
    return f"fits {said}" if needs <= has else f"does not fit {said}: try {_smaller(experiment, arguments, needs, has)}"


def _smaller(experiment: Experiment, arguments: int, needs: int, has: int) -> str:
    """The least division of the batch under which what a step computes would fit."""
    config, count = experiment.config, len(experiment.trainer.devices.devices)
    most = config.batch_size // (config.training.accumulate * count)
    for parts in range(2, most + 1):
        if most % parts == 0 and arguments + (needs - arguments) / parts <= has:
            return (
                f"training.accumulate={config.training.accumulate * parts}, or batch_size={config.batch_size // parts}"
            )
    return "a smaller network"
