"""Do the samplers solve what they say they solve? Measured orders and moments, on a Gaussian whose solution is known.

    python benchmarks/solver_order.py

The data are N(0.3, 0.5²), the denoiser is exact. Deterministic samplers run from the process's noisiest time to its
least noisy one in float64; the order is the slope of log error over log step. Stochastic ones draw 20,000 samples.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.core import grids, samplers
from jaxdiff.core.exact import Mixture
from jaxdiff.core.process import VE, VP, Cosine, Flow, LinearVE, PowerVE, Process, SubVP, Time
from jaxdiff.core.rng import image_key, normal
from jaxdiff.core.sampling import walk
from jaxdiff.core.tables import CosineBetas, Discrete

MEAN, DEVIATION = 0.3, 0.5
GAUSSIAN = Mixture((MEAN,), DEVIATION)

PROCESSES: tuple[Process, ...] = (
    Discrete(),
    Discrete(CosineBetas()),
    VP(),
    SubVP(),
    Cosine(),
    Flow(),
    VE(),
    PowerVE(),
    LinearVE(),
)
PUBLISHED_ORDER: dict[samplers.Sampler, int] = {
    samplers.DDIM(): 1,
    samplers.Euler(): 1,
    samplers.Heun(): 2,
    samplers.EDM(): 2,
    samplers.DPMpp2S(): 2,
    samplers.DPMpp2M(): 2,
    samplers.UniPC(1): 2,
    samplers.UniPC(2): 3,
    samplers.UniPC(3): 4,
}
STOCHASTIC: tuple[samplers.Sampler, ...] = (
    samplers.DDPM(),
    samplers.DDPM(variance=1.0),
    samplers.DDIM(eta=0.5),
    samplers.EDM(churn=40.0),
    samplers.DPMpp2M(eta=1.0),
    samplers.EulerMaruyama(),
    samplers.ReverseDiffusion(),
    samplers.PredictorCorrector(),
)


@contextlib.contextmanager
def double_precision(on: bool = True) -> Iterator[None]:
    """JAX's own context manager has another name in each of its versions."""
    before = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    jax.config.update("jax_enable_x64", on)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def marginal(process: Process, t: Time) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation of x_t."""
    return process.alpha(t) * MEAN, jnp.hypot(process.alpha(t) * DEVIATION, process.sigma(t))


def exact_path(process: Process, x: jax.Array, t: Time, s: Time) -> jax.Array:
    """Where the probability-flow ODE takes x from t to s: the standardised value never changes."""
    (mean_t, deviation_t), (mean_s, deviation_s) = marginal(process, t), marginal(process, s)
    return mean_s + deviation_s / deviation_t * (x - mean_t)


def errors(sampler: samplers.Sampler, process: Process, steps: Sequence[int], grid: grids.Grid) -> list[float]:
    """The largest error of several paths, for each number of steps, in float64; one program for all of them."""
    with double_precision():
        denoise = partial(GAUSSIAN.denoise, process)

        @jax.jit
        def largest_error(times: jax.Array, count: int) -> jax.Array:
            mean, deviation = marginal(process, times[0])
            x = mean + deviation * jnp.linspace(-2.0, 2.0, 5)
            carry = walk(
                denoise, process, sampler, times, jax.random.key(0), sampler.init(x, process.at(times[0])), stop=count
            )
            return jnp.abs(sampler.image(carry) - exact_path(process, x, times[0], times[count])).max()

        padded = [jnp.pad(grid(process, n), (0, max(steps) - n), mode="edge") for n in steps]
        return [float(largest_error(times, n)) for times, n in zip(padded, steps, strict=True)]


def order(sampler: samplers.Sampler, process: Process, steps: Sequence[int] = (256, 512, 1024)) -> float:
    """The slope of log error against log step, by least squares."""
    measured = errors(sampler, process, steps, grids.LogSNR(to_data=False))
    return -float(np.polyfit(np.log(steps), np.log(measured), 1)[0])


def moments(sampler: samplers.Sampler, process: Process, steps: int = 1000, count: int = 20_000) -> tuple[float, float]:
    """Mean and deviation of samples at the end of the grid, started from the exact marginal."""
    times = grids.LogSNR(to_data=False)(process, steps)
    denoise = partial(GAUSSIAN.denoise, process)

    @jax.jit
    @jax.vmap
    def one(index: jax.Array) -> jax.Array:
        key = image_key(0, index)
        x_0, eps = normal(jax.random.fold_in(key, 0), (2,))
        x = process.perturb(MEAN + DEVIATION * x_0, eps, times[0])
        return sampler.image(walk(denoise, process, sampler, times, key, sampler.init(x, process.at(times[0]))))

    x = np.asarray(one(jnp.arange(count)), np.float64)
    return float(x.mean()), float(x.std())


def label(value: object) -> str:
    """The call that makes a value, without what is default."""
    if not dataclasses.is_dataclass(value):
        return str(value)
    given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    changed = [f"{name}={label(now)}" for name, now in given.items() if now != getattr(type(value), name)]
    return f"{type(value).__name__}({', '.join(changed)})"


def main() -> None:
    names = [f"`{label(process).removesuffix('()')}`" for process in PROCESSES]
    print("| order of convergence | published | " + " | ".join(names) + " |")
    print("|" + " --- |" * (len(names) + 2))
    for sampler, published in PUBLISHED_ORDER.items():
        row = [f"{order(sampler, process):.2f}" for process in PROCESSES]
        print(f"| `{label(sampler)}` | {published} | " + " | ".join(row) + " |", flush=True)
    print()
    print("| mean, deviation | exact | " + " | ".join(names) + " |")
    print("|" + " --- |" * (len(names) + 2))
    for sampler in STOCHASTIC:
        row = ["{:.3f} {:.3f}".format(*moments(sampler, process)) for process in PROCESSES]
        print(f"| `{label(sampler)}` | {MEAN:.3f} {DEVIATION:.3f} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
