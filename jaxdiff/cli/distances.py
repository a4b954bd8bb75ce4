"""How far samples are from real images: Fréchet, kernel, fidelity and variety, and whether labels are right."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base.console import say, tell
from jaxdiff.base.devices import is_first
from jaxdiff.base.words import plural
from jaxdiff.cli import report
from jaxdiff.cli.evaluation import Evaluation, hashed
from jaxdiff.cli.plan import Plan
from jaxdiff.data.examples import Examples
from jaxdiff.data.labels import renumbered
from jaxdiff.evaluation.features import LITE0, Features
from jaxdiff.models.judging import classifier_features, features_of
from jaxdiff.models.loading import load_classifier
from jaxdiff.models.real import Real, Shuffled, known_summary, others_of, summary_of

COUNT, FEWEST = 10_000, 12  # images: usually, and at least


class Distances:
    """What all samples of one call are held against."""

    def __init__(self, asked: Evaluation) -> None:
        self.asked, o = asked, asked.o
        self.plans: list[Plan | None] = [None] if o.samples is not None else [*asked.plans(COUNT)]
        self.features = features_of(o.features or LITE0, o.weights, asked.modules)
        self.judge = self._judge()
        self.reference = asked.reference
        for plan in filter(None, self.plans):  # before anything is drawn
            labels = plan.labels_of(np.arange(plan.count))
            if labels is not None:
                self._known(labels, plan.model.knows(plan.classifier)[1])

    def _judge(self) -> Features | None:
        """What tells whether an image shows its label; the features themselves if they are those of a run."""
        o = self.asked.o
        if o.judge is not None:
            return classifier_features(load_classifier(o.judge, code=self.asked.modules))
        return self.features if o.features and Path(o.features).is_dir() else None

    def of(self, samples: dict[str, object]) -> dict[str, Any]:
        """What numbers are of: without it they mean nothing."""
        used = {"name": self.features.name, "hash": self.features.hash, "may be called FID": self.features.is_inception}
        judge = None
        if self.judge is not None:
            judge = {"name": self.judge.name, "hash": self.judge.hash, "classes": hashed(self.judge.classes)}
        return {"samples": samples, "reference": self.reference.identity, "features": used, "judge": judge}

    def prepare(self, count: int) -> None:
        """Features of the real images, once it is clear that they can mean something."""
        self._check_enough(self.features.count, count)
        self.there = known_summary(self.features, self.reference)
        self._check_enough(self.there.rows.shape[1], count)
        others = others_of(self.asked.config, self.reference)
        self.floor = self._floor(others, count)

    def _check_enough(self, many: int | None, count: int) -> None:
        """A covariance of so many numbers needs more images than these."""
        real = len(self.reference.examples)
        least = max(many or 0, FEWEST - 1) + 1
        if min(count, real) < least:
            of = f"{self.features.name} has {many or 'some'} features, of which a distance means something"
            there = f"here are {count:,} samples and {real:,} real ones"
            raise ValueError(f"{of} from {least:,} images on: {there}; take more of them")

    def _floor(self, others: Real | None, count: int) -> dict[str, Any] | None:
        """The same numbers of as many other real images: what a perfect model would reach."""
        if others is None or len(others.examples) < count:
            return None
        of = self.of({"real images": others.identity, "count": count})
        known = self.asked.report.find(of)
        if known is None:
            known = report.compared(known_summary(self.features, others, count), self.there, self.features)
            self.asked.report.add(of, known)
        return known

    def numbers(self, samples: Examples, of: dict[str, Any]) -> dict[str, Any]:
        """All numbers of a set of images; kept."""
        images = Shuffled(samples.images)
        labels = None if samples.labels is None else self._known(samples.labels, samples.classes)
        found = summary_of(self.features, images, "features")
        numbers = report.compared(found, self.there, self.features)
        if self.judge is not None and labels is not None:
            seen = found if self.judge is self.features else summary_of(self.judge, images, "labels")
            numbers["accuracy"] = report.accuracy(seen.guesses, labels[images.rows])
        self.asked.report.add(of, numbers)
        return numbers

    def _known(self, labels: np.ndarray, classes: Sequence[str] | None) -> np.ndarray:
        """Labels as the judge numbers its classes, which must be among them."""
        if self.judge is None:
            return labels
        found = renumbered(labels, classes, self.judge.classes, self.judge.name)
        most, many = int(found.max()), len(self.judge.classes)
        if most >= many:
            raise ValueError(f"the samples have labels up to {most}, {self.judge.name} knows {many}: take another")
        return found


def distances(asked: Evaluation) -> int:
    """The exit code."""
    against = Distances(asked)
    plans = against.plans
    given = asked.samples(against.reference, None) if plans == [None] else None
    count = len(given) if given is not None else min(plan.count for plan in plans if plan is not None)
    against.prepare(count)
    introduce(against, count)
    rows = [] if against.floor is None else [("real images", against.floor)]
    each = []
    for number, plan in enumerate(plans):
        of = against.of(asked.of(plan, given))
        known = asked.report.find(of)
        if known is None:
            samples = given or asked.samples(against.reference, plan)
            if samples is None:
                return 130
            known = against.numbers(samples, of)
        each.append(known)
        rows.append((asked.o.samples.name if plan is None else named(asked, number, plan), known))
    tell(report.table(rows))
    plotted(asked, each, against.floor)
    tell(str(asked.report.path))
    return 0


def introduce(against: Distances, count: int) -> None:
    features, reference = against.features, against.reference
    fid = "the Fréchet distance is FID" if features.is_inception else "no FID, which takes --features inception"
    real = f"{plural(len(reference.examples), 'real image')} ({reference.name})"
    say(f"{plural(count, 'image')} against {real}, by {features.name}: {fid}")


def named(asked: Evaluation, number: int, plan: Plan) -> str:
    """What is varied; or, of one alone, all."""
    values = {name: getattr(asked.settings[number], name) for name in asked.varied}
    said = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items())
    return " ".join(said) or plan.how()


def plotted(asked: Evaluation, each: list[dict[str, Any]], floor: dict[str, Any] | None) -> None:
    """A plot, if one thing alone was varied, and is a number."""
    if len(asked.varied) != 1 or not is_first():
        return
    (name,) = asked.varied
    tried = [getattr(setting, name) for setting in asked.settings]
    if any(str(each).lower() == "none" for each in tried):  # an average
        return
    path = asked.beside(f"evaluation_{name}.png")
    report.plot(path, name.replace("_", " "), [float(value) for value in tried], each, floor)
    tell(str(path))
