"""What a sampler itself costs: microseconds a step, with a model that costs nothing, beside diffusers and k-diffusion.

    pip install diffusers k-diffusion torch
    python benchmarks/sampler_overhead.py

The model is x -> 0.1 x, the images 16 of 32x32x3, float32 on the CPU. The three take turns, `--rounds` times; the
table shows the median of each. A peer that is not installed is left out.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import jax
import numpy as np

from jaxdiff.core import grids, samplers
from jaxdiff.core.sampling import sample
from jaxdiff.core.tables import Discrete

BATCH, SHAPE = 16, (32, 32, 3)
Run = Callable[[], object]
Cases = dict[str, tuple[int, Run]]  # name -> number of steps, the whole loop


def ours() -> Cases:
    process = Discrete()
    cases = {
        "ancestral, 1000 steps": (samplers.DDPM(), grids.Leading()(process, 1000)),
        "DPM-Solver++(2M), 50 steps": (samplers.DPMpp2M(), grids.Linspace()(process, 50)),
    }
    devices = jax.devices("cpu")[:1]

    def model(x: jax.Array, t: jax.Array) -> jax.Array:
        return 0.1 * x

    def run(sampler: samplers.Sampler, times: jax.Array) -> Run:
        return lambda: sample(model, process, sampler, times, shape=SHAPE, indices=BATCH, devices=devices)

    return {name: (len(times) - 1, run(sampler, times)) for name, (sampler, times) in cases.items()}


def diffusers() -> Cases:
    import torch
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    def run(scheduler: object, steps: int) -> Run:
        @torch.no_grad()
        def loop() -> object:
            scheduler.set_timesteps(steps)  # type: ignore[attr-defined]
            x = torch.randn(BATCH, 3, 32, 32)
            for t in scheduler.timesteps:  # type: ignore[attr-defined]
                x = scheduler.step(0.1 * x, t, x).prev_sample  # type: ignore[attr-defined]
            return x

        return loop

    return {
        "ancestral, 1000 steps": (1000, run(DDPMScheduler(clip_sample=False), 1000)),
        "DPM-Solver++(2M), 50 steps": (50, run(DPMSolverMultistepScheduler(), 50)),
    }


def k_diffusion() -> Cases:
    import torch
    from k_diffusion import sampling

    def run(sampler: Callable[..., object], steps: int) -> Run:
        @torch.no_grad()
        def loop() -> object:
            sigmas = sampling.get_sigmas_karras(steps, 0.01, 80)
            x = torch.randn(BATCH, 3, 32, 32) * 80
            return sampler(lambda x, sigma: 0.1 * x, x, sigmas, disable=True)

        return loop

    return {
        "ancestral, 1000 steps": (1000, run(sampling.sample_euler_ancestral, 1000)),
        "DPM-Solver++(2M), 50 steps": (50, run(sampling.sample_dpmpp_2m, 50)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")

    peers: dict[str, Cases] = {}
    for name, prepare in {"jaxdiff": ours, "diffusers": diffusers, "k-diffusion": k_diffusion}.items():
        try:
            peers[name] = prepare()
        except ImportError as error:
            print(f"{name} is left out: {error}")

    print(f"| µs a step | {' | '.join(peers)} | jaxdiff / diffusers |\n|{' --- |' * (len(peers) + 2)}")
    for case in peers["jaxdiff"]:
        medians = measure({name: cases[case] for name, cases in peers.items()}, rounds)
        ratio = f"{medians['jaxdiff'] / medians['diffusers']:.2f}" if "diffusers" in medians else ""
        print(f"| {case} | {' | '.join(f'{value:.0f}' for value in medians.values())} | {ratio} |", flush=True)


def measure(runs: dict[str, tuple[int, Run]], rounds: int) -> dict[str, float]:
    """The median of each in microseconds a step; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (steps, run) in runs.items():
            run()  # compiles, the first time; lets the threads of the one before fall quiet, every time
            begin = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - begin) / steps)
    return {name: 1e6 * float(np.median(values)) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
