"""Is jaxdiff right on this machine's accelerator? The facts that accelerator.py checks before it measures anything.

Each is a number and a limit. All but the first compute as exactly as the device can ("highest"), so that what is
compared are the programs, and not the short multiplications by which a GPU or TPU may compute in float32.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from contenders import Cases, told

from jaxdiff.base.pictures import to_uint8
from jaxdiff.core import c_noise, predictions
from jaxdiff.core.grids import LogSNR
from jaxdiff.core.process import VP
from jaxdiff.core.samplers import DPMpp2M
from jaxdiff.data.augment import Augment
from jaxdiff.models import Diffusion, Labels
from jaxdiff.models.export import export
from jaxdiff.models.model import Model
from jaxdiff.models.system import Constants
from jaxdiff.nets import MLP, DiT, UNet
from jaxdiff.nets.layers import attend
from jaxdiff.nets.machine import Kind, compiled_for
from jaxdiff.training import Training
from jaxdiff.training.placing import Placing, Trainer
from jaxdiff.training.state import State
from jaxdiff.training.step import train_step

ROOT = Path(__file__).parent.parent
COUNT = 8  # images
TOY: Any = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (0,), "groups": 2}  # of a UNet
Found = dict[str, Any]


def facts(toy: bool) -> dict[str, Callable[[], Found]]:
    return {
        "bfloat16 is float32": partial(bfloat16_is_float32, toy),
        "fused attention is plain attention": fused_is_plain,
        "pmap is jit": partial(pmap_is_jit, toy),
        "image i is image i": partial(image_i_is_image_i, toy),
        "a file exported on a CPU draws the same here": partial(exported_draws_the_same, toy),
    }


def cases(toy: bool) -> Cases:
    """The facts, as a contender has them."""
    return {name: partial(told, check) for name, check in facts(toy).items()}


def fact(number: float, limit: float, unit: str, note: str = "") -> Found:
    """It holds if the number is at most the limit; NaN is not."""
    return {"number": float(number), "limit": limit, "unit": unit, "note": note}


def relative(found: Any, wanted: Any) -> float:
    """The error as a share of what is wanted, both as a whole."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def filled(shapes: Any, seed: int = 0) -> Any:
    """Parameters as after some training, the same everywhere: nothing is zero."""
    generator = np.random.default_rng(seed)

    def draw(leaf: Any) -> Any:
        deviation = 0.3 if leaf.ndim < 2 else np.prod(leaf.shape[:-1]) ** -0.5
        return deviation * generator.standard_normal(leaf.shape, np.float32)

    return jax.tree.map(draw, shapes)


# --- one function for each --------------------------------------------------------------------------------------------


def bfloat16_is_float32(toy: bool) -> Found:
    """A UNet and a transformer of the usual widths, in both."""
    nets = {
        "UNet": UNet(**TOY) if toy else UNet(multipliers=(1, 2), blocks=1),
        "DiT": DiT(width=96 if toy else 768, depth=2, heads=12),
    }
    errors = {name: _rounding(net) for name, net in nets.items()}
    note = ", ".join(f"{name} {error:.2g}" for name, error in errors.items())
    return fact(np.max(list(errors.values())), 2e-2, "of the output", note)


def _rounding(net: Any) -> float:
    x, noise = jax.random.normal(jax.random.key(0), (4, 16, 16, 3)), jnp.arange(4) * 250.0
    params = filled(jax.eval_shape(net.init, jax.random.key(0), x[0], noise[0]))
    short = jax.jit(jax.vmap(net.clone(dtype="bfloat16").apply, (None, 0, 0)))(params, x, noise)
    with jax.default_matmul_precision("highest"):
        exact = jax.jit(jax.vmap(net.clone(dtype="float32").apply, (None, 0, 0)))(params, x, noise)
    return relative(short, exact)


def fused_is_plain() -> Found:
    """cuDNN's attention, as `attend` takes it on an NVIDIA GPU, with its gradient; heads as those of DiT-B."""
    version = jax.devices()[0].client.platform_version
    if jax.default_backend() != "gpu" or "cuda" not in version.lower():
        return {"absent": "cuDNN's attention is that of NVIDIA GPUs"}
    q, k, v, towards = jax.random.normal(jax.random.key(0), (4, 4, 256, 768), "bfloat16")

    def both(q: Any, k: Any, v: Any) -> Any:
        y, back = jax.vjp(lambda q, k, v: attend(q, k, v, heads=12), q, k, v)
        return y, *back(towards)

    fused = jax.jit(both).lower(q, k, v).compile()
    if "fmha" not in (fused.as_text() or ""):
        raise RuntimeError("the compiled program has no fused attention in it")
    with compiled_for(Kind("any")):
        plain = jax.jit(lambda *inputs: both(*inputs))(q, k, v)
    errors = [relative(a, b) for a, b in zip(fused(q, k, v), plain, strict=True)]
    return fact(np.max(errors), 2e-2, "of the output or a gradient")


