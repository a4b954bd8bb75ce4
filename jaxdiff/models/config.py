"""All that can be chosen for one run."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from jaxdiff.base import files, plain, tree
from jaxdiff.base.annotations import accepts
from jaxdiff.base.checks import require
from jaxdiff.base.fields import may_change
from jaxdiff.data.augment import Augment
from jaxdiff.data.digits import Digits
from jaxdiff.data.examples import Examples, Source
from jaxdiff.models.held_out import COLUMNS
from jaxdiff.models.system import System
from jaxdiff.training.state import Training

FRECHET = "frechet"  # a column of metrics.csv
FORM = 1  # of config.json: another one is refused


@dataclass(frozen=True)
class Config:
    """All that can be chosen."""

    system: System  # what is trained: Diffusion(...), Autoencoding(...), Classification(...), or your own
    data: Source | Callable[[], Examples] = Digits()  # the images it learns from
    held_out: Source | Callable[[], Examples] | None = may_change(
        None
    )  # images that are not trained on: their loss is seen, and pictures and accuracies are of them
    judge: str | None = may_change(
        None
    )  # features as evaluate.py has them: a Fréchet distance of 1,000 samples, now and then
    start: str | None = None  # the run, or the folder of diffusers, whose averaged parameters it starts from
    batch_size: int = 128  # images in each step, on all devices together
    augment: Augment = Augment()  # what chance may do to an image
    data_on_device: bool | None = may_change(None)  # None: on a GPU or TPU, if they take at most 2 GB
    training: Training = Training()  # how long and how to train, what to keep and to show
    seed: int = 0  # of parameters, order, noise and all else that is drawn

    def __post_init__(self) -> None:
        for source in (self.data, self.held_out):
            known = source is None or isinstance(source, FunctionType) or accepts(Source, source)
            require(known, "data to open, such as Digits(), or a function that gives Examples", source)
        require(0 <= self.seed < 2**32, "0 <= seed < 2^32", self.seed)
        require(1 <= self.batch_size <= 2**20, "a batch_size from 1 to 2^20", self.batch_size)
        wanted = self.training.keep_best
        if wanted not in (None, *self.judged):
            legal = f"one of {', '.join(self.judged)}" if self.judged else "None, or the config needs held_out"
            raise ValueError(f"training.keep_best must be {legal}, got {wanted!r}")
        if self.encoded_once and replace(self.augment, flip=False) != Augment():
            raise ValueError(f'{self.augment} needs system.encode="each step": what is encoded once is only flipped')
        if self.start is None and getattr(self.system, "wants_teacher", False):
            raise ValueError("system.objective learns of a teacher: start must name one, such as start=runs/mnist")
        if self.batch_size % self.training.accumulate:
            raise ValueError(f"needs a batch_size that accumulate={self.training.accumulate} divides")

    @property
    def judged(self) -> tuple[str, ...]:
        """What is looked at now and then, as columns of metrics.csv."""
        return (() if self.held_out is None else COLUMNS) + (() if self.judge is None else (FRECHET,))

    @property
    def codec(self) -> str | None:
        """Where the autoencoder of a latent model comes from."""
        return getattr(self.system, "codec", None)

    @property
    def encoded_once(self) -> bool:
        """Whether latents are made before the training."""
        return self.codec is not None and getattr(self.system, "encode", None) == "once"


def written(config: Config) -> str:
    """The config as config.json has it."""
    return json.dumps({"form": FORM, "config": plain.to_data(config)}, indent=1, allow_nan=False)


def read_config(folder: Path, code: Sequence[ModuleType] = ()) -> Config:
    """The config of a run; `code` are the modules, besides jaxdiff's, whose classes it may name."""
    path = folder / "config.json"
    try:
        data = files.read_json(path)
    except FileNotFoundError:
        raise ValueError(f"{folder} is not the folder of a run: it has no config.json") from None
    form = data.get("form")
    if form != FORM:
        raise ValueError(f"{path} has the form {form!r:.50}, this jaxdiff reads form {FORM}: train the run anew")
    config = plain.from_data(data.get("config"), code)
    if not isinstance(config, Config):
        raise ValueError(f"{path} is damaged: it holds no config of a run")
    return config


def modules_of(config: Any) -> set[Any]:
    """The modules, besides jaxdiff's, in which the parts of a config are defined."""
    named = config if isinstance(config, FunctionType) else type(config)
    below = set().union(*map(modules_of, tree.parts_of(config).values()))
    return below | {sys.modules[named.__module__]} - {sys.modules["builtins"]}
