"""From the options of sample.py to a plan: which model, what it is told, how it is walked, what it begins from."""

import contextlib
import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff import editing, grids, images, samplers, sampling
from jaxdiff.conditions import Labels, Prompts
from jaxdiff.experiment import read_config
from jaxdiff.grids import Grid
from jaxdiff.model import Classifier, Edit, Model, load, load_classifier, load_diffusers
from jaxdiff.options import GRIDS, PARAMETERS, SAMPLERS
from jaxdiff.samplers import Sampler
from jaxdiff.systems import Diffusion

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
    """Refuses what cannot be, before anything is written."""
    model = chosen(o)
    classifier = None if o.classifier is None else load_classifier(o.classifier)
    labels, prompts, scale = told_of(o, model, classifier)
    told, texts = (None, []) if scale == 0 and unsaid(o) else model.choices(labels, prompts, classifier)
    guidance = guidance_of(o, model, scale, bool(texts))
    denoiser = model.denoiser(classifier=classifier, **guidance)
    sampler = sampler_of(o, model.system.sampler)
    steps, grid = steps_of(o, model.system.grid, sampler)
    plan = Plan(model, classifier, sampler, grid, steps, guidance, labels, prompts, told, texts, o.seed or 0)
    plan = dataclasses.replace(plan, edit=edit_of(plan, o))
    sampling.check_parts(denoiser, model.system.process, sampler, plan.times)
    return plan


def told_of(o: Namespace, model: Model, classifier: Classifier | None) -> tuple[Any, Any, float | None]:
    """Labels, prompts and the guidance scale, where they are said."""
    if unsaid(o) and model.system.condition is not None:  # down as the two were walked up: as what they are, or nothing
        was = known_of(o, model)
        return was.get("labels"), was.get("prompts"), 1.0 if was else 0.0
    labels = None if o.labels is None else parsed_labels(o.labels, model.knows(classifier)[1])
    return labels, o.prompt, o.guidance_scale


def unsaid(o: Namespace) -> bool:
    """Whether two images are interpolated, and nothing is said of what is between."""
    return o.interpolate is not None and o.init is not None and o.labels is o.prompt is o.guidance_scale is None


def guidance_of(o: Namespace, model: Model, scale: float | None, told: bool) -> dict[str, Any]:
    if o.guidance_rescale or o.guidance_interval:
        if not told:
            what = "is told nothing that could guide it"
            raise ValueError(f"{model.name} {what}: leave out --guidance_..., or add --classifier")
        if (model.system.guidance_scale if scale is None else scale) == 1:
            raise ValueError("at a scale of 1 there is no guidance to rescale or to leave out: add --guidance_scale 3")
    return {
        "guidance_scale": scale,
        "rescale": o.guidance_rescale or 0.0,
        "interval": None if o.guidance_interval is None else tuple(o.guidance_interval),
        "threshold": o.threshold,
    }


def steps_of(o: Namespace, default: Grid, sampler: Sampler) -> tuple[int | None, Grid | None]:
    """How many, and on which grid, where that is said."""
    grid = grid_of(o, default)
    if isinstance(getattr(sampler, "sampler", None), samplers.AdaptiveODE):
        raise ValueError("--resample takes each step again, and adaptive_ode has but one: take another --sampler")
    if not isinstance(sampler, samplers.AdaptiveODE):
        return o.steps, grid
    if o.steps not in (None, 1):
        raise ValueError(f"adaptive_ode finds its own steps: leave out --steps {o.steps}, set --tolerance")
    return 1, grids.Uniform() if grid is None else grid


def chosen(o: Namespace) -> Model:
    if o.from_diffusers is not None:
        return load_diffusers(o.from_diffusers)
    return load(o.workdir, o.checkpoint, average_of(o.average))


def newest(runs: Path) -> Path:
    """The run that draws whose checkpoints changed last."""
    found = [path for path in runs.glob("*/checkpoints") if any(path.glob("[0-9]*")) and draws(path.parent)]
    if not found:
        raise ValueError(f"there is no run in {runs} that draws: python train.py --config configs/digits.py makes one")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def draws(run: Path) -> bool:
    """Whether it trained a diffusion model, and not a classifier or an autoencoder."""
    try:
        return isinstance(read_config(run).system, Diffusion)
    except (ValueError, OSError):
        return False


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


def grid_of(o: Namespace, default: Grid) -> Grid | None:
    grid = None if o.grid is None else getattr(grids, GRIDS[o.grid])()
    if o.rho is None:
        return grid
    chosen = default if grid is None else grid
    if not isinstance(chosen, grids.Karras):
        raise ValueError(f"--rho does not apply to {chosen}: it belongs to --grid karras")
    return dataclasses.replace(chosen, rho=o.rho)


def parsed_labels(text: str, names: Sequence[str], flag: str = "--labels") -> list[int | str]:
    """ "3", "0-9" or "cat,ship" as labels."""
    if text in names:  # which may have commas in it
        return [text]
    found: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        first, _, last = part.partition("-")
        if part not in names and first.isdecimal() and last.isdecimal():
            if not 0 <= int(last) - int(first) < 2**16:
                raise ValueError(f"{flag} must be such as 3, 0-9 or cat,ship, got {part!r}")
            found.extend(range(int(first), int(last) + 1))
        else:
            found.append(int(part) if part.isdecimal() and part not in names else part)
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
        if min(len(masks), len(given)) > 1 and len(masks) != len(given):
            raise ValueError(f"--mask must be one, or one for each of the {len(given)} images, got {len(masks)}")
        return editing.inpaint(model, given, masks)
    return editing.vary(model, given, STRENGTH if o.strength is None else o.strength)


def inverted(plan: Plan, o: Namespace, given: np.ndarray) -> Edit:
    walk: dict[str, Any] = {"steps": plan.steps, "grid": plan.grid, "sampler": plan.sampler}
    return editing.invert(plan.model, given, **known_of(o, plan.model), **walk, batch_size=o.batch_size)


def known_of(o: Namespace, model: Model) -> dict[str, Any]:
    """The labels or prompts of the given images, if they are said."""
    if o.was is None:
        return {}
    if isinstance(model.system.condition, Prompts):
        return {"prompts": [o.was]}
    if isinstance(model.system.condition, Labels):
        return {"labels": parsed_labels(o.was, model.classes, "--was")}
    raise ValueError(f"{model.name} was told nothing of its images: leave out --was")


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
        if o.interpolate and o.seed is not None:
            raise ValueError(f"--interpolate {o.interpolate} names its seeds: leave out --seed")
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
