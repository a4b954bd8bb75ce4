"""How fast is jaxdiff on this machine's accelerator, and PyTorch on the same one? What accelerator.py measures.

Both compute in bfloat16, with parameters and Adam in float32, on one device. Of jaxdiff it is the whole training step
of the config - augmentation, noise, averages - and the whole sampler; of PyTorch the network, a squared error and Adam.
"""

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from contenders import Cases, ddpm_cifar10, told

Found = dict[str, Any]
Queue = Callable[[int], None]  # puts so many calls in the device's queue, and waits for the last
NETWORKS = ("DDPM", "DiT-B", "DDPM++")
KINDS = ("train step", "network evaluation")
PEAKS = {  # dense bfloat16 TFLOP/s as the makers' data sheets have them; by words of the device's name, in this order
    **{"H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "A100": 312, "L4": 121},
    **{"TPU v4": 275, "TPU v5 lite": 197, "TPU v5e": 197, "TPU v5p": 459, "TPU v5": 459, "TPU v6 lite": 918},
}


def known_peak(kind: str) -> float | None:
    words = set(kind.replace("-", " ").split())
    return next((peak for name, peak in PEAKS.items() if set(name.split()) <= words), None)


def seconds_a_call(queue: Queue, toy: bool = False) -> float:
    """The best of three rounds of about a second each, after some calls to warm up."""
    queue(3)
    calls = 1 if toy else max(1, min(200, round(1 / _timed(queue, 1))))
    return min(_timed(queue, calls) for _ in range(3)) / calls


def _timed(queue: Queue, calls: int) -> float:
    begin = time.perf_counter()
    queue(calls)
    return time.perf_counter() - begin


# --- jaxdiff ----------------------------------------------------------------------------------------------------------


def cases(toy: bool, batch: int | None) -> Cases:
    """What there is to measure; `batch` is by default what the memory allows."""
    made: Cases = {"machine": partial(machine, toy, batch), "product": partial(product, toy)}
    for name in NETWORKS:
        for kind, measure in zip(KINDS, (train_step, network_evaluation), strict=True):
            made[f"{name}, {kind}"] = partial(measure, name, toy, batch)
    return {name: partial(told, case) for name, case in made.items()}


def batch_here(toy: bool) -> int:
    """What fits with DDPM++, whose training step holds about 0.3 GB an image."""
    from jaxdiff.base.devices import memory

    return 8 if toy else next((size for size in (256, 128, 64, 32) if (memory() or 0) > size * 0.4e9), 16)


def machine(toy: bool, batch: int | None) -> Found:
    import jax

    from jaxdiff.base.devices import memory

    first = jax.devices()[0]
    return {
        "batch": batch_here(toy) if batch is None else batch,
        "backend": jax.default_backend(),
        "kind": first.device_kind,
        "devices": jax.device_count(),
        "memory_bytes": memory(),
        "known_TFLOPs": None if toy else known_peak(first.device_kind),
        "platform": " ".join(first.client.platform_version.split()),
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "cpus": len(os.sched_getaffinity(0)),
    }


def product(toy: bool) -> Found:
    """Of two large bfloat16 matrices: what the card reaches where nothing else is in the way."""
    import jax
    import jax.numpy as jnp

    side = 256 if toy else 8192
    a = jax.random.normal(jax.random.key(0), (side, side), "bfloat16")
    multiply = jax.jit(jnp.matmul)

    def queue(calls: int) -> None:
        jax.block_until_ready([multiply(a, a) for _ in range(calls)][-1])

    return {"TFLOPs": 2e-12 * side**3 / seconds_a_call(queue, toy), "side": side}


def config_of(name: str, toy: bool) -> Any:
    """The config that has this network, in bfloat16; that of DDPM++ as it will be trained."""
    import accelerator_training

    from configs import cifar10, cifar10_ddpm, cifar10_dit
    from jaxdiff.base.overrides import override
    from jaxdiff.nets.dit import DIT_B

    config = {"DDPM": cifar10_ddpm, "DiT-B": cifar10_dit, "DDPM++": cifar10}[name].config
    net = DIT_B.clone(classes=10) if name == "DiT-B" else config.system.network
    if toy and name == "DiT-B":
        net = net.clone(width=32, depth=1, heads=2)
    elif toy:
        net = net.clone(channels=8, multipliers=(1,), blocks=1, attention=(0,), groups=2)
    if name == "DDPM++":
        config = override(config, f"training.optimiser.schedule.warmup={accelerator_training.WARMUP}")
    return replace(config, system=replace(config.system, network=net.clone(dtype="bfloat16")))


def shape_of(toy: bool) -> tuple[int, int, int]:
    return (8, 8, 3) if toy else (32, 32, 3)


def flops(system: Any, shape: tuple[int, ...]) -> int:
    """Of one network evaluation of one image, as train_step.py counts them: as written, whatever XLA makes of it."""
    import jax
    import jax.numpy as jnp
    import train_step

    from jaxdiff.nets.machine import Kind, compiled_for

    condition = () if system.condition is None else (system.condition.null,)
    params = jax.eval_shape(lambda key: system.start(key, shape), jax.random.key(0))
    with compiled_for(Kind("any")):
        inputs = jnp.zeros(shape), jnp.zeros(()), *condition
        return train_step.flops(jax.make_jaxpr(system.net.clone(dtype="float32").apply)({"params": params}, *inputs))


def train_step(name: str, toy: bool, batch: int | None) -> Found:
    """The step that train.py runs, on one device; the next is put in the queue while one computes."""
    import jax
    import jax.numpy as jnp

    from jaxdiff.models.system import Constants
    from jaxdiff.training.placing import Trainer
    from jaxdiff.training.state import State
    from jaxdiff.training.step import train_step

    config, shape, trainer = config_of(name, toy), shape_of(toy), Trainer("jit")
    batch = batch_here(toy) if batch is None else batch

    def start(key: Any) -> Any:
        return State.start(config.system.start(key, shape), config.training, key)

    state = jax.jit(start)(jax.random.key(0))
    objective = partial(config.system.loss, config.augment, training=True)
    step = train_step(objective, config.training, batch, trainer, jax.eval_shape(lambda: state))
    rows = {
        "image": jax.random.bits(jax.random.key(1), (1, batch, *shape), "uint8"),
        "index": jnp.arange(batch, dtype="uint32")[None],
    }
    labels = {} if config.system.condition is None else {"label": jnp.arange(batch)[None] % 10}
    state, batches = jax.device_put(state, trainer.shardings(state)), trainer.put(rows | labels)
    compiled, seconds = _compiled(step, state, Constants(), batches)

    def queue(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state = compiled(state, Constants(), batches)
        jax.block_until_ready(state.step)

    each = seconds_a_call(queue, toy)
    return _speed(batch / each, 3 * flops(config.system, shape), batch, seconds, compiled)


def network_evaluation(name: str, toy: bool, batch: int | None) -> Found:
    """One step of DDIM, as one of many of a whole sampling."""
    import jax
    import jax.numpy as jnp
    from accelerator_facts import filled

    from jaxdiff.core import sampling
    from jaxdiff.core.samplers import DDIM

    system, shape, steps = config_of(name, toy).system, shape_of(toy), 2 if toy else 20
    batch = batch_here(toy) if batch is None else batch
    params = filled(jax.eval_shape(lambda key: system.start(key, shape), jax.random.key(0)))
    denoiser = system.denoiser(jax.device_put(params))
    draw = sampling.program(denoiser, system.process, DDIM(), system.times_of(steps), shape=shape)
    labels = () if system.condition is None else (jnp.arange(batch) % 10,)
    inputs = draw, jnp.uint32(0), jnp.arange(batch, dtype="uint32"), *labels
    compiled, seconds = _compiled(jax.jit(lambda draw, *rest: draw(*rest)), *inputs)

    def queue(calls: int) -> None:
        jax.block_until_ready([compiled(*inputs) for _ in range(calls)][-1])

    each = seconds_a_call(queue, toy) / steps
    return _speed(batch / each, flops(system, shape), batch, seconds, compiled)


def _compiled(function: Any, *inputs: Any) -> tuple[Any, float]:
    """And the seconds that it took."""
    begin = time.perf_counter()
    return function.lower(*inputs).compile(), time.perf_counter() - begin


def _speed(rate: float, flops: int, batch: int, seconds: float, compiled: Any) -> Found:
    """FLOPs are of one image; XLA's own count, of a whole call with loops counted once, stands beside."""
    found = {"images_per_second": rate, "batch": batch, "compile_seconds": seconds, "flops_an_image": flops}
    with contextlib.suppress(Exception):  # not every backend has both
        found["workspace_bytes"] = compiled.memory_analysis().temp_size_in_bytes
        found["xla_flops_a_call"] = compiled.cost_analysis()["flops"]
    return found


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def peers(toy: bool, batch: int) -> Cases:
    """The same networks as diffusers has them."""
    made: Cases = {}
    for name in NETWORKS:
        for kind in KINDS:
            made[f"{name}, {kind}, torch.compile"] = partial(peer, name, kind, True, toy, batch)
            made[f"{name}, {kind}, PyTorch"] = partial(peer, name, kind, False, toy, batch)
    return {name: partial(told, case) for name, case in made.items()}


def peer(name: str, kind: str, compiled: bool, toy: bool, batch: int) -> Found:
    for package in ("torch", "diffusers"):
        if importlib.util.find_spec(package) is None:
            return {"absent": f"{package} is not installed: --help says how to take it along"}
    if name == "DDPM++":
        return {"absent": "diffusers has no network like it"}
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"  # "cuda" is AMD's name here as well
    if device == "cpu" and not toy:
        return {"absent": f"PyTorch {torch.__version__} has no GPU here"}
    if toy:
        torch.set_num_threads(1)  # two of them wait for each other longer than they compute
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    net = (ddpm if name == "DDPM" else dit_b)(toy).to(device, memory_format=torch.channels_last)
    call = _steps_of(net, kind, compiled, toy, batch, device)

    def queue(calls: int) -> None:
        for _ in range(calls):
            call()
        if device == "cuda":
            torch.cuda.synchronize()

    first = _timed(queue, 1)
    each = seconds_a_call(queue, toy)
    version = {"torch": torch.__version__, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    return {"images_per_second": batch / each, "batch": batch, "compile_seconds": first - each, **version}


def _steps_of(net: Any, kind: str, compiled: bool, toy: bool, batch: int, device: str) -> Callable[[], None]:
    """A train step, or a network evaluation, as PyTorch is usually written: autocast, channels last, fused Adam."""
    import torch

    channels, size = net.config.in_channels, net.config.sample_size
    x = torch.randn(batch, channels, size, size, device=device).contiguous(memory_format=torch.channels_last)
    inputs = x, torch.arange(batch, device=device) % 1000
    labels = {"class_labels": torch.arange(batch, device=device) % 10} if "DiT" in type(net).__name__ else {}
    apply = torch.compile(net, dynamic=False, backend="eager" if toy else "inductor") if compiled else net
    net.train(kind == "train step")
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)
    bfloat16 = partial(torch.autocast, device, dtype=torch.bfloat16)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with bfloat16():
            loss = (apply(*inputs, **labels).sample.float() - x).square().mean()
        loss.backward()
        optimiser.step()

    def evaluation() -> None:
        with torch.no_grad(), bfloat16():
            apply(*inputs, **labels)

    return step if kind == "train step" else evaluation


def ddpm(toy: bool) -> Any:
    blocks = {"down_block_types": ("AttnDownBlock2D",), "up_block_types": ("AttnUpBlock2D",), "layers_per_block": 1}
    small = {"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 2, **blocks}
    return ddpm_cifar10(dropout=0.1, **(small if toy else {}))


def dit_b(toy: bool) -> Any:
    from diffusers import DiTTransformer2DModel

    heads, width, depth, size = (2, 16, 1, 8) if toy else (12, 64, 12, 32)
    sizes = {"num_attention_heads": heads, "attention_head_dim": width, "num_layers": depth, "sample_size": size}
    return DiTTransformer2DModel(in_channels=3, num_embeds_ada_norm=10, **sizes)
