"""Whether samples are copies of training images."""

import numpy as np

from jaxdiff.base import pictures
from jaxdiff.base.console import say
from jaxdiff.base.text import shown
from jaxdiff.base.words import plural
from jaxdiff.cli.evaluation import Evaluation
from jaxdiff.evaluation.copies import Copies, copies
from jaxdiff.models.real import Real

COUNT = 1000
HELD_OUT = 2000  # images that say what is no copy
SHOWN, COLUMNS = 48, 6  # samples in the picture


def nearest(asked: Evaluation) -> int:
    """The exit code."""
    training = asked.real("train")
    held_out = asked.real(None if asked.o.reference == "train" else asked.o.reference)
    plan = None if asked.o.samples is not None else asked.plans(COUNT)[0]
    samples = asked.samples(training, plan)
    if samples is None:
        return 130
    images, there = (_all(Real("", each)) for each in (samples, training.examples))
    say(f"looking for {plural(len(images), 'sample')} among {plural(len(there), 'training image')}")
    found = copies(images, _all(held_out, HELD_OUT), there)
    of = {"nearest": asked.of(plan, samples), "training": training.identity, "held out": held_out.identity}
    if asked.report.find(of) is None:
        asked.report.add(of, _numbers(found))
    path = asked.place / "nearest.png"
    pictures.save(path, _beside(images, there, found))
    print(_told(found), shown(str(path)), shown(str(asked.report.path)), sep="\n")
    return 0


def _all(real: Real, most: int | None = None) -> np.ndarray:
    return np.asarray(real.examples.images[np.arange(min(most or len(real.examples), len(real.examples)))])


def _numbers(found: Copies) -> dict[str, object]:
    return {
        "samples": len(found.copied),
        "copies": int(found.copied.sum()),
        "which": np.flatnonzero(found.copied).tolist(),
        "share nearer than the median of held-out images": found.closer,
        "a copy has a ratio below": found.limit,
        "distance in gray levels of samples, and of held-out images": found.quantiles(),
    }


def _told(found: Copies) -> str:
    count = int(found.copied.sum())
    lines = [
        f"{count:,} {'copy' if count == 1 else 'copies'} among {plural(len(found.copied), 'sample')}",
        f"{found.closer:.1%} are nearer to a training image than half of held-out images: 50%, if none is copied",
    ]
    for share, (mine, theirs) in found.quantiles().items():
        lines.append(f"the nearest {share}: within {mine:.1f} gray levels; of held-out images {theirs:.1f}")
    return "\n".join(lines)


def _beside(images: np.ndarray, training: np.ndarray, found: Copies) -> np.ndarray:
    """The samples that are most like a training image, with that to the right of each."""
    order = np.argsort(found.samples.ratio)[:SHOWN]
    pairs = np.concatenate([images[order], training[found.samples.index[order]]], 2)
    return pictures.sheet(pairs, columns=COLUMNS, title="samples, and beside each its nearest training image")
