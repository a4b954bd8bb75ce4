"""The sampler, the grid and the guidance that the options of sample.py ask for."""

import dataclasses
from argparse import Namespace
from types import ModuleType
from typing import Any

from jaxdiff.base.annotations import fields_of, is_object
from jaxdiff.base.calls import choices_of, construct
from jaxdiff.base.overrides import override
from jaxdiff.cli import catalogue, options
from jaxdiff.core import grids, samplers
from jaxdiff.core.grids import Grid
from jaxdiff.core.samplers import Sampler
from jaxdiff.models.model import Model


def named(text: str | None, beside: ModuleType, flag: str) -> Any:
    """What --sampler or --grid names, if it is given."""
    classes = {name: value for name, value in choices_of(beside).items() if isinstance(value, type)}
    return None if text is None else construct(text, classes, flag)


def sampler_of(o: Namespace, default: Sampler) -> Sampler:
    chosen = named(o.sampler, samplers, "--sampler")
    sampler = default if chosen is None else chosen
    if not isinstance(sampler, Sampler):
        raise ValueError(f"--sampler {o.sampler} is no sampler: make it a subclass of jaxdiff.core.samplers.Sampler")
    for name, text in options.fields_of(o, "sampler").items():
        sampler = with_field(sampler, name, text, "sampler", catalogue.SAMPLERS)
    for name in ("s_min", "s_max", "s_noise"):
        if name in options.fields_of(o, "sampler") and not getattr(sampler, "churn", 0.0):
            raise ValueError(f"--{name} says how {sampler} churns, which it does not: add --churn")
    return samplers.Resampling(sampler, o.resample) if (o.resample or 1) > 1 else sampler


def grid_of(o: Namespace, default: Grid) -> Grid | None:
    """The grid, where it is not the model's own."""
    grid, fields = named(o.grid, grids, "--grid"), options.fields_of(o, "grid")
    if grid is None and not fields:
        return None
    grid = default if grid is None else grid
    for name, text in fields.items():
        grid = with_field(grid, name, text, "grid", catalogue.GRIDS)
    return grid


def with_field(value: Any, name: str, text: str, kind: str, files: Any) -> Any:
    """A sampler or grid with one field set: its own, or that of a sampler within it."""
    parts = fields_of(type(value)) if is_object(value) else {}
    if name in parts:
        try:
            return override(value, f"{name}={text}")
        except ValueError as error:
            raise ValueError(f"--{error}") from None
    for part in parts:
        inner = getattr(value, part)
        if isinstance(inner, Sampler) and name in fields_of(type(inner)):
            return dataclasses.replace(value, **{part: with_field(inner, name, text, kind, files)})
    raise ValueError(f"--{name} does not apply to {value}: it belongs to --{kind} {catalogue.owners(files, name)}")


def steps_of(o: Namespace, default: Grid, sampler: Sampler) -> tuple[int | None, Grid | None]:
    """How many, and on which grid, where that is given."""
    grid = grid_of(o, default)
    if isinstance(getattr(sampler, "sampler", None), samplers.AdaptiveODE):
        raise ValueError("--resample takes each step again, and AdaptiveODE has but one: take another --sampler")
    if not isinstance(sampler, samplers.AdaptiveODE):
        return o.steps, grid
    if o.steps not in (None, 1):
        raise ValueError(f"AdaptiveODE finds its own steps: leave out --steps {o.steps}, set --rtol and --atol")
    return 1, grids.Uniform() if grid is None and o.sampler is not None else grid


def guidance_of(o: Namespace, model: Model, scale: float | None, conditional: bool) -> dict[str, Any]:
    if o.guidance_rescale or o.guidance_interval:
        if not conditional:
            raise ValueError(
                f"{model.name} has no condition to guide by: leave out --guidance_..., or add --classifier"
            )
        if model.system.scale_of(scale) == 1 and not (o.classifier is not None and model.system.condition is None):
            raise ValueError("at a scale of 1 there is no guidance to rescale or to leave out: add --guidance_scale 3")
    return {
        "guidance_scale": scale,
        "rescale": o.guidance_rescale or 0.0,
        "interval": None if o.guidance_interval is None else tuple(o.guidance_interval),
        "threshold": o.threshold,
    }
