"""What a training step costs: DDPM's UNet for CIFAR-10, 35,746,307 parameters, beside diffusers' on PyTorch.

    pip install diffusers torch
    python benchmarks/train_step.py                # a quarter of an hour on 2 cores, most of it torch.compile
    python benchmarks/train_step.py --quick        # without that
    python benchmarks/train_step.py --precision    # jaxdiff in float32, bfloat16, with remat; on a GPU if there is one

A train step is forward, backward and Adam. Each contender is a process of its own, on all cores. They take turns; a
turn is two calls, the second of them timed, and the table shows the best. `memory` is the most the process has held
so far, imports and compiler included, `workspace` what XLA plans for intermediate values, `compile` the first call of
all less the best. All run as `keep_memory` has it, which makes PyTorch's train step 4% faster too.

A FLOP count is twice the multiplications of the convolutions and matrix products as written, three times as many for
a train step as forward. On a CPU jaxdiff's convolutions get along with fewer, so that its share of the peak, which is
the fastest product of two large matrices among the contenders, may pass 100%.
"""

import argparse
import math
import resource
from collections.abc import Callable
from functools import partial
from typing import Any

from contenders import Cases, Contender, ddpm_cifar10, prepare_torch

TIMED, ROUNDS, SIDE = ("forward", "train step", "product"), 5, 3072


def ours(batch: int, mapped: bool = True, dtype: Any = "float32", remat: bool = False) -> Cases:
    import jax
    import jax.numpy as jnp
    import optax

    from jaxdiff.base.environment import keep_memory
    from jaxdiff.nets.unet import DDPM_CIFAR10

    keep_memory()
    net = DDPM_CIFAR10.clone(dropout=0.0, dtype=dtype, remat=remat)
    apply = jax.vmap(net.apply, (None, 0, 0)) if mapped else net.apply
    x, c_noise = jax.random.normal(jax.random.key(0), (batch, 32, 32, 3)), jnp.arange(batch) * 37.0
    params = jax.jit(net.init)(jax.random.key(1), x[0], c_noise[0])
    optimiser = optax.adam(1e-4)
    state = params, optimiser.init(params)
    forward, product, matrix = jax.jit(apply), jax.jit(jnp.matmul), jnp.ones((SIDE, SIDE))

    @partial(jax.jit, donate_argnums=0)
    def train(state, x, c_noise):
        params, moments = state
        gradient = jax.grad(lambda params: jnp.mean((apply(params, x, c_noise) - x) ** 2))(params)
        updates, moments = optimiser.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(train(state, x, c_noise))

    def workspace(program: Any, *inputs: Any) -> int:
        return program.lower(*inputs).compile().memory_analysis().temp_size_in_bytes

    return {
        "forward": lambda: jax.block_until_ready(forward(state[0], x, c_noise)),
        "train step": step,
        "product": lambda: jax.block_until_ready(product(matrix, matrix)),
        "memory": peak_memory,
        "FLOPs": lambda: flops(jax.make_jaxpr(net.apply)(state[0], x, c_noise)),
        "programs": lambda: train._cache_size(),  # type: ignore[attr-defined]
        "forward workspace": lambda: workspace(forward, state[0], x, c_noise),
        "train step workspace": lambda: workspace(train, state, x, c_noise),
    }


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


def peer(batch: int, compiled: bool = False, channels_last: bool = False) -> Cases:
    import torch

    prepare_torch()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = ddpm_cifar10().to(memory_format=layout)
    x, c_noise = torch.randn(batch, 3, 32, 32).contiguous(memory_format=layout), torch.arange(batch) * 37
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


Contenders = dict[str, Callable[[int], Cases]]
EAGER: Contenders = {
    "jaxdiff": ours,
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


def compare(prepared: Contenders, batch: int) -> None:
    """The tables of one batch size."""
    contenders = {name: Trainer(partial(prepare, batch)) for name, prepare in prepared.items()}
    for case in ROUNDS * TIMED:
        for contender in contenders.values():
            contender.take_turn(case)

    first_name, first = next(iter(contenders.items()))
    gigaflop = 1e-9 * first.ask("FLOPs")
    peak = 2e-9 * SIDE**3 / min(contender.best["product"] for contender in contenders.values())
    print(f"{gigaflop:.0f} GFLOP forward; fastest product of matrices {peak:.0f} GFLOP/s; ", end="")
    print(f"programs compiled in {2 * ROUNDS + 3} train steps: {first.ask('programs')}")
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
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--quick", action="store_true", help="without torch.compile")
    parser.add_argument("--precision", action="store_true", help="jaxdiff in float32, bfloat16, with remat")
    arguments = parser.parse_args()
    for batch in arguments.batch:
        compare(PRECISIONS if arguments.precision else EAGER if arguments.quick else EAGER | COMPILED, batch)


if __name__ == "__main__":
    main()
