"""What a training step costs: DDPM's UNet for CIFAR-10, 35,746,307 parameters, beside diffusers' on PyTorch.

    pip install diffusers torch
    python benchmarks/train_step.py                # a quarter of an hour on 2 cores, most of it torch.compile
    python benchmarks/train_step.py --quick        # without that
    python benchmarks/train_step.py --precision    # jaxdiff in float32, bfloat16, with remat; on a GPU if there is one
    python benchmarks/train_step.py --large        # the network of folder128, 128x128 pixels

A train step is forward, backward and Adam. Each contender is a process of its own, on all cores. They take turns; a
turn is two calls, the second of them timed, and the table shows the best. `memory` is the most the process has held
so far, imports and compiler included, `workspace` what XLA plans for intermediate values, `compile` the first call of
all less the best. `accumulate=2` takes a batch in two parts, one after the other. All run as `keep_memory` has it,
which makes PyTorch's train step 4% faster too.

A FLOP count is twice the multiplications of the convolutions and matrix products as written, three times as many for
a train step as forward. On a CPU jaxdiff's convolutions get along with fewer, so that its share of the peak, which is
the fastest product of two large matrices among the contenders, may pass 100%.
"""

import argparse
import math
import resource
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from contenders import Cases, Contender, ddpm_cifar10, prepare_torch

TIMED, ROUNDS, SIDE = ("forward", "train step", "product"), 5, 3072


def ours(batch: int, size: int = 32, parts: int = 1, mapped: bool = True, **changes: Any) -> Cases:
    import jax
    import jax.numpy as jnp
    import optax

    from jaxdiff.base import environment

    environment.keep_memory()
    net = our_network(size).clone(**({"dropout": 0.0, "dtype": "float32"} | changes))
    apply = jax.vmap(net.apply, (None, 0, 0)) if mapped else net.apply
    x, c_noise = jax.random.normal(jax.random.key(0), (batch, size, size, 3)), jnp.arange(batch) * 37.0
    params = jax.jit(net.init)(jax.random.key(1), x[0], c_noise[0])
    optimiser = optax.adam(1e-4)
    state = params, optimiser.init(params)
    forward, product, matrix = jax.jit(apply), jax.jit(jnp.matmul), jnp.ones((SIDE, SIDE))

    @cache  # compiled by the first step, as `Experiment` does it
    def program() -> Any:
        lowered = jax.jit(training(apply, optimiser, parts), donate_argnums=0).lower(state, x, c_noise)
        compiled = environment.compiled(lowered, jax.default_backend())
        environment.give_back()
        return compiled

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(program()(state, x, c_noise))

    return {
        "forward": lambda: jax.block_until_ready(forward(state[0], x, c_noise)),
        "train step": step,
        "product": lambda: jax.block_until_ready(product(matrix, matrix)),
        "memory": peak_memory,
        "FLOPs": lambda: flops(jax.make_jaxpr(net.apply)(state[0], x, c_noise)),
        "forward workspace": lambda: workspace(forward.lower(state[0], x, c_noise).compile()),
        "train step workspace": lambda: workspace(program()),
    }


def our_network(size: int) -> Any:
    if size == 32:
        from jaxdiff.nets.unet import DDPM_CIFAR10

        return DDPM_CIFAR10
    from configs.folder128 import config as folder128

    system: Any = folder128.system
    return system.network


def training(apply: Any, optimiser: Any, parts: int) -> Callable[..., Any]:
    """The sum of the gradients of so many parts of a batch, one after the other, and an update."""
    import jax
    import jax.numpy as jnp
    import optax

    def gradient(params: Any, x: Any, c_noise: Any) -> Any:
        return jax.grad(lambda params: jnp.mean((apply(params, x, c_noise) - x) ** 2))(params)

    def train(state: Any, *batch: Any) -> Any:
        params, moments = state
        if parts == 1:
            total = gradient(params, *batch)
        else:
            split = [field.reshape(parts, -1, *field.shape[1:]) for field in batch]
            zero, add = jax.tree.map(jnp.zeros_like, params), partial(jax.tree.map, jnp.add)
            total, _ = jax.lax.scan(lambda total, part: (add(total, gradient(params, *part)), None), zero, split)
        updates, moments = optimiser.update(total, moments, params)
        return optax.apply_updates(params, updates), moments

    return train


def workspace(compiled: Any) -> int:
    return compiled.memory_analysis().temp_size_in_bytes


def flops(jaxpr: Any) -> int:
    """Twice the multiplications of convolutions and matrix products."""
    from jax.extend.core import ClosedJaxpr, Jaxpr

    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, inputs = equation.primitive.name, [variable.aval for variable in equation.invars]
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * equation.outvars[0].aval.size * math.prod(inputs[0].shape[i] for i in contracted)
        elif name in ("conv_general_dilated", "convolution_3x3"):  # kernels [height, width, in, out]
            total += 2 * equation.outvars[0].aval.size * math.prod(inputs[1].shape[:3])
        for part in equation.params.values():  # of which some are programs, or several: branches
            several = part if isinstance(part, tuple) else (part,)
            total += sum(flops(each) for each in several if isinstance(each, ClosedJaxpr | Jaxpr))
    return total


