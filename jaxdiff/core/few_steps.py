"""What models of one or a few steps are trained on: objectives whose model is a flow map.

As `losses.DenoisingLoss`, each is called with (model, key, x_0, condition, u) and gives the loss of one example. It is
also given, by name, the `step`, `ema` (the model, averaged), a `teacher` (a denoiser), its `trajectories`, the `null`
condition and a guidance `scale`: it names those that it needs, and takes the others as `**_`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxdiff.base.checks import require, whole
from jaxdiff.core.arguments import check_parts
from jaxdiff.core.denoise import Denoiser, NetworkDenoiser
from jaxdiff.core.flow_maps import ConsistencyModel, MeanFlow
from jaxdiff.core.grids import Grid, Karras
from jaxdiff.core.losses import error_of_output, given
from jaxdiff.core.predictions import flow
from jaxdiff.core.process import Flow, Image, Point, Process, Scalar
from jaxdiff.core.rng import KeyArray, normal
from jaxdiff.core.samplers.base import FlowMap, Sampler, walks_ode
from jaxdiff.core.samplers.multistep import DPMpp2M
from jaxdiff.core.samplers.walk import trajectory
from jaxdiff.core.times import LogitNormal, LogNormal, Times
from jaxdiff.nets import machine


class FewSteps:
    """An objective, called as (model, key, x_0, condition, u, **known). `flow_map` says what the network becomes."""

    needs_teacher = False  # whether it starts from another model
    walks: "TrajectoryEnd | None" = None  # which walks of the teacher it is shown
    guides_itself = False  # whether it learns guidance without one
    more_numbers = 0  # that its network is told beside the noise level

    def check(self, model: NetworkDenoiser) -> None:
        """Refuses a model that it cannot train."""

    def flow_map(self, model: NetworkDenoiser) -> FlowMap:
        """The network as samplers take it."""
        return ConsistencyModel(model)

    def __call__(self, *example: Any, **known: Any) -> Scalar:
        """The loss of one example (model, key, x_0, condition, u); of what it takes by name, see above."""
        raise NotImplementedError


# --- consistency models -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConsistencyTuning(FewSteps):
    """|D(x_t, t) - sg D(x_r, r)| / (t - r), both with the same noise and dropout (ECT, Geng et al. 2024).

    In noise levels sigma / alpha, r = max(0, t [1 - q^-(s+1) (1 + k sigmoid(-b t))]), and D(., 0) is x_0 itself. The
    stage s rises by one every `stage_steps` steps up to `stage`, or is `stage` from the start. The distance is
    sqrt(|.|² + c²) - c. With a teacher x_r lies on its ODE, one DDIM step from x_t, in place of on the line to x_0.
    """

    times: Times = LogNormal(-1.1, 2.0)  # t, which are trained on
    q: float = 2.0  # t - r is divided by it at each stage
    k: float = 8.0  # how much larger t - r is at low noise
    b: float = 1.0  # how fast that fades as the noise rises
    stage: int = 7  # the last s
    stage_steps: int | None = None  # of each s below it; None: it begins with the last
    c: float = 0.0  # rounds the distance off near 0

    def __post_init__(self) -> None:
        require(self.q > 1 and self.k >= 0 and self.b >= 0 and self.c >= 0, "q > 1, k >= 0, b >= 0 and c >= 0", self)
        whole("stage", self.stage, 0, 16)  # above, float32 has no number between t and r
        require(self.stage_steps is None or self.stage_steps > 0, "stage_steps > 0 or None", self)

    def __call__(
        self, model: Any, key: KeyArray, x_0: Image, condition: Any, u: Scalar, *, step: Any, teacher: Any, **_: Any
    ) -> Scalar:
        t = _point(model, self.times, u)
        x_t = t.perturb(x_0, normal(key, x_0.shape, x_0.dtype))
        x_0 = x_0 if teacher is None else teacher(x_t, t.t, *given(condition))
        r = self.earlier(t, step)
        x_r = r.perturb(x_0, t.noise(x_t, x_0))
        target = jnp.where(r.sigma > 0, model(x_r, r.t, *given(condition)), x_0)
        gap = model(x_t, t.t, *given(condition)) - lax.stop_gradient(target)
        return _rounded(jnp.sum(gap**2), self.c) / (t.ratio - r.ratio)

    def earlier(self, t: Point, step: Any) -> Point:
        """r, with which t makes a pair."""
        stage = self.stage if self.stage_steps is None else jnp.minimum(step // self.stage_steps, self.stage)
        share = 1 - self.q ** -(stage + 1.0) * (1 + self.k * jax.nn.sigmoid(-self.b * t.ratio))
        time = t.process.time(t.log_snr - 2 * jnp.log(jnp.where(share > 0, share, 1.0)))
        return t.process.at(jnp.where((share > 0) & (time < t.t), time, 0.0))  # noise may begin with more than nothing


class Trajectories(NamedTuple):
    """Walks of a teacher, one a row."""

    x: Array  # [n, steps, ...]: the image at each time of the walk but the last
    end: Array  # [n, ...]
    condition: Any  # [n, ...] of each array, or None
    scale: Array | None  # of guidance


@dataclass(frozen=True)
class TrajectoryEnd(FewSteps):
    """|F - target|, of each number, for the x_0 at which the teacher's own walk ends: CMT's start (Hu et al. 2025).

    F is asked at all times of the walk. `count` walks are made once, before the training, each from noise of its own;
    images are not looked at. c rounds the distance off near 0: sqrt(|.|² + c²) - c.
    """

    needs_teacher = True
    sampler: Sampler = DPMpp2M()  # the teacher's
    grid: Grid = Karras()  # of its walk
    steps: int = 8  # of the walk
    count: int = 2000  # walks that are trained on
    c: float = 0.03  # rounds the distance off near 0

    def __post_init__(self) -> None:
        require(walks_ode(self.sampler), "a sampler of the ODE, such as DPMpp2M()", self.sampler)
        whole("steps", self.steps, 1, 1000)
        whole("count", self.count, 1, 2**24)
        require(self.c >= 0, "c >= 0", self)

    @property
    def walks(self) -> "TrajectoryEnd":  # type: ignore[override]
        return self

    def check(self, model: NetworkDenoiser) -> None:
        times = self.times(model.process)
        check_parts(model, model.process, self.sampler, times)
        there = len(times) == self.steps + 1 and float(times[-1]) == 0
        require(there, f"a grid of {self.steps} steps down to t = 0, such as Karras()", self.grid)

    def times(self, process: Process) -> Array:
        with jax.ensure_compile_time_eval():
            return self.grid(process, self.steps)

    def walk(self, teacher: Denoiser, process: Process, noise: Image, condition: Any) -> tuple[Image, Image]:
        """One trajectory and its end."""
        denoise, times = (lambda x, t: teacher(x, t, *given(condition))), self.times(process)
        x = process.sigma(times[0]) * noise
        return trajectory(denoise, process, self.sampler, times, jax.random.key(0), x)

    def __call__(
        self, model: Any, key: KeyArray, x_0: Image, condition: Any, u: Scalar, *, trajectories: Trajectories, **_: Any
    ) -> Scalar:
        row = jax.random.randint(key, (), 0, len(trajectories.end))
        step = self.steps - 1 - jnp.floor(u * self.steps).astype(int)  # for u near 0 little noise
        _, end, condition, scale = jax.tree.map(lambda leaf: leaf[row], trajectories)
        model = model if scale is None else model.replace(told=(scale,))
        t, x_t = model.process.at(self.times(model.process)[step]), trajectories.x[row, step]
        return jnp.mean(_rounded(error_of_output(model, t, x_t, end, condition), self.c))


@dataclass(frozen=True)
class WarmStart(FewSteps):
    """One objective for the first `steps` steps, then another."""

    first: FewSteps = TrajectoryEnd()  # the objective at first
    steps: int = 100  # of that one
    then: FewSteps = ConsistencyTuning()  # the one after it

    def __post_init__(self) -> None:
        kinds = all(type(each).flow_map is FewSteps.flow_map for each in (self.first, self.then))
        require(kinds, "two objectives of consistency models, such as TrajectoryEnd() and ConsistencyTuning()", self)
        walks = {each.walks for each in (self.first, self.then)} - {None}
        require(len(walks) < 2, "one kind of walks, as those of the first are made", self)
        whole("steps", self.steps, 1, 2**31)

    def check(self, model: NetworkDenoiser) -> None:
        self.first.check(model)
        self.then.check(model)

    @property
    def needs_teacher(self) -> bool:  # type: ignore[override]
        return self.first.needs_teacher or self.then.needs_teacher

    @property
    def walks(self) -> TrajectoryEnd | None:  # type: ignore[override]
        return self.first.walks or self.then.walks

    def __call__(self, *example: Any, step: Any, **known: Any) -> Scalar:
        def loss(objective: FewSteps, begun: int) -> Any:
            return lambda: objective(*example, step=step - begun, **known)

        return lax.cond(step < self.steps, loss(self.first, 0), loss(self.then, self.steps))


def _point(model: NetworkDenoiser, times: Times, u: Scalar) -> Point:
    """That of a time to train on, where the noise level is finite."""
    process = model.process
    return process.at(jnp.minimum(times(process, u), min(model.t_max, process.t_max)))


def _rounded(square: Array, c: float) -> Array:
    """The root, for c > 0 rounded off near 0 (pseudo-Huber)."""
    return jnp.sqrt(jnp.maximum(square + c**2, 1e-20)) - c  # not of 0, where it has no gradient


# --- mean velocities --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanFlowLoss(FewSteps):
    """|delta|² / sg[(|delta|² + c)^p], delta = u - sg[v - (t - r) du], v = eps - x_0 (Geng et al. 2025).

    (u, du) = jvp(u; (x_t, t, r); (v, 1, 0)), on `Flow`: so the network comes to be the mean velocity from t to r. For
    the share `instant` of the examples r = t. |.|² is a sum over the image, and c by default 0.01, where the paper has
    1e-3. The loss has that gradient, and a value to look at: log(1 + |delta|² / c) where p = 1. With `own_tangent` the
    tangent of x_t is the network's own v, u(x_t, t, t), in place of one example's. With a guidance scale w, v is
    w v + (1 - w) u(x_t, t, t | null).
    """

    guides_itself = True
    more_numbers = 1  # the length of the jump
    times: Times = LogitNormal(-0.4, 1.0)  # of which t is the later of two, r the earlier
    instant: float = 0.75  # the share of examples with r = t
    p: float = 1.0  # 1 for the adapted loss, 0 for the plain square
    c: float = 0.01  # keeps the quotient finite where delta is 0
    own_tangent: bool = False  # the network's own v is the tangent of x_t

    def __post_init__(self) -> None:
        require(0 <= self.instant <= 1 and self.p >= 0 and self.c > 0, "0 <= instant <= 1, p >= 0 and c > 0", self)

    def check(self, model: NetworkDenoiser) -> None:
        fits = isinstance(model.process, Flow) and model.prediction is flow
        require(fits, "process=Flow() and prediction=predictions.flow under a MeanFlowLoss", model.process)
        with jax.ensure_compile_time_eval():
            there = bool(jnp.isfinite(model.c_noise(model.process, jnp.zeros(()))))
        require(there, "a c_noise that is finite at t = 0, such as c_noise.time, under a MeanFlowLoss", model.c_noise)

    def flow_map(self, model: NetworkDenoiser) -> FlowMap:
        return MeanFlow(model)

    def __call__(
        self, model: Any, key: KeyArray, x_0: Image, condition: Any, u: Scalar, *, null: Any, scale: Any, **_: Any
    ) -> Scalar:
        for_noise, for_time, for_coin = jax.random.split(key, 3)
        one, other = (self.times(model.process, q) for q in (u, jax.random.uniform(for_time)))
        t, r = jnp.maximum(one, other), jnp.minimum(one, other)
        r = jnp.where(jax.random.bernoulli(for_coin, self.instant), t, r)
        eps, velocity = normal(for_noise, x_0.shape, x_0.dtype), MeanFlow(model).velocity
        x_t, v = model.process.perturb(x_0, eps, t), eps - x_0
        if scale is not None:
            v = scale * v + (1 - scale) * lax.stop_gradient(velocity(x_t, t, t, null))
        tangent = lax.stop_gradient(velocity(x_t, t, t, *given(condition))) if self.own_tangent else v
        with machine.differentiable():
            u, du = jax.jvp(
                lambda x_t, t, r: velocity(x_t, t, r, *given(condition)),
                (x_t, t, r),
                (tangent, jnp.ones_like(t), jnp.zeros_like(r)),
            )
        return self.adapted(jnp.sum((u - lax.stop_gradient(v - (t - r) * du)) ** 2))

    def adapted(self, square: Scalar) -> Scalar:
        """What has the gradient of square / sg[(square + c)^p], and is 0 at 0."""
        if self.p == 1:
            return jnp.log1p(square / self.c)
        return ((square + self.c) ** (1 - self.p) - self.c ** (1 - self.p)) / (1 - self.p)
