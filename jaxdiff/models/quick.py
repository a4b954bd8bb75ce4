"""How far a thousand samples are from real images, while a model trains."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType

from jaxdiff.base import pictures
from jaxdiff.data.examples import Examples
from jaxdiff.data.identity import identity_of
from jaxdiff.evaluation.distances import frechet
from jaxdiff.evaluation.summary import Summary
from jaxdiff.models.config import FRECHET, Config
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.judging import features_of
from jaxdiff.models.model import Model
from jaxdiff.models.real import Shuffled, asked_for, known_summary, reference_of, summary_of
from jaxdiff.training.checkpoint import Best
from jaxdiff.training.metrics import read_metrics

COUNT = 1000


def kept_best(config: Config, held_out: Examples, folder: Path, at: int) -> Best | None:
    """The best checkpoint of a run, by the number that `keep_best` names."""
    name = config.training.keep_best
    if name is None:
        return None
    of = [identity_of(held_out)["hash"], config.judge, name]
    rows = read_metrics(folder / "metrics.csv")
    return Best(folder / "best", at, of, {int(row["step"]): row[name] for row in rows if name in row})


class Quick:
    """By the features that the config's `judge` names; always of the same seed."""

    def __init__(self, config: Config, code: Sequence[ModuleType] = ()):
        if not isinstance(config.system, Diffusion):
            raise ValueError(
                f"judge compares samples, which {type(config.system).__name__} does not draw: leave it out"
            )
        self._features = features_of(str(config.judge), code=code)
        self._real = reference_of(config, "train" if config.held_out is None else "test")
        self._features.check(self._real.examples.images)
        many, there = self._features.count or 0, len(self._real.examples)
        if there <= many:
            raise ValueError(
                f"judge={config.judge!r} has {many:,} features, more than the {there:,} real images: take another"
            )

    @cached_property
    def _there(self) -> Summary:
        return known_summary(self._features, self._real)

    def numbers(self, model: Model) -> dict[str, float]:
        count = max(COUNT, self._there.rows.shape[1] + 1)
        images = pictures.to_uint8(model.sample(count, *asked_for(model, self._real.examples), progress=False))
        return {FRECHET: frechet(summary_of(self._features, Shuffled(images), "features"), self._there).value}
