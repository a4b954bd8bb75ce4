"""What sampling costs: DDPM's UNet for CIFAR-10, 16 images, beside diffusers' pipelines on PyTorch.

    pip install diffusers torch
    python benchmarks/sampling.py            # ten minutes on 2 cores
    python benchmarks/sampling.py --quick    # without torch.compile

Each contender is a process of its own, on all cores, and all run as `keep_memory` has it. They take turns; a turn is
one whole sampling, the first of them untimed, and the table shows the best of the others. Below it: what
classifier-free guidance costs, what a second call compiles, and how soon a second process has its first images.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from contenders import Cases, Contender, ddpm_cifar10, prepare_torch

ROOT = Path(__file__).parent.parent
COUNT, ROUNDS = 16, 2
CASES = {"DDIM, 50 steps": 50, "ancestral, 100 steps": 100}


def model(classes: int | None = None) -> Any:
    """DDPM's UNet, every parameter 0.02: it draws nothing to look at, at the usual cost."""
    import jax
    import jax.numpy as jnp

    from jaxdiff.models.conditions import Labels
    from jaxdiff.models.diffusion import Diffusion
    from jaxdiff.models.model import Model
    from jaxdiff.nets.unet import DDPM_CIFAR10

    system = Diffusion(
        DDPM_CIFAR10.clone(dropout=0.0, classes=classes), condition=None if classes is None else Labels(classes, 0.1)
    )
    shapes = jax.eval_shape(lambda key: system.start(key, (32, 32, 3)), jax.random.key(0))
    params = jax.tree.map(lambda leaf: 0.02 * jnp.ones(leaf.shape), shapes)  # at once, where init takes ten seconds
    return Model(system, params, (32, 32, 3))


def ours() -> Cases:
    from jaxdiff.base.environment import keep_memory
    from jaxdiff.core import grids, samplers

    keep_memory()
    plain, guided = model(), model(classes=10)
    ddim = partial(plain.sample, COUNT, sampler=samplers.DDIM(), grid=grids.Leading(), steps=50)
    ancestral = partial(plain.sample, COUNT, sampler=samplers.DDPM(), grid=grids.Leading(), steps=100)
    few = partial(guided.sample, COUNT, sampler=samplers.DDIM(), grid=grids.Leading(), steps=5)
    return {
        "DDIM, 50 steps": ddim,
        "ancestral, 100 steps": ancestral,
        "plain": partial(few, guidance_scale=1.0),
        "guided": partial(few, guidance_scale=3.0),
        "programs": lambda: programs(partial(ddim, seed=1)),
    }


def programs(call: Callable[[], Any]) -> int:
    """How many a call compiles."""
    import jax

    compiled: list[str] = []

    def heard(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)
    call()
    return len(compiled)


def peer(compiled: bool = False) -> Cases:
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

    prepare_torch()
    net = ddpm_cifar10().eval()
    if compiled:
        net.forward = torch.compile(net.forward, dynamic=False)
    pipelines = DDIMPipeline(net, DDIMScheduler()), DDPMPipeline(net, DDPMScheduler())
    for pipeline in pipelines:
        pipeline.set_progress_bar_config(disable=True)
    return {
        case: partial(pipeline, batch_size=COUNT, num_inference_steps=steps, output_type="np")
        for pipeline, (case, steps) in zip(pipelines, CASES.items(), strict=True)
    }


def compare(prepared: dict[str, Callable[[], Cases]]) -> None:
    contenders = {name: Contender(prepare) for name, prepare in prepared.items()}
    for case in CASES:
        for contender in contenders.values():
            contender.ask(case)  # compiles
        for contender in ROUNDS * list(contenders.values()):
            contender.take_turn(case)
    ours, *others = contenders.values()
    print(f"| seconds for {COUNT} images | {' | '.join(contenders)} | jaxdiff / the faster of the others |")
    print("|" + " --- |" * (len(contenders) + 2))
    for case in CASES:
        seconds = " | ".join(f"{contender.best[case]:.1f}" for contender in contenders.values())
        print(f"| {case} | {seconds} | {ours.best[case] / min(other.best[case] for other in others):.2f} |")
    for case in ("plain", "guided"):
        ours.ask(case)
    for case in 4 * ("plain", "guided"):
        ours.take_turn(case)
    print(f"\nclassifier-free guidance: {ours.best['guided'] / ours.best['plain']:.2f} times the plain model")
    print(f"programs compiled by a second call: {ours.ask('programs')}", flush=True)


def first_images() -> None:
    """What a process does that starts sampling: to be timed as a whole."""
    from jaxdiff.base import environment

    environment.prepare()
    from jaxdiff.core import grids, samplers

    model().sample(COUNT, sampler=samplers.DDIM(), grid=grids.Leading(), steps=1)


def starts() -> None:
    """The same process twice, with one compilation cache that is empty at first; and --help."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAXDIFF_CACHE": folder}
        first, second = (timed([__file__, "--first_images"], environment) for _ in range(2))
    print(f"first images of a first process after {first:.1f} s, of a second one after {second:.1f} s")
    print(f"python sample.py --help: {min(timed(['sample.py', '--help']) for _ in range(3)):.2f} s")


def timed(arguments: list[str], environment: dict[str, str] | None = None) -> float:
    begin = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without torch.compile")
    parser.add_argument("--first_images", action="store_true", help="draw 16 images in one step, and nothing else")
    arguments = parser.parse_args()
    if arguments.first_images:
        first_images()
        return
    compiled = {} if arguments.quick else {"torch.compile": partial(peer, compiled=True)}
    starts()
    compare({"jaxdiff": ours, "diffusers": peer, **compiled})


if __name__ == "__main__":
    main()