def peer(batch: int, size: int = 32, compiled: bool = False, channels_last: bool = False) -> Cases:
    import torch

    prepare_torch()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = ddpm_cifar10(**(FOLDER128 if size == 128 else {})).to(memory_format=layout)
    x, c_noise = torch.randn(batch, 3, size, size).contiguous(memory_format=layout), torch.arange(batch) * 37
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)
    apply, matrix = torch.compile(net, dynamic=False) if compiled else net, torch.ones(SIDE, SIDE)

    def forward() -> None:
        with torch.no_grad():
            apply(x, c_noise)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (apply(x, c_noise).sample - x).square().mean().backward()
        optimiser.step()

    return {"forward": forward, "train step": step, "product": lambda: matrix @ matrix, "memory": peak_memory}


FOLDER128 = {  # the network of that config, but for how times are embedded and how many groups the norms have
    "sample_size": 128,
    "block_out_channels": (64, 128, 128, 256, 256),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 64,
}
Contenders = dict[str, Callable[[int], Cases]]
EAGER: Contenders = {
    "jaxdiff": ours,
    "jaxdiff, accumulate=2": partial(ours, parts=2),
    "jaxdiff, accumulate=4": partial(ours, parts=4),
    "jaxdiff, a batch without vmap": partial(ours, mapped=False),
    "PyTorch": peer,
    "PyTorch, channels last": partial(peer, channels_last=True),
}
COMPILED: Contenders = {
    "torch.compile": partial(peer, compiled=True),
    "torch.compile, channels last": partial(peer, compiled=True, channels_last=True),
}
PRECISIONS: Contenders = {
    "float32": ours,
    "float32, remat": partial(ours, remat=True),
    "bfloat16": partial(ours, dtype="bfloat16"),
    "bfloat16, remat": partial(ours, dtype="bfloat16", remat=True),
}
LARGE: Contenders = {
    "jaxdiff": partial(ours, size=128),
    "jaxdiff, accumulate=2": partial(ours, size=128, parts=2),
    "jaxdiff, accumulate=4": partial(ours, size=128, parts=4),
    "PyTorch": partial(peer, size=128),
}


def peak_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux


class Trainer(Contender):
    """Also knows its first calls, and the memory it held after them."""

    def __init__(self, prepare: Callable[[], Cases]):
        super().__init__(prepare)
        self.first, self.memory = dict.fromkeys(TIMED, 0.0), dict.fromkeys(TIMED, 0)
        for case in TIMED:
            self.first[case] = self.seconds(case)
            self.take_turn(case)
            self.memory[case] = self.ask("memory")

    def take_turn(self, case: str) -> None:
        self.ask(case)  # meanwhile the threads of the one before fall quiet
        super().take_turn(case)

    def row(self, case: str, batch: int, gigaflop: float, peak: float, reference: float) -> list[str]:
        seconds, workspace = self.best[case], self.ask(f"{case} workspace")
        return [
            f"{batch / seconds:.2f}",
            f"{seconds / reference:.2f}",
            f"{gigaflop / seconds:.0f}",
            f"{gigaflop / seconds / peak:.0%}",
            f"{self.memory[case] / 1e9:.2f} GB",
            f"{workspace / 1e9:.2f} GB" if workspace is not None else "",
            f"{self.first[case] - seconds:.0f} s",
        ]


def compare(prepared: Contenders, batch: int, rounds: int) -> None:
    """The tables of one batch size."""
    contenders = {name: Trainer(partial(prepare, batch)) for name, prepare in prepared.items()}
    for case in rounds * TIMED:
        for contender in contenders.values():
            contender.take_turn(case)

    first_name, first = next(iter(contenders.items()))
    gigaflop = 1e-9 * first.ask("FLOPs")
    peak = 2e-9 * SIDE**3 / min(contender.best["product"] for contender in contenders.values())
    print(f"{gigaflop:.0f} GFLOP forward; fastest product of matrices {peak:.0f} GFLOP/s")
    for case, passes in {"forward": 1, "train step": 3}.items():
        columns = [f"{case}, batch {batch}", "images/s", f"time / {first_name}'s", "GFLOP/s", "of peak"]
        print(f"\n| {' | '.join([*columns, 'memory', 'workspace', 'compile'])} |\n|{' --- |' * 8}")
        for name, contender in contenders.items():
            print(
                "| " + " | ".join([name, *contender.row(case, batch, passes * gigaflop, peak, first.best[case])]) + " |"
            )
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", help="8 and 16, or 8 with --large")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="without torch.compile")
    which.add_argument("--precision", action="store_true", help="jaxdiff in float32, bfloat16, with remat")
    which.add_argument("--large", action="store_true", help="the network of folder128")
    arguments = parser.parse_args()
    small = PRECISIONS if arguments.precision else EAGER if arguments.quick else EAGER | COMPILED
    contenders, batches, rounds = (LARGE, [8], 2) if arguments.large else (small, [8, 16], ROUNDS)
    for batch in arguments.batch or batches:
        compare(contenders, batch, rounds)


if __name__ == "__main__":
    main()
