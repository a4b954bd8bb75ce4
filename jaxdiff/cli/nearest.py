"""Whether samples are copies of training images."""

import numpy as np

from jaxdiff.base import pictures
from jaxdiff.base.console import say, tell
from jaxdiff.base.devices import is_first
from jaxdiff.base.words import plural
from jaxdiff.cli.evaluation import Evaluation
from jaxdiff.data.examples import Images
from jaxdiff.evaluation.copies import Copies, copies
from jaxdiff.models.real import Shuffled

COUNT = 1000
HELD_OUT = 2000  # images that say what is no copy
SHOWN, COLUMNS = 48, 6  # samples in the picture


def nearest(asked: Evaluation) -> int:
    """The exit code."""
    if asked.o.reference == "train":
        raise ValueError("--nearest looks among the training images anyway: --reference names others, or leave it out")
    training, held_out = asked.real("train"), asked.reference
    plan = None if asked.o.samples is not None else asked.plan(COUNT)
    samples = asked.samples(training, plan)
    if samples is None:
        return 130
    there, images = training.examples.images, np.asarray(samples.images[np.arange(len(samples))])
    apart = Shuffled(held_out.examples.images, HELD_OUT)
    say(f"looking for {plural(len(images), 'sample')} among {plural(len(there), 'training image')}")
    found = copies(images, apart[np.arange(len(apart))], there)
    of = {"nearest": asked.of(plan, samples), "training": training.identity, "held out": held_out.identity}
    if asked.report.find(of) is None:
        asked.report.add(of, _numbers(found))
    path = asked.beside("nearest.png")
    if is_first():
        pictures.save(path, _beside(images, there, found))
    tell(f"{_told(found)}\n{path}\n{asked.report.path}")
    return 0


def _numbers(found: Copies) -> dict[str, object]:
    return {
        "samples": len(found.samples.index),
        "copies": int(found.copied(found.samples).sum()),
        "which": np.flatnonzero(found.copied(found.samples)).tolist(),
        "share of held-out images that are judged copies": float(found.copied(found.held_out).mean()),
        "share nearer than the median of held-out images": found.closer,
        "a copy has a ratio below": found.limit,
        "distance in gray levels of samples, and of held-out images": found.quantiles(),
    }


def _told(found: Copies) -> str:
    count, apart = int(found.copied(found.samples).sum()), float(found.copied(found.held_out).mean())
    among = plural(len(found.samples.index), "sample")
    lines = [
        f"{count:,} {'copy' if count == 1 else 'copies'} among {among} ({apart:.2%} of held-out images are judged so)",
        f"{found.closer:.1%} are nearer to a training image than half of held-out images: 50%, if none is copied",
    ]
    for share, (mine, theirs) in found.quantiles().items():
        lines.append(f"the nearest {share}: within {mine:.1f} gray levels; of held-out images {theirs:.1f}")
    return "\n".join(lines)


def _beside(images: np.ndarray, training: Images, found: Copies) -> np.ndarray:
    """The samples that are most like a training image, with that to the right of each."""
    order = np.argsort(found.samples.ratio)[:SHOWN]
    pairs = np.concatenate([images[order], np.asarray(training[found.samples.index[order]])], 2)
    return pictures.sheet(pairs, columns=COLUMNS, title="samples, and beside each its nearest training image")
