"""How likely a model finds real images, in bits per dimension."""

import math
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxdiff.base.console import say
from jaxdiff.base.text import shown
from jaxdiff.base.words import plural
from jaxdiff.cli.evaluation import Evaluation
from jaxdiff.cli.plan import Plan
from jaxdiff.models.conditions import Labels
from jaxdiff.models.likelihood import Likelihood, bits_per_dimension
from jaxdiff.models.real import Shuffled

COUNT = 1000
WAYS = {"bits per dimension by the ODE": False, "and at most, by the variational bound": True}


def likelihood(asked: Evaluation) -> int:
    """The exit code."""
    reference = asked.real(asked.o.reference)
    asked.o.num = min(asked.o.num or COUNT, len(reference.examples))
    plan = asked.plan(COUNT)
    model, count = plan.model, asked.o.num
    reference.check_alike(model.image_shape)
    some, labels = Shuffled(reference.examples.images, count), reference.examples.labels
    images = some[np.arange(count)]
    known = isinstance(model.system.condition, Labels) and labels is not None and asked.o.data is None
    given = [int(label) for label in labels[some.rows]] if known and labels is not None else None
    say(f"{plural(count, 'real image')} ({reference.name}) by {model.name}{', given their labels' * known}")
    drawn = asked.about(plan)
    for name, bound in WAYS.items():
        how = Likelihood(bound, probes=asked.o.probes, dequantized=asked.own.augment.dequantize)
        of = {"likelihood of": reference.identity, "count": count, "given labels": known, "how": repr(how)}
        of |= {"model": model.name, "parameters": drawn["parameters"], "seed": plan.seed}
        numbers = asked.report.find(of)
        if numbers is None:
            numbers = {"bits per dimension": _mean(_bits(plan, images, given, how, name))}
            asked.report.add(of, numbers)
        value = numbers["bits per dimension"]
        print(f"{name}: {value['value']:.4f} +-{value['error']:.4f}")
    print(shown(str(asked.report.path)))
    return 0


def _bits(plan: Plan, images: np.ndarray, labels: Any, how: Likelihood, name: str) -> np.ndarray:
    each = []
    with tqdm(total=len(images), desc=name, unit=" images", disable=None, dynamic_ncols=True) as bar:
        batches = plan.model.log_likelihoods(images, labels, how=how, seed=plan.seed, batch_size=plan.batch_size or 32)
        for found in batches:
            each.append(bits_per_dimension(found, images.shape[1:]))
            bar.update(len(found))
    found = np.concatenate(each)
    if not np.isfinite(found).all():
        raise ValueError(f"image {int(np.argmin(np.isfinite(found)))} has no finite likelihood: the ODE is too stiff")
    return found


def _mean(bits: np.ndarray) -> dict[str, float]:
    error = bits.std(ddof=1) / math.sqrt(len(bits)) if len(bits) > 1 else 0.0
    return {"value": float(bits.mean()), "error": float(error)}
