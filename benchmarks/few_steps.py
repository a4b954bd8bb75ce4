"""What a training step of a model of few steps costs, beside a plain one of the same network.

    python benchmarks/few_steps.py

All take turns in one process, on images of 28x28 that are made up: a denoiser by flow matching, a mean flow without and
with guidance, consistency tuning along the data and along the ODE of a guided teacher.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from configs.mnist import config as mnist
from configs.mnist import system as by_edm
from configs.mnist_few_steps import config as few_steps
from configs.mnist_meanflow import config as meanflow
from jaxdiff.base import environment
from jaxdiff.core import times
from jaxdiff.core.few_steps import ConsistencyTuning
from jaxdiff.data import Examples
from jaxdiff.models.config import Config
from jaxdiff.models.experiment import Experiment
from jaxdiff.training import Training

TURNS, STEPS = 7, 3


def made_up() -> Examples:
    random = np.random.default_rng(0)
    return Examples(random.integers(0, 256, (512, 28, 28, 1), np.uint8), np.arange(512, dtype=np.int32) % 10)


def of(config: Any, **system: Any) -> Any:
    training = Training(placing="jit", steps=200, log_every=200)  # one optimiser for all
    return replace(
        config, data=made_up, held_out=None, system=replace(config.system, **system), start=None, training=training
    )


def cases(folder: Path) -> dict[str, Config]:
    teacher = folder / "teacher"
    short = of(mnist)
    Experiment(replace(short, training=replace(short.training, steps=1, log_every=1)), teacher).train()
    tuned = ConsistencyTuning(times.LogNormal(0.0, 1.5), stage=4)
    taught: Any = replace(of(mnist), start=str(teacher))
    few = {name: getattr(few_steps.system, name) for name in ("sampler", "grid", "steps", "times")}
    return {
        "a denoiser": of(meanflow, objective=None, trained_scale=None, sampler=by_edm.sampler),
        "mean flow": of(meanflow, trained_scale=None),
        "mean flow, guided": of(meanflow),
        "consistency tuning": replace(taught, system=replace(taught.system, objective=tuned, **few)),
        "consistency tuning, guided": replace(
            taught, system=replace(taught.system, objective=tuned, trained_scale=1.5, **few)
        ),
    }


class Run:
    """A compiled step, and how long it took."""

    def __init__(self, config: Config, folder: Path):
        folder.mkdir(exist_ok=True)
        self.experiment, self.seconds = Experiment(config, folder), list[float]()
        nothing = SimpleNamespace(restore_newest=lambda *given: None)
        self.state: Any = self.experiment._begin(nothing)  # type: ignore[arg-type]
        self.step, self.constants, self.batches = (
            self.experiment.compiled(), self.experiment._constants, self.experiment.batches()
        )  # fmt: skip

    def turn(self, first: int) -> None:
        batches = [jax.tree.map(lambda leaf: leaf[None], self.batches[first + i]) for i in range(STEPS)]
        there = [self.experiment.trainer.put(batch) for batch in batches]
        begin = time.perf_counter()
        for batch in there:
            self.state = self.step(self.state, self.constants, batch)
        jax.block_until_ready(self.state)
        self.seconds.append((time.perf_counter() - begin) / STEPS)


def main() -> int:
    environment.prepare()
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Run(config, Path(folder) / name) for name, config in cases(Path(folder)).items()}
        for turn in range(TURNS):
            for run in runs.values():
                run.turn(turn * STEPS)
    found = {name: median(run.seconds[1:]) for name, run in runs.items()}
    print(f"| objective | ms a step of {mnist.batch_size} | of a denoiser's |\n| --- | --- | --- |")
    for name, seconds in found.items():
        print(f"| {name} | {1000 * seconds:.0f} | {seconds / found['a denoiser']:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
