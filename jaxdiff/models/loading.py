"""From a folder to a model: of a run, or of diffusers."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from jaxdiff import interop
from jaxdiff.core.samplers import DDIM
from jaxdiff.models import published
from jaxdiff.models.classification import Classification
from jaxdiff.models.conditions import Labels
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.model import Classifier, Model
from jaxdiff.models.run import Run, Step, opened, reading, trained
from jaxdiff.training import averages
from jaxdiff.training.averages import PowerEma


def load_diffusers(folder: str | Path) -> Model:
    """The model of a pipeline that diffusers saved, or of a network alone: see `interop.read_pipeline`."""
    read = interop.read_pipeline(folder)
    system = Diffusion(
        network=read.network,
        process=read.process,
        prediction=read.prediction,
        c_noise=read.c_noise,
        condition=None if read.labels is None else Labels(read.labels, drop=0.1 if read.null else 0.0),
        codec=None if read.codec is None else str(folder),
        sampler=DDIM(),
        steps=min(50, getattr(read.process, "steps", 50)),
        clip=read.clip,
        shown=16,
    )
    return Model(system, read.params, read.shape, read.codec, read.classes or (), str(folder))


def load(
    folder: str | Path,
    step: Step = None,
    average: int | float | None = 0,
    code: Sequence[ModuleType] = (),
) -> Model:
    """The model that a run trained: from its newest checkpoint, from that of a step, or the best.

    Or one that is published: a folder that `jaxdiff publish` wrote, or `hub:owner/name` of the Hugging Face Hub.

    `average` is which of the config's averages, by number; a width below 0.28 puts together that average from the
    power averages of all checkpoints (Karras et al. 2024a); None takes the parameters as they are. A run whose
    config names classes outside jaxdiff is read with `code`, the modules that they are in.
    """
    run = opened(published.folder_of(folder), code)
    if not isinstance(run.config.system, Diffusion):
        what = type(run.config.system).__name__
        raise ValueError(f"{folder} trained {what}, which draws no images: give another --workdir")
    step, params = parameters_of(run, step, average)
    kind = "" if average == 0 else ", its parameters" if average is None else f", average {average}"
    return Model(run.config.system, params, run.shape, run.codec, run.classes, f"{folder} at step {step}{kind}")


def load_classifier(folder: str | Path, step: Step = None, code: Sequence[ModuleType] = ()) -> Classifier:
    """The classifier that a run trained."""
    run = opened(Path(folder), code)
    if not isinstance(run.config.system, Classification):
        raise ValueError(f"{folder} trained {type(run.config.system).__name__}, no classifier: give another")
    _, params = trained(run, step)
    return Classifier(run.config.system, params, run.shape, run.classes, str(folder))


def parameters_of(run: Run, step: Step, average: int | float | None) -> tuple[int, Any]:
    """The step they are of, and the parameters."""
    if published.is_published(run.folder):
        if step is not None or average != 0:
            raise ValueError(f"{run.folder} is published, with one set of parameters: leave out checkpoint and average")
        return published.read(run.folder, run.state_shapes.params)
    kinds = run.config.training.averages
    if isinstance(average, float):
        return _profile(run, step, average)
    if average is not None and not 0 <= average < len(kinds):
        listed = ", ".join(f"{i} {kind}" for i, kind in enumerate(kinds))
        raise ValueError(f"{run.folder} has the averages {listed}; got {average}")
    return trained(run, step, average)


def _profile(run: Run, step: Step, width: float) -> tuple[int, Any]:
    """An average of any width, from all checkpoints up to a step."""
    powers = [(i, kind.width) for i, kind in enumerate(run.config.training.averages) if isinstance(kind, PowerEma)]
    if not powers:
        raise ValueError(f"an average of width {width} needs PowerEma among training.averages, {run.folder} has none")
    if not 0 < width < 0.28:
        raise ValueError(f"the width of an average must be above 0 and below 0.28, got {width}")
    if step == "best":
        raise ValueError(f"an average of width {width} is of all checkpoints up to a step: name it by its number")
    with reading(run) as checkpoints:
        steps, step = checkpoints.steps, checkpoints.known(step)
    wanted = [(at, i, known) for at in steps if at <= step for i, known in powers]
    # on the host: together they may be too many for a device
    snapshots = [(known, float(at), jax.device_get(trained(run, at, i)[1])) for at, i, known in wanted]
    return step, averages.profile(width, step, snapshots)
