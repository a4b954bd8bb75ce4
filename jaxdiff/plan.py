"""From the options of sample.py to a plan: which model, what it is told, how it is walked, what it begins from."""

import contextlib
import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff import editing, grids, images, samplers
from jaxdiff.conditions import Prompts
from jaxdiff.grids import Grid
from jaxdiff.model import Classifier, Edit, Model, load, load_classifier, load_diffusers
from jaxdiff.options import GRIDS, PARAMETERS, SAMPLERS
from jaxdiff.samplers import Sampler

STRENGTH, FRAMES = 0.6, 10  # of variations; between two ends


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
    told: Any  # what the images are told in turn
    texts: list[str]  # and what each of these says
    seed: int
    edit: Edit | None = None

    @property
    def period(self) -> int:
        """After how many images the same things are told, and begun from, again."""
        return max(len(self.texts), 1 if self.edit is None else len(self.edit))

    @property
    def times(self) -> np.ndarray:
        return np.asarray(self.model.times(self.steps, self.grid, 1.0 if self.edit is None else self.edit.strength))

    def labels_of(self, numbers: np.ndarray) -> np.ndarray | None:
        """The labels that these images are told, if labels are what they are told."""
        labels = None if self.told is None else np.asarray(self.told)
        return labels[numbers % len(labels)] if labels is not None and labels.ndim == 1 else None

    def how(self) -> str:
        scale = self.guidance["guidance_scale"]
        scale = self.model.system.guidance_scale if scale is None else scale
        by = "" if self.classifier is None else f" by {self.classifier.name}"
        guided = f", guidance_scale={scale:g}{by}" if self.texts else ""
        return f"{self.sampler}, {len(self.times) - 1} steps{guided}, seed {self.seed}"

    def options(self) -> dict[str, Any]:
        """What `Model.batches` is to be called with."""
        names = ("labels", "prompts", "edit", "seed", "steps", "sampler", "grid", "classifier")
        return {name: getattr(self, name) for name in names} | self.guidance


# --- the model and how it is walked ---------------------------------------------------------------------------------


def planned(o: Namespace) -> Plan:
    model = chosen(o)
    classifier = None if o.classifier is None else load_classifier(o.classifier)
    labels = None if o.labels is None else parsed_labels(o.labels, model.knows(classifier)[1])
    told, texts = model.choices(labels, o.prompt, classifier)
    sampler = sampler_of(o, model.system.sampler)
    guidance = {
        "guidance_scale": o.guidance_scale,
        "rescale": o.guidance_rescale or 0.0,
        "interval": None if o.guidance_interval is None else tuple(o.guidance_interval),
        "threshold": o.threshold,
    }
    if not texts and (o.guidance_rescale or o.guidance_interval):
        raise ValueError(f"{model.name} is told nothing that could guide it: leave out --guidance_..., or --classifier")
    steps, grid = o.steps, grid_of(o)
    if isinstance(getattr(sampler, "sampler", None), samplers.AdaptiveODE):
        raise ValueError("--resample takes each step again, and adaptive_ode has but one: take another --sampler")
    if isinstance(sampler, samplers.AdaptiveODE):
        if steps not in (None, 1):
            raise ValueError(f"adaptive_ode finds its own steps: leave out --steps {steps}, set --tolerance")
        steps, grid = 1, grids.Uniform() if grid is None else grid
    plan = Plan(model, classifier, sampler, grid, steps, guidance, labels, o.prompt, told, texts, o.seed or 0)
    model.denoiser(classifier=classifier, **guidance)  # refuses what cannot be, before anything is written
    model.times(steps, grid)
    return dataclasses.replace(plan, edit=edit_of(plan, o))


def chosen(o: Namespace) -> Model:
    if o.from_diffusers is not None:
        return load_diffusers(o.from_diffusers)
    return load(o.workdir, o.checkpoint, average_of(o.average))


def newest(runs: Path) -> Path:
    """The run whose checkpoints changed last."""
    found = [path for path in runs.glob("*/checkpoints") if path.is_dir()]
    if not found:
        raise ValueError(f"there is no run in {runs}: python train.py --config configs/digits.py makes one")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def average_of(text: str | None) -> int | float | None:
    if text is None:
        return 0
    if text.lower() == "none":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    raise ValueError(f"--average must be a number such as 0, a width such as 0.08, or none, got {text!r}")


def sampler_of(o: Namespace, default: Sampler) -> Sampler:
    sampler = default if o.sampler is None else getattr(samplers, SAMPLERS[o.sampler])()
    for name in PARAMETERS:
        value = getattr(o, name)
        for field in ("rtol", "atol") if name == "tolerance" else (name,):
            sampler = sampler if value is None else with_parameter(sampler, name, field, value)
    for name in ("s_min", "s_max", "s_noise"):
        if getattr(o, name) is not None and not getattr(sampler, "churn", 0.0):
            raise ValueError(f"--{name} says how {sampler} churns, which it does not: add --churn")
    return samplers.Resampling(sampler, o.resample) if (o.resample or 1) > 1 else sampler


def with_parameter(sampler: Sampler, name: str, field: str, value: float) -> Sampler:
    """With one field set, its own or its corrector's."""
    if hasattr(sampler, field):
        return dataclasses.replace(sampler, **{field: value})  # type: ignore[type-var]
    if isinstance(sampler, samplers.PredictorCorrector) and hasattr(sampler.corrector, field):
        return dataclasses.replace(sampler, corrector=with_parameter(sampler.corrector, name, field, value))
    owners = " or ".join(PARAMETERS[name][1])
    raise ValueError(f"--{name} does not apply to {sampler}: it belongs to --sampler {owners}")


