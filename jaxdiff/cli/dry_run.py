"""What a call of sample.py would cost, and whether the machine can hold it, without drawing."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from jaxdiff.base.words import amount, duration, plural, speed
from jaxdiff.cli.drawing import batch_size
from jaxdiff.cli.plan import Plan
from jaxdiff.models.target import Bound, Target, bytes_moved, dtype_of, room
from jaxdiff.nets.machine import Kind, compiled_for, kind
from jaxdiff.training.state import parameters


def dry_run(plan: Plan, where: Target | None = None) -> Iterator[str]:
    """Facts, each as soon as it is known, and the conclusion: of this machine, or another."""
    chips = jax.local_devices() if where is None else where.devices
    size, steps = -(-batch_size(plan) // len(chips)) * len(chips), len(plan.times) - 1
    there = "" if where is None else f" of {where.title}, not here"
    yield f"model       {plan.model.name}, {parameters(plan.model.params):,} parameters"
    yield f"drawing     {plural(plan.count, 'image')}: {plan.how()}"
    yield f"devices     {len(chips)}{there}, for {plural(size, 'image')} at a time"
    flops = steps * _flops_of_a_step(plan, size)
    yield f"a batch     {amount(flops, 'FLOP')}"
    jax.clear_caches()  # what was traced for this machine
    with compiled_for(kind() if where is None else where.kind):
        compiled, dtype = _lowered(plan, size, chips).compile(), dtype_of(plan.model.system)
    if where is not None:
        bound = Bound(where, size, flops, steps * bytes_moved(compiled), dtype)
        yield str(bound)
        yield f"at best     {speed(bound.rate)}, {duration(plan.count / bound.rate)} for all"
    if plan.model.codec is not None:
        yield "            and what the autoencoder takes, which decodes a few at a time"
    yield _conclusion(compiled, size, len(chips), where)


def _lowered(plan: Plan, size: int, chips: Sequence[Any]) -> jax.stages.Lowered:
    options = {name: value for name, value in plan.options().items() if name != "seed"}
    return plan.model.lowered(range(size), devices=chips, **options)


def _flops_of_a_step(plan: Plan, size: int) -> float:
    """Of a batch, convolutions as written and not in fewer multiplications; nothing is compiled."""
    with jax.default_matmul_precision("highest"), compiled_for(Kind("any")):
        cost: Any = _lowered(plan, size, jax.local_devices()[:1]).cost_analysis()
    return float(cost["flops"])


def _conclusion(compiled: Any, size: int, chips: int, where: Target | None) -> str:
    found = room(compiled, chips, where)
    if found is None:
        return "whether it fits is not known: the compiler or the system does not tell"
    if not found.fits:
        smaller = size * (found.has - found.arguments) // max(found.needs - found.arguments, 1)
        return f"{found}: try {f'--batch_size {smaller}' if smaller > 0 else 'a smaller network'}"
    larger = f"; --batch_size {size * found.times} would too, by what an image takes"
    return f"{found}{larger}" if where is not None and found.times > 1 else str(found)
