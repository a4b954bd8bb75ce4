"""Images that the options of sample.py name, and what is made of them."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.base.checks import check
from jaxdiff.core.grids import Grid
from jaxdiff.core.samplers import Sampler
from jaxdiff.data import images
from jaxdiff.data.augment import plain
from jaxdiff.models import editing
from jaxdiff.models.conditions import Labels, Prompts
from jaxdiff.models.edit import Edit
from jaxdiff.models.model import Model

STRENGTH, FRAMES = 0.6, 10  # of variations; between two ends


class Inputs(NamedTuple):
    """What editing needs of a plan."""

    model: Model
    sampler: Sampler
    grid: Grid | None
    steps: int | None
    texts: list[str]
    seed: int


def edit_of(plan: Inputs, o: Namespace) -> Edit | None:
    """What the images are made from; each of the given images in succession for all labels or prompts."""
    if o.outpaint is not None or (o.init is None and o.interpolate is None):
        return None
    if o.interpolate is not None:
        return interpolated(plan, o).repeated(max(len(plan.texts), 1)).rolled(o.first or 0)
    edit = from_images(plan, o)
    return edit.repeated(len(plan.texts)) if len(edit) > 1 and len(plan.texts) > 1 else edit


def from_images(plan: Inputs, o: Namespace) -> Edit:
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
        return editing.inpaint(model, given, masks)
    return editing.vary(model, given, STRENGTH if o.strength is None else o.strength)


def inverted(plan: Inputs, o: Namespace, given: np.ndarray) -> Edit:
    walk: dict[str, Any] = {"steps": plan.steps, "grid": plan.grid, "sampler": plan.sampler}
    return editing.invert(plan.model, given, **known_of(o, plan.model), **walk, batch_size=o.batch_size)


def known_of(o: Namespace, model: Model) -> dict[str, Any]:
    """The labels or prompts of the given images, if they are said."""
    if o.was is None:
        return {}
    if isinstance(model.system.condition, Prompts) and o.labels is None:
        return {"prompts": [o.was]}
    if isinstance(model.system.condition, Labels | Prompts):
        return {"labels": parsed_labels(o.was, model.classes, "--was")}
    raise ValueError(f"{model.name} has no condition: leave out --was")


def interpolated(plan: Inputs, o: Namespace) -> Edit:
    model, count = plan.model, max(o.per_label or FRAMES, 2)
    steps = len(model.times(plan.steps, plan.grid)) - 1
    if not (plan.sampler.follows_ode or (plan.sampler.jumps and steps == 1)):
        how = "--steps 1" if plan.sampler.jumps else "--sampler ddim or edm"
        raise ValueError(f"{plan.sampler} adds noise of its own on the way: interpolate with {how}")
    if o.init is not None:
        ends = inverted(plan, o, given_images(o.init, model.image_shape, o.resize)).noise
        assert ends is not None
    else:
        ends = np.stack([editing.seed_noise(model, seed, o.first or 0) for seed in seeds_of(o)])
    return editing.interpolate(model, ends[0], ends[1], count)


def seeds_of(o: Namespace) -> tuple[int, int]:
    """Between which images are interpolated."""
    if o.interpolate and o.seed is not None:
        raise ValueError(f"--interpolate {o.interpolate} names its seeds: leave out --seed")
    seeds = o.interpolate.split(",") if o.interpolate else [str(o.seed or 0), str((o.seed or 0) + 1)]
    if len(seeds) != 2 or not all(seed.strip().isdecimal() and int(seed) < 2**32 for seed in seeds):
        raise ValueError(f"--interpolate takes two seeds, such as 3,7, got {o.interpolate!r}")
    return int(seeds[0]), int(seeds[1])


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
    return np.asarray(plain(np.stack(found)))


def small_images(paths: Sequence[Path], model: Model, factor: int) -> np.ndarray:
    """For upscaling by a factor: as small as that makes them, or of the model's size and then reduced."""
    height, width, channels = model.image_shape
    if factor < 2 or height % factor or width % factor:
        raise ValueError(f"--upscale must divide {width}x{height}, got {factor}")
    small, found = (height // factor, width // factor, channels), []
    sizes = f"images of {width}x{height}, which are reduced first, or of {small[1]}x{small[0]}"
    for path in paths:
        image = np.asarray(plain(read_image(path, channels)))
        size = f"{image.shape[1]}x{image.shape[0]}"
        if image.shape[:2] == (height, width):
            image = image.reshape(small[0], factor, small[1], factor, channels).mean((1, 3))
        check(image.shape == small, f"{path} is {size}: --upscale {factor} takes {sizes}")
        found.append(image)
    return np.stack(found)


def read_image(path: Path, channels: int) -> np.ndarray:
    try:
        return images.read(path, channels)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read as an image: {reason}") from None


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
            each = range(int(first), int(last) + 1)
            found.extend(map(str, each) if all(str(label) in names for label in each) else each)
        else:
            found.append(int(part) if part.isdecimal() and part not in names else part)
    return found