def grid_of(o: Namespace) -> Grid | None:
    if o.grid is None:
        return None
    kind = getattr(grids, GRIDS[o.grid])
    if o.rho is not None and o.grid != "karras":
        raise ValueError(f"--rho belongs to --grid karras, got --grid {o.grid}")
    return kind() if o.rho is None else kind(rho=o.rho)


def parsed_labels(text: str, names: Sequence[str]) -> list[int | str]:
    """ "3", "0-9" or "cat,ship" as labels."""
    if text in names:  # which may have commas in it
        return [text]
    found: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        first, _, last = part.partition("-")
        if part not in names and first.isdecimal() and last.isdecimal() and int(last) - int(first) < 2**16:
            found.extend(range(int(first), int(last) + 1))
        else:
            found.append(int(part) if part.isdecimal() and part not in names else part)
    if not found:
        raise ValueError(f"--labels must be such as 3, 0-9 or cat,ship, got {text!r}")
    return found


# --- given images ---------------------------------------------------------------------------------------------------


def edit_of(plan: Plan, o: Namespace) -> Edit | None:
    """What the images are made from, each of the given images in a row for all labels or prompts."""
    if o.outpaint is not None or (o.init is None and o.interpolate is None):
        return None
    if o.interpolate is not None:
        return interpolated(plan, o).repeated(max(len(plan.texts), 1)).rolled(o.first or 0)
    edit = from_images(plan, o)
    return edit.repeated(len(plan.texts)) if len(edit) > 1 and len(plan.texts) > 1 else edit


def from_images(plan: Plan, o: Namespace) -> Edit:
    model = plan.model
    if o.upscale is not None:
        return editing.upscale(model, small_images(o.init, model, o.upscale), o.upscale)
    given = given_images(o.init, model.image_shape, o.resize)
    if o.colorize:
        return editing.colorize(model, given)
    if o.invert:
        return inverted(plan, o, given)
    if o.mask is not None:
        height, width, _ = model.image_shape
        masks = given_images(o.mask, (height, width, 1), o.resize)[..., 0] > 0
        if len(masks) not in (1, len(given)):
            raise ValueError(f"--mask must be one, or one for each of the {len(given)} images, got {len(masks)}")
        return editing.inpaint(model, given, np.broadcast_to(masks, given.shape[:3]).astype(np.float32))
    return editing.vary(model, given, STRENGTH if o.strength is None else o.strength)


def inverted(plan: Plan, o: Namespace, given: np.ndarray) -> Edit:
    model = plan.model
    was: dict[str, Any] = {}
    if o.was is not None and isinstance(model.system.condition, Prompts):
        was = {"prompts": [o.was]}
    elif o.was is not None:
        was = {"labels": parsed_labels(o.was, model.classes)}
    options: dict[str, Any] = {
        "steps": plan.steps,
        "grid": plan.grid,
        "sampler": plan.sampler,
        "batch_size": o.batch_size,
    }
    return editing.invert(model, given, **was, **options)


def interpolated(plan: Plan, o: Namespace) -> Edit:
    model, count = plan.model, max(o.per_label or FRAMES, 2)
    if not plan.sampler.follows_ode:
        raise ValueError(f"{plan.sampler} adds noise of its own on the way: interpolate with --sampler ddim or edm")
    if o.init is not None:
        if len(o.init) != 2 or o.interpolate:
            raise ValueError("--interpolate goes between two images: --init A B --interpolate")
        ends = inverted(plan, o, given_images(o.init, model.image_shape, o.resize)).noise
        assert ends is not None
    else:
        seeds = o.interpolate.split(",") if o.interpolate else [str(plan.seed), str(plan.seed + 1)]
        if len(seeds) != 2 or not all(seed.strip().isdecimal() and int(seed) < 2**32 for seed in seeds):
            raise ValueError(f"--interpolate takes two seeds, such as 3,7, got {o.interpolate!r}")
        ends = np.stack([editing.seed_noise(model, int(seed), o.first or 0) for seed in seeds])
    return editing.interpolate(model, ends[0], ends[1], count)


def given_images(paths: Sequence[Path], shape: tuple[int, ...], resize: bool) -> np.ndarray:
    """Image files as floats in [-1, 1], [n, *shape]."""
    height, width, channels = shape
    found = []
    for path in paths:
        image = read_image(path, channels)
        if resize:
            image = images.fit(image, height, width)
        if image.shape[:2] != (height, width):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise ValueError(f"{path} is {size}, the model draws {width}x{height}: --resize fits it")
        found.append(image)
    return np.stack(found).astype(np.float32) / 127.5 - 1


def small_images(paths: Sequence[Path], model: Model, factor: int) -> np.ndarray:
    """For upscaling by a factor: as small as that makes them, or of the model's size and then reduced."""
    height, width, channels = model.image_shape
    if factor < 2 or height % factor or width % factor:
        raise ValueError(f"--upscale must divide {width}x{height}, got {factor}")
    if read_image(paths[0], channels).shape[:2] != (height, width):
        return given_images(paths, (height // factor, width // factor, channels), resize=False)
    full = given_images(paths, model.image_shape, resize=False)
    return full.reshape(len(full), height // factor, factor, width // factor, factor, channels).mean((2, 4))


def read_image(path: Path, channels: int) -> np.ndarray:
    try:
        return images.read(path, channels)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read as an image: {reason}") from None
