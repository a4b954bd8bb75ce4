"""What a run would be and cost, and whether this machine can hold it, without training it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import jax

from jaxdiff.base import tree
from jaxdiff.base.words import amount, duration, plural, speed
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.target import Bound, Room, Target, bytes_moved, dtype_of, room
from jaxdiff.nets.machine import Kind, compiled_for
from jaxdiff.training.metrics import read_metrics
from jaxdiff.training.state import Training, bytes_of, parameters

ROWS = 10  # of metrics.csv, the last ones, whose speed counts


def dry_run(experiment: Experiment, where: Target | None = None) -> Iterator[str]:
    """The whole config, then facts, each as soon as it is known, and the conclusion: of this machine, or another."""
    config = experiment.config
    experiment.elsewhere = where
    yield tree.show(config, whole=True)
    there = "there already" if (experiment.folder / "config.json").exists() else "new"
    yield f"\nfolder      {experiment.folder}, {there}"
    images = experiment.examples.images
    yield f"images      {len(images):,} of {'x'.join(map(str, images.shape[1:]))}"
    experiment.check()
    state = experiment.state_shapes
    yield f"parameters  {parameters(state.params):,}; a checkpoint takes {amount(bytes_of(state), 'B')}"
    yield f"devices     {experiment.trainer}" + (f" of {where.title}, which are not here" if where else "")
    flops = step_flops(experiment)
    yield f"a step      {amount(flops, 'FLOP')} for a batch of {config.batch_size}"
    yield f"the run     {_length(config.training, config.batch_size / len(images))}{_time(experiment)}"
    if where is None:
        yield _conclusion(experiment, experiment.compiled())
    else:
        yield from _elsewhere(experiment, where, flops)


def _elsewhere(experiment: Experiment, where: Target, flops: float) -> Iterator[str]:
    """What the compiler for another machine says of the very step that would run there."""
    config = experiment.config
    with compiled_for(where.kind):
        compiled = experiment.compiled()
        bound = step_bound(experiment, where, flops, compiled)
    yield str(bound)
    yield f"at best     {speed(bound.rate)}, {_whole(config.training, bound.rate / config.batch_size)}"
    yield _conclusion(experiment, compiled, where)


def step_bound(experiment: Experiment, where: Target, flops: float, compiled: Any) -> Bound:
    """Of one step, as traced for that machine; what is compiled may be several."""
    moved = bytes_moved(compiled) / experiment.steps_per_call
    return Bound(where, experiment.config.batch_size, flops, moved, dtype_of(experiment.config.system))


def _length(training: Training, epochs_a_step: float) -> str:
    if training.minutes is not None:
        return f"{training.minutes:g} min, in which as many steps as fit"
    passes = training.steps * epochs_a_step
    epochs = f"{passes:,.0f} epochs" if passes >= 100 else f"{passes:.3g} epochs"
    return f"{plural(training.steps, 'step')}, {epochs}"


def _whole(training: Training, rate: float) -> str:
    """The run at so many steps a second."""
    if training.minutes is not None:
        return f"{plural(int(60 * training.minutes * rate), 'step')} in {training.minutes:g} min"
    return f"{duration(training.steps / rate)} for the run"


def step_flops(experiment: Experiment) -> float:
    """Of one step, convolutions as written and not in fewer multiplications; nothing is compiled."""
    training = replace(experiment.config.training, placing="jit", steps_per_call=1, accumulate=1)
    on_one = Experiment(replace(experiment.config, training=training), experiment.folder, experiment.code)
    with jax.default_matmul_precision("highest"), compiled_for(Kind("any")):
        cost: Any = on_one.lowered().cost_analysis()
        return float(cost["flops"])


def _time(experiment: Experiment) -> str:
    """How long what is left of the run takes, if it was seen at work."""
    training, rows = experiment.config.training, read_metrics(experiment.folder / "metrics.csv")
    speeds = [row["images_per_second"] for row in rows[-ROWS:] if 0 < row["images_per_second"] < math.inf]
    if not speeds:
        return ""
    seen = median(speeds)
    if training.minutes is not None:
        return f": {_whole(training, seen / experiment.config.batch_size)}, at {speed(seen)} as in metrics.csv"
    left = max(training.steps - rows[-1]["step"], 0) * experiment.config.batch_size / seen
    return f"; {duration(left)} from step {rows[-1]['step']:.0f} on, at {speed(seen)} as in metrics.csv"


def _conclusion(experiment: Experiment, compiled: Any, where: Target | None = None) -> str:
    """Whether the memory of the machine is enough, and what to try."""
    found = room(compiled, len(experiment.trainer.devices.devices), where)
    if found is None:
        return "whether it fits is not known: the compiler or the system does not tell"
    if not found.fits:
        return f"{found}: try {_smaller(experiment, found)}"
    times = min(found.times, len(experiment.examples) // experiment.config.batch_size)
    larger = f"; batch_size={experiment.config.batch_size * times} would too, by what an image takes"
    return f"{found}{larger}" if where is not None and times > 1 else str(found)


def _smaller(experiment: Experiment, room: Room) -> str:
    """The least division of the batch under which what a step computes would fit."""
    config, count = experiment.config, len(experiment.trainer.devices.devices)
    most = config.batch_size // (config.training.accumulate * count)
    for parts in range(2, most + 1):
        if most % parts == 0 and room.arguments + (room.needs - room.arguments) / parts <= room.has:
            return (
                f"training.accumulate={config.training.accumulate * parts}, or batch_size={config.batch_size // parts}"
            )
    return "a smaller network"
