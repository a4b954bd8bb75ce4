"""From the options of sample.py to a plan: which model, which conditions, how they are sampled, and where images go."""

import hashlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.base.files import unused
from jaxdiff.base.words import plural
from jaxdiff.cli.conflicts import check, sides_of
from jaxdiff.cli.given import Inputs, edit_of, given_images, known_of, parsed_labels
from jaxdiff.cli.how import guidance_of, sampler_of, steps_of
from jaxdiff.cli.which import model_of, modules_of, place_of
from jaxdiff.core.arguments import check_parts
from jaxdiff.core.grids import Grid
from jaxdiff.core.samplers import Sampler
from jaxdiff.models.edit import Edit
from jaxdiff.models.loading import load_classifier
from jaxdiff.models.model import Classifier, Model
from jaxdiff.models.real import Asked

IN_PICTURE = 1000  # images of up to 128x128; what is beyond is not in it
CHANGES = ("strength", "invert", "was", "outpaint", "upscale", "colorize", "interpolate")  # what tells edits apart


@dataclass(frozen=True)
class Places:
    """Where images go."""

    picture: Path
    npz: Path | None = None
    singles: Path | None = None
    trajectory: bool = False
    opens: bool = False
    asked: bool = False  # whether the picture is asked for, which there is in any case


@dataclass(frozen=True)
class Outpainting:
    """Images to go on painting beyond their borders."""

    images: np.ndarray
    sides: tuple[int, ...]  # pixels to the left, top, right and bottom


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is to be drawn, and how."""

    model: Model
    classifier: Classifier | None
    sampler: Sampler
    grid: Grid | None
    steps: int | None
    guidance: dict[str, Any]
    labels: list[int | str] | None
    prompts: list[str] | None
    conditions: Any  # of the images, in turn
    texts: list[str]  # and what each of these says
    seed: int
    first: int
    count: int
    batch_size: int | None
    places: Places
    about_edit: str  # what tells this edit from others
    edit: Edit | None = None
    outpainting: Outpainting | None = None
    in_order: bool = False  # images go from one to another, and so are a row

    @property
    def period(self) -> int:
        """After how many images conditions and given images come again."""
        return max(len(self.texts), 1 if self.edit is None else len(self.edit))

    @property
    def times(self) -> np.ndarray:
        return np.asarray(self.model.times(self.steps, self.grid, 1.0 if self.edit is None else self.edit.strength))

    @property
    def numbers(self) -> range:
        """Of the images."""
        return range(self.first, self.first + self.count)

    @cached_property
    def classes(self) -> np.ndarray | None:
        """That of each condition, if labels are what is asked for."""
        conditions = None if self.conditions is None else np.asarray(self.conditions)
        if conditions is None or conditions.ndim == 1:
            return conditions
        return None if self.labels is None else self.model.classes_of(self.labels)

    def labels_of(self, numbers: np.ndarray) -> np.ndarray | None:
        """The labels of these images."""
        return None if self.classes is None else self.classes[numbers % len(self.classes)]

    def how(self) -> str:
        """The sampler, its steps, the guidance and the seed, in words."""
        scale = self.model.system.scale_of(self.guidance["guidance_scale"])
        by = "" if self.classifier is None else f" by {self.classifier.name}"
        guided = f", guidance_scale={scale:g}{by}" if self.texts else ""
        return f"{self.sampler}, {plural(len(self.times) - 1, 'step')}{guided}, seed {self.seed}"

    def options(self) -> dict[str, Any]:
        """What `Model.batches` is to be called with."""
        names = ("labels", "prompts", "edit", "seed", "steps", "sampler", "grid", "classifier")
        return {name: getattr(self, name) for name in names} | self.guidance


def planned(o: Namespace, usual: Callable[[Model], Asked] | None = None) -> Plan:
    """Refuses what cannot be, before anything is written. `usual` is what is asked for where nothing is said."""
    check(o)
    modules = modules_of(o)
    model = model_of(o, modules)
    classifier = None if o.classifier is None else load_classifier(o.classifier, code=modules)
    labels, prompts, scale = conditions_of(o, model, classifier, usual)
    conditions, texts = (None, []) if scale == 0 and unsaid(o) else model.choices(labels, prompts, classifier)
    guidance = guidance_of(o, model, scale, bool(texts))
    denoiser = model.denoiser(classifier=classifier, **guidance)
    sampler = sampler_of(o, model.system.sampler)
    steps, grid = steps_of(o, model.system.grid, sampler)
    edit = edit_of(Inputs(model, sampler, grid, steps, texts, o.seed or 0), o)
    outpainting = outpainting_of(o, model)
    plan = Plan(
        model=model,
        classifier=classifier,
        sampler=sampler,
        grid=grid,
        steps=steps,
        guidance=guidance,
        labels=labels,
        prompts=prompts,
        conditions=conditions,
        texts=texts,
        seed=o.seed or 0,
        first=o.first or 0,
        count=count_of(o, model, len(texts), edit, outpainting),
        batch_size=o.batch_size,
        places=places_of(o),
        about_edit=about_edit(o),
        edit=edit,
        outpainting=outpainting,
        in_order=o.interpolate is not None,
    )
    check_parts(denoiser, model.system.process, sampler, plan.times)
    if plan.first + plan.count > 2**32:
        raise ValueError(f"images are numbered below 2^32, got {plan.count} from --first {plan.first} on")
    return plan


def conditions_of(
    o: Namespace, model: Model, classifier: Classifier | None, usual: Callable[[Model], Asked] | None
) -> tuple[Any, Any, float | None]:
    """Labels, prompts and the guidance scale, where they are given."""
    if unsaid(o) and model.system.condition is not None:  # the condition under which the two images were inverted
        was = known_of(o, model)
        return was.get("labels"), was.get("prompts"), 1.0 if was else 0.0
    if usual is not None and o.labels is o.prompt is None:
        return *usual(model), o.guidance_scale
    labels = None if o.labels is None else parsed_labels(o.labels, model.knows(classifier)[1])
    return labels, o.prompt, o.guidance_scale


def unsaid(o: Namespace) -> bool:
    """Whether two images are interpolated, and nothing is said of what is between."""
    return o.interpolate is not None and o.init is not None and o.labels is o.prompt is o.guidance_scale is None


def count_of(o: Namespace, model: Model, texts: int, edit: Edit | None, outpainting: Outpainting | None) -> int:
    """How many images: so many of each condition and given image, or in all."""
    period = max(texts, 1 if edit is None else len(edit))
    if outpainting is not None:
        return o.num or period * (o.per_label or 1) * len(outpainting.images)
    if o.interpolate is not None:
        return period
    if o.num is not None:
        return o.num
    if o.per_label is not None:
        return o.per_label * period
    if edit is not None:
        return period * (1 if edit.noise is not None else 5)
    shown = model.system.shown
    return max(round(shown / period), 1) * period if period <= IN_PICTURE // 10 else shown


def outpainting_of(o: Namespace, model: Model) -> Outpainting | None:
    return None if o.outpaint is None else Outpainting(given_images(o.init, model.image_shape, o.resize), sides_of(o))


def places_of(o: Namespace) -> Places:
    picture = o.out or unused(place_of(o) / "samples", ".png")  # that of an earlier call stays
    return Places(picture, o.npz, o.singles, o.trajectory, o.open, bool(o.out or o.open))


def about_edit(o: Namespace) -> str:
    given = b"".join(path.read_bytes() for path in (*(o.init or ()), *(o.mask or ())))
    return repr({name: getattr(o, name) for name in CHANGES}) + hashlib.sha256(given).hexdigest()
