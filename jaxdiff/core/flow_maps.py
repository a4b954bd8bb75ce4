"""Flow maps, (x_t, t, r, *condition) -> x_r: where the probability-flow ODE through x_t is at the time r <= t.

A denoiser gives one by walking; a model of few steps is one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxdiff.base.checks import require
from jaxdiff.core.denoise import Denoiser, NetworkDenoiser
from jaxdiff.core.process import Image, Process, Scalar
from jaxdiff.core.samplers.base import FlowMap, Sampler, walks_ode
from jaxdiff.core.samplers.ode import AdaptiveODE
from jaxdiff.core.samplers.walk import walk


@struct.dataclass
class Walked(FlowMap):
    """That of a denoiser, by even steps of a sampler that follows the ODE; by default solved to a tolerance."""

    denoise: Denoiser  # whose ODE is walked
    process: Process = struct.field(pytree_node=False)  # on which it was trained
    sampler: Sampler = struct.field(pytree_node=False, default=AdaptiveODE())  # of the ODE
    steps: int = struct.field(pytree_node=False, default=1)  # even ones in t

    def __post_init__(self) -> None:
        require(walks_ode(self.sampler), "a sampler of the ODE, such as DPMpp2S()", self.sampler)

    def __call__(self, x_t: Image, t: Scalar, r: Scalar, *condition: Any) -> Image:
        times = (t + (r - t) * jnp.linspace(0, 1, self.steps + 1)).at[-1].set(r)
        parts = lambda x, t: self.denoise(x, t, *condition), self.process, self.sampler, times, jax.random.key(0)
        return self.sampler.image(walk(*parts, self.sampler.init(x_t, self.process.at(t))))


@struct.dataclass
class ConsistencyModel(FlowMap):
    """A flow map to r = 0 alone: (x_t, t) -> x_0, in the form of a denoiser (Song et al. 2023a)."""

    only_to_data = True
    end: Denoiser  # (x_t, t, *condition) -> x_0, where the ODE ends

    def __call__(self, x_t: Image, t: Scalar, r: Scalar, *condition: Any) -> Image:
        return self.end(x_t, t, *condition)


@struct.dataclass
class MeanFlow(FlowMap):
    """x_r = x_t - (t - r) u(x_t, t, r): the network's output is the mean velocity on the way (Geng et al. 2025)."""

    network: NetworkDenoiser  # whose output is u

    def __call__(self, x_t: Image, t: Scalar, r: Scalar, *condition: Any) -> Image:
        return x_t - (t - r) * self.velocity(x_t, t, r, *condition)

    def velocity(self, x_t: Image, t: Scalar, r: Scalar, *condition: Any) -> Image:
        """u; the network is told the length of the jump beside the noise level."""
        return self.network.told_also(self.network.c_noise(self.network.process, t - r)).output(x_t, t, *condition)


@struct.dataclass
class End:
    """Where a flow map arrives at t = 0, in the form of a denoiser."""

    flow_map: FlowMap  # which is asked for r = 0

    def __call__(self, x_t: Image, t: Scalar, *condition: Any) -> Image:
        return self.flow_map(x_t, t, jnp.zeros_like(t), *condition)