def model(toy: bool) -> Model:
    """A small one with labels and a stochastic sampler; a UNet, but for the toy, where it would compile for long."""
    network = MLP((64,), classes=10) if toy else UNet(channels=64, multipliers=(1, 2), blocks=1, classes=10)
    network = network.clone(dtype="float32")  # what is compared differs by rounding only
    manner: Any = {"sampler": DPMpp2M(eta=0.5), "grid": LogSNR(), "steps": 5, "condition": Labels(10, drop=0.1)}
    system, shape = Diffusion(network, VP(), predictions.velocity, c_noise=c_noise.time, **manner), (16, 16, 3)
    return Model(system, filled(jax.eval_shape(lambda: system.start(jax.random.key(0), shape))), shape)


@jax.default_matmul_precision("highest")
def pmap_is_jit(toy: bool) -> Found:
    """Five steps by each; pmap on all devices, be it one."""
    ours, theirs = np.array(losses("jit", toy)), np.array(losses("pmap", toy))
    return fact(np.max(np.abs(theirs / ours - 1)), 1e-5, "of the loss", f"{jax.local_device_count()} device(s)")


def losses(placing: Placing, toy: bool, steps: int = 5) -> list[float]:
    trained, training, trainer = model(toy), Training(placing=placing), Trainer(placing)
    size = 2 * jax.local_device_count()
    batch = {
        "image": jax.random.bits(jax.random.key(1), (1, size, *trained.shape), "uint8"),
        "label": jnp.arange(size)[None] % 10,
        "index": jnp.arange(size, dtype="uint32")[None],
    }
    state = State.start(jax.tree.map(jnp.asarray, trained.params), training, jax.random.key(2))
    step = train_step(
        partial(trained.system.loss, Augment(), training=True), training, size, trainer, jax.eval_shape(lambda: state)
    )
    found = []
    state, batch = jax.device_put(state, trainer.shardings(state)), trainer.put(batch)
    for _ in range(steps):
        state = step(state, Constants(), batch)
        found.append(float(state.tally.loss))
    return found


@jax.default_matmul_precision("highest")
def image_i_is_image_i(toy: bool) -> Found:
    """Drawn in one batch of eight, and again in batches of another size that begin elsewhere."""
    drawn = _checked(model(toy).sample(COUNT))
    again = model(toy).sample(range(3, COUNT), batch_size=2)
    return fact(levels(again, drawn[3:]), 1, "of 255 levels")


@jax.default_matmul_precision("highest")
def exported_draws_the_same(toy: bool) -> Found:
    """The file is written, and its images are drawn, by a process that knows the CPU only."""
    with tempfile.TemporaryDirectory() as folder:
        found = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, __file__, folder, *(["toy"] if toy else [])]
        child = subprocess.run(command, env=found, capture_output=True, text=True, check=False)
        if child.returncode:
            raise RuntimeError(f"the process on the CPU: {['it said nothing', *child.stderr.splitlines()][-1]}")
        there = _checked(np.load(Path(folder) / "images.npy"))
        sampler = jax.export.deserialize(bytearray((Path(folder) / "sampler").read_bytes()))
    here = sampler.call(np.uint32(0), np.arange(COUNT, dtype=np.uint32), np.arange(COUNT, dtype=np.int32))
    return fact(levels(np.asarray(here), there), 1, "of 255 levels")


@jax.default_matmul_precision("highest")
def write_exported(folder: Path, toy: bool) -> None:
    """What the child of `exported_draws_the_same` does."""
    export(model(toy), folder / "sampler")
    np.save(folder / "images.npy", model(toy).sample(COUNT))


def levels(found: np.ndarray, wanted: np.ndarray) -> int:
    """The largest difference of any two pixels, of 255 levels."""
    return int(np.abs(to_uint8(found).astype(int) - to_uint8(wanted)).max())


def _checked(images: np.ndarray) -> np.ndarray:
    """Images in which something is to be seen: of nothing but gray, or all alike, all facts would hold."""
    seen = to_uint8(images).astype(int)
    if not np.isfinite(images).all() or np.abs(seen[1:] - seen[:-1]).max((1, 2, 3)).min() < 10:
        raise RuntimeError("the images are not finite, or all alike")
    return images


if __name__ == "__main__":
    write_exported(Path(sys.argv[1]), "toy" in sys.argv)
