"""What can be seen of the options to be wrong without a model, and is said before one is loaded."""

from argparse import Namespace

from jaxdiff.cli.given import read_image, seeds_of
from jaxdiff.cli.how import grid_of, sampler_of, steps_of
from jaxdiff.cli.options import fields_of
from jaxdiff.core import grids, samplers
from jaxdiff.core.samplers.base import walks_ode


def check(o: Namespace) -> None:
    """Refuses options whose values are wrong, or contradict each other, whatever the model."""
    _check_sampling(o)
    _check_guidance(o)
    if o.strength == 0:
        raise ValueError("--strength must be above 0 and at most 1, got 0")
    if o.upscale == 1:
        raise ValueError("--upscale must be at least 2, got 1")
    if o.outpaint is not None:
        sides_of(o)
    if o.interpolate is not None and o.init is None:
        seeds_of(o)
    if o.interpolate is not None and o.init is not None and (len(o.init) != 2 or o.interpolate):
        raise ValueError("--interpolate goes between two images: --init A B --interpolate")
    if o.mask is not None and len(o.mask) not in (1, len(o.init)) and len(o.init) > 1:
        raise ValueError(f"--mask must be one, or one for each of the {len(o.init)} images, got {len(o.mask)}")
    if (o.first or 0) + (o.num or 0) > 2**32:
        raise ValueError(f"images are numbered below 2^32, got {o.num} from --first {o.first} on")
    for path in (*(o.init or ()), *(o.mask or ())):
        read_image(path, 3)


def _check_sampling(o: Namespace) -> None:
    """The sampler and the grid that are named, which need not be known to the model."""
    sampler = None if o.sampler is None else sampler_of(o, samplers.DDPM())
    if o.grid is not None:
        grid_of(o, grids.Uniform())
    if sampler is None:
        return
    if o.grid is not None or not fields_of(o, "grid"):
        steps_of(o, grids.Uniform(), sampler)
    if o.interpolate is not None and not (sampler.follows_ode or sampler.jumps):
        raise ValueError(f"{sampler} adds noise of its own on the way: interpolate with --sampler ddim or edm")
    if o.invert and not walks_ode(sampler):
        raise ValueError(f"{sampler} does not follow the ODE: invert with --sampler ddim or edm")


def _check_guidance(o: Namespace) -> None:
    if (o.guidance_rescale or o.guidance_interval) and o.guidance_scale == 1 and o.classifier is None:
        raise ValueError("at a scale of 1 there is no guidance to rescale or to leave out: add --guidance_scale 3")
    low, high = o.guidance_interval or (0.0, 1.0)
    if not low < high:
        raise ValueError(f"--guidance_interval needs low < high, got {low:g} {high:g}")


def sides_of(o: Namespace) -> tuple[int, ...]:
    """Pixels to paint to the left, top, right and bottom."""
    sides = o.outpaint.split(",")
    legal = len(sides) == 4 and all(side.strip().isdecimal() and int(side) < 2**12 for side in sides)
    if not legal or not any(map(int, sides)):
        what = "pixels to the left, top, right and bottom, such as 0,0,28,0"
        raise ValueError(f"--outpaint takes {what}: got {o.outpaint!r}")
    return tuple(map(int, sides))
