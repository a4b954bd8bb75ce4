"""What is drawn of a trained model for the page of its run: how images form, and what guidance does to them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base import compiling, files, pictures
from jaxdiff.base.console import say, warn
from jaxdiff.base.text import first_line
from jaxdiff.core.sampling import Progress
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.model import Model
from jaxdiff.models.run import Run
from jaxdiff.training.metrics import read_metrics, seconds

COUNT, FRAMES, SCALES = 8, 16, (0.0, 1.0, 2.0, 4.0)
# Seconds of training for which these pictures take too long. For a network as small as that of configs/digits.py they
# cost 22 s of a CPU core, 18 of them to compile; the next run of the same config compiles nothing.
SHORT = 60


def worth(run: Run, folder: Path) -> bool:
    """Whether they are yet to be drawn, and the run was no mere try."""
    rows = read_metrics(run.folder / "metrics.csv")
    return not folder.exists() and seconds(rows, run.config.batch_size) > SHORT


def draw(model: Model, folder: Path) -> None:
    """All of them or none."""
    folder.parent.mkdir(exist_ok=True)
    say("drawing how images form, and what guidance does")
    try:
        with files.beside(folder) as new:
            new.mkdir()
            forming(model, new)
            guided(model, new)
            os.replace(new, folder)
    except Exception as error:  # too little memory, say: the run is trained all the same
        warn(f"{folder} could not be drawn: {first_line(error)}")


@compiling.named("what shows how images form")
def forming(model: Model, folder: Path) -> None:
    """A picture of each of some steps."""
    times = model.times()

    def seen(at: Progress) -> None:
        point = model.system.process.at(times[at.step])
        pair = [model.decoded(x) for x in frame(model, times, at)]
        sheet = pictures.sheet(
            np.concatenate(pair),
            columns=COUNT,
            labels=["x_t", "expected"],
            title=f"alpha {point.alpha:.3g}, sigma {point.sigma:.3g}",
        )
        pictures.save(folder / f"denoising_{at.step:04}_of_{at.steps:04}.png", sheet)

    model.sample(COUNT, progress=False, callback=seen, every=-(-(len(times) - 1) // FRAMES))


def frame(model: Model, times: Any, at: Progress, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """x_t and the expected x_0 of the first images, not yet decoded."""
    point = model.system.process.at(times[at.step])
    size = max(1.0, float(np.hypot(point.alpha, point.sigma)))  # exploding noise would be all black and white
    return at.images[:count] / size, at.expected[:count]


@compiling.named("what shows what guidance does")
def guided(model: Model, folder: Path) -> None:
    """The same noise in each column, a scale in each row."""
    scales = _scales(model.system)
    if len(scales) > 1:
        rows = [model.sample(COUNT, progress=False, guidance_scale=scale) for scale in scales]
        labels = [f"{scale:g}" for scale in scales]
        pictures.save(folder / "guidance.png", pictures.sheet(np.concatenate(rows), columns=COUNT, labels=labels))


def _scales(system: Diffusion) -> list[float]:
    """Those that it knows."""
    if system.condition is None or not system.condition.drop:
        return []
    low, high = system.scales if system.objective is not None else (SCALES[0], SCALES[-1])
    return [scale for scale in SCALES if low <= scale <= high]
