"""How likely a model finds real images, in bits per dimension."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxdiff.base import files
from jaxdiff.base.console import say, tell
from jaxdiff.base.words import plural
from jaxdiff.cli.evaluation import Evaluation, hashed
from jaxdiff.cli.halving import halving
from jaxdiff.cli.plan import Plan
from jaxdiff.data.labels import renumbered
from jaxdiff.models.conditions import Labels
from jaxdiff.models.likelihood import Likelihood, bits_per_dimension
from jaxdiff.models.real import Shuffled

COUNT, AT_ONCE = 1000, 32  # images: usually, and at a time
WAYS = {"bits per dimension by the ODE": False, "and at most, by the variational bound": True}


def likelihood(asked: Evaluation) -> int:
    """The exit code."""
    reference = asked.reference
    asked.o.num = min(asked.o.num or COUNT, len(reference.examples))
    plan = asked.plan(COUNT)
    model, count = plan.model, asked.o.num
    reference.check_alike(model.image_shape)
    some, labels = Shuffled(reference.examples.images, count), reference.examples.labels
    images = some[np.arange(count)]
    known = isinstance(model.system.condition, Labels) and labels is not None and asked.o.data is None
    given = None
    if known and labels is not None:
        given = renumbered(labels[some.rows], reference.examples.classes, model.classes, model.name).tolist()
    say(f"{plural(count, 'real image')} ({reference.name}) by {model.name}{', given their labels' * known}")
    drawn = asked.about(plan)
    for name, bound in WAYS.items():
        how = Likelihood(bound, probes=asked.o.probes, dequantized=asked.own.augment.dequantize)
        of = {"likelihood of": reference.identity, "count": count, "given labels": known, "how": repr(how)}
        of |= {"model": model.name, "parameters": drawn["parameters"], "seed": plan.seed}
        numbers = asked.report.find(of)
        if numbers is None:
            kept = asked.kept / f"likelihood-{hashed(of)}.npy"
            numbers = {"bits per dimension": _mean(_bits(plan, images, given, how, name, kept))}
            asked.report.add(of, numbers)
            kept.unlink()
        value = numbers["bits per dimension"]
        tell(f"{name}: {value['value']:.4f} +-{value['error']:.4f}")
    tell(str(asked.report.path))
    return 0


def _bits(plan: Plan, images: np.ndarray, labels: Any, how: Likelihood, name: str, kept: Path) -> np.ndarray:
    """Of each image; those of earlier calls are in the file, as those of this one will be for later ones."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    found = np.load(kept) if kept.exists() else np.zeros(0)
    before, left = len(found), images[len(found) :]

    def batches(done: int, size: int) -> Iterator[np.ndarray]:
        call: dict[str, Any] = {"how": how, "seed": plan.seed, "first": before + done, "batch_size": size}
        nats = plan.model.log_likelihoods(left[done:], labels, **call)
        return (bits_per_dimension(each, images.shape[1:]) for each in nats)

    with tqdm(total=len(images), initial=before, desc=name, unit=" images", disable=None, dynamic_ncols=True) as bar:
        for some in halving(batches, len(left), plan.batch_size or AT_ONCE, plan.batch_size is not None):
            found = np.concatenate([found, some])
            files.write(kept, files.npy_header(found.dtype.str, found.shape) + found.tobytes())
            bar.update(len(some))
    if not np.isfinite(found).all():
        raise ValueError(f"image {int(np.argmin(np.isfinite(found)))} has no finite likelihood: the ODE is too stiff")
    return found


def _mean(bits: np.ndarray) -> dict[str, float]:
    error = bits.std(ddof=1) / math.sqrt(len(bits)) if len(bits) > 1 else 0.0
    return {"value": float(bits.mean()), "error": float(error)}
