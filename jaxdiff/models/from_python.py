"""What train.py does, from Python: in a notebook with its loss, samples and progress below the cell."""

import functools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from jaxdiff.base import code as users
from jaxdiff.base import environment, pictures
from jaxdiff.base.console import say
from jaxdiff.base.overrides import overrides
from jaxdiff.base.text import exhausted
from jaxdiff.models.classification import Classification
from jaxdiff.models.config import Config, modules_of
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.loading import load, load_classifier
from jaxdiff.models.model import Classifier, Model


def train(
    config: Config | str | Path,
    workdir: str | Path | None = None,
    *changes: str,
    restart: bool = False,
    accept_data: bool = False,
    code: Sequence[ModuleType] = (),
) -> Model | Classifier | None:
    """Trains to the end, or until it is interrupted; the model, or the classifier, that it is then.

        model = jaxdiff.train("mnist", "runs/mine", "training.steps=5000", "batch_size=32")

    As `python train.py --config mnist --workdir runs/mine training.steps=5000 batch_size=32`: the same call again
    resumes. `config` is a file, the name of a shipped one, or a Config, which needs a workdir.
    """
    if workdir is not None and "=" in str(workdir):
        raise ValueError(f"the folder of the run comes before changes: jaxdiff.train(config, folder, {str(workdir)!r})")
    _prepare()
    if isinstance(config, Config):
        if workdir is None:
            raise ValueError('a Config has no name: give the run a folder, such as jaxdiff.train(config, "runs/mine")')
        named = config
    else:
        named, workdir = users.load(config), workdir or Path("runs") / Path(config).stem
    first = "config" if isinstance(config, Config) else repr(str(config))
    again = f"jaxdiff.train({', '.join([first, *map(repr, (str(workdir), *changes))])})"
    experiment = Experiment(overrides(named, changes), Path(workdir), code, accept_data, again)
    try:
        stopped = experiment.train(restart)
    except (RuntimeError, MemoryError) as error:
        if not exhausted(error):
            raise
        full = "there is too little memory: try a smaller batch_size=..., or training.accumulate=4"
        raise ValueError(f"{full}; where it stays full, restart the kernel") from None
    if stopped:
        say(f"stopped by {stopped}, and saved: the same call resumes")
    its_code = *code, *modules_of(experiment.config)
    if isinstance(experiment.config.system, Diffusion):
        return load(workdir, code=its_code)
    return load_classifier(workdir, code=its_code) if isinstance(experiment.config.system, Classification) else None


_prepare = functools.cache(environment.prepare)


def show(images: Any, texts: Sequence[str] | None = None) -> Image.Image:
    """Images, floats in [-1, 1] or uint8, as one picture; texts in turn, as labels take turns, make a row each."""
    return Image.fromarray(pictures.laid_out(images, None if texts is None else list(texts)).squeeze())
