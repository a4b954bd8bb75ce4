"""What the three questions of evaluate.py have in common: the data, the plans, and where results go."""

import contextlib
import hashlib
import json
from argparse import Namespace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base import code, files
from jaxdiff.base.console import say
from jaxdiff.base.devices import agreed, agreeing, is_first
from jaxdiff.base.words import plural
from jaxdiff.cli import output
from jaxdiff.cli.drawing import Drawing
from jaxdiff.cli.evaluate_options import SEVERAL, settings
from jaxdiff.cli.plan import Plan, planned
from jaxdiff.cli.report import Report
from jaxdiff.cli.sample import about
from jaxdiff.cli.which import modules_of, newest, place_of
from jaxdiff.data import Arrays
from jaxdiff.data.examples import Examples
from jaxdiff.models.config import Config, read_config
from jaxdiff.models.published import folder_of
from jaxdiff.models.real import Real, asked_for, pixels_of, reference_of, samples_of

_OTHERS = "--reference train compares with those it was trained on, --data with those of another config"
_HELD_OUT = "--nearest needs images that were not trained on: train without some, or name a config with others, --data"


class Evaluation:
    """What the options of evaluate.py ask for."""

    def __init__(self, o: Namespace) -> None:
        self.o, self.modules = o, modules_of(o)
        if o.samples is None and o.workdir is None and o.from_diffusers is None:
            o.workdir = newest(Path("runs"), self.modules)
        self._about: dict[Plan, dict[str, Any]] = {}
        self.settings = list(settings(o))  # of each plan
        self.varied = [name for name in SEVERAL if len({getattr(each, name) for each in self.settings}) > 1]

    @cached_property
    def own(self) -> Config:
        """That of the run; of a pipeline of diffusers, which has none, that which is named."""
        return self.config if self.o.workdir is None else read_config(folder_of(self.o.workdir), self.modules)

    @cached_property
    def config(self) -> Config:
        """That whose data are the reference: named, or that of the run."""
        config = self.own if self.o.data is None else code.load(self.o.data)
        if not isinstance(config, Config):
            raise ValueError(f"{self.o.data} holds no Config of a run, whose data could be the reference")
        return config

    def real(self, split: str | None) -> Real:
        return reference_of(self.config, split, _HELD_OUT if self.o.nearest else _OTHERS)

    @cached_property
    def reference(self) -> Real:
        return self.real(self.o.reference)

    @property
    def place(self) -> Path:
        """Where pictures go: beside the run, or beside the images."""
        return place_of(self.o) if self.o.samples is None else self.o.samples.parent

    @property
    def kept(self) -> Path:
        """The folder of what took long, for another call to go on with."""
        return self.place / "evaluation"

    def beside(self, name: str) -> Path:
        """A file there; of images, with their name before it."""
        before = "" if self.o.samples is None else f"{self.o.samples.stem}_"
        return self.place / f"{before}{name}"

    @cached_property
    def report(self) -> Report:
        path = self.beside("evaluation.json")
        files.check_place(path, "give another --workdir, or make it writable")
        return Report(path)

    def plan(self, count: int) -> Plan:
        """The one that there is."""
        plans = self.plans(count)
        if len(plans) > 1:
            raise ValueError("--likelihood and --nearest ask of one setting: give one value each, not several")
        return plans[0]

    def plans(self, count: int) -> list[Plan]:
        """What is drawn for each of the values that are tried; nothing is, before all of them are legal."""
        return [self._planned(each, count) for each in self.settings]

    def _planned(self, o: Namespace, count: int) -> Plan:
        o.num = o.num or (None if o.per_label else count)
        usual = None if self.o.likelihood else lambda model: asked_for(model, self.reference.examples)
        return planned(o, usual)

    def samples(self, real: Real, plan: Plan | None) -> Examples | None:
        """Those that are given, or those of the plan; None if it was stopped."""
        shape = tuple(real.examples.images.shape[1:])
        if plan is None:
            return samples_of(self.o.samples, shape)
        real.check_alike(plan.model.image_shape)
        return self._drawn(plan)

    def _drawn(self, plan: Plan) -> Examples | None:
        """Those that are there, of any call that drew the same, and the rest."""
        known = self.about(plan)
        name = f"samples-{hashed(known)}"
        there = {int(path.stem.rpartition("-")[2]): path for path in self.kept.glob(f"{name}-*.npz")}
        most = max(there, default=0)
        old = Arrays(str(there[most])).open() if most and output.is_finished(there[most], most, known) else None
        if not agreed(most >= plan.count):
            path = self.kept / f"{name}-{plan.count}.npz"
            if not self._draw(plan, path, old):
                return None
            old = Arrays(str(path)).open()
        assert old is not None
        return Examples(*_part(old, slice(plan.count)), plan.model.knows(plan.classifier)[1])

    def _draw(self, plan: Plan, path: Path, old: Examples | None) -> bool:
        """Whether all are drawn; the first of them are there, it may be."""
        labelled = plan.labels_of(np.zeros(1, int)) is not None
        height, width, channels = plan.model.image_shape
        with contextlib.ExitStack() as closing:
            outputs: list[output.Output] = []
            with agreeing():
                if is_first():
                    self.kept.mkdir(parents=True, exist_ok=True)
                    kept = output.Npz(path, plan.count, (height, width, channels), labelled, self.about(plan))
                    outputs.append(closing.enter_context(contextlib.closing(kept)))
                    if old is not None and kept.done < len(old):
                        kept.write(*_part(old, slice(kept.done, None)))
            say(f"{plural(plan.count, 'image')} of {plan.model.name}: {plan.how()}")
            drawing = Drawing(plan, outputs)
            whole = drawing.run()
            for each in outputs if whole else []:
                each.finish()
        agreed(False)  # the others read what the first has written
        if not whole:
            say(f"stopped at {drawing.done:,} of {plural(plan.count, 'image')}; the same command resumes")
        return whole

    def about(self, plan: Plan) -> dict[str, Any]:
        """As sample.py knows it; once, since all parameters are hashed for it."""
        if plan not in self._about:
            self._about[plan] = about(plan)
        return self._about[plan]

    def of(self, plan: Plan | None, given: Examples | None) -> dict[str, object]:
        """What tells these samples from others: how they are drawn, or what they are."""
        if plan is not None:
            return self.about(plan) | {"conditions": _short(plan.texts), "count": plan.count}
        assert given is not None
        return {"file": str(self.o.samples), "images": pixels_of(given)}


def _part(some: Examples, rows: slice) -> tuple[np.ndarray, np.ndarray | None]:
    return np.asarray(some.images)[rows], None if some.labels is None else some.labels[rows]


def _short(texts: list[str]) -> str:
    said = ", ".join(texts)
    return said if len(said) < 500 else f"{len(texts)}, {hashed(texts)}"


def hashed(of: object) -> str:
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
