"""Samplers over flow maps, for models of one or a few steps."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxdiff.core.process import Image, Point
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.core.samplers.base import Sampler


@dataclass(frozen=True)
class Jump(Sampler):
    """One jump of the flow map a step; a single one goes from noise to data."""

    jumps = True
    follows_ode = True

    def step(self, flow_map: Callable[..., Image], key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        return flow_map(x, t.t, s.t)


@dataclass(frozen=True)
class Consistency(Sampler):
    """Each step jumps to clean data, to which new noise is added for the next step (Song et al. 2023a)."""

    jumps = True
    only_to_data = True

    def step(self, flow_map: Callable[..., Image], key: KeyArray, x: Image, t: Point, s: Point) -> Image:
        return s.perturb(flow_map(x, t.t, 0.0 * s.t), normal(key, x.shape, x.dtype))
