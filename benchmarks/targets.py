"""What the shipped configs would do on a machine that is not here: their train steps and samplers, compiled for it.

    python benchmarks/targets.py v5e                          # takes jax[tpu]; h100 takes jax[cuda12]
    python benchmarks/targets.py h100 cifar10 cifar10_dit     # some configs only

A row is one config in a process of its own, with the seconds and the memory that compiling took. Nothing is run, so
speeds are bounds: `train.py --dry_run --target` tells the same of one. Latent configs need their autoencoder in runs/.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # jaxdiff may be a clone that nobody installed

SIZES = {"stl10": 96, "stl10_classifier": 96, "folder64": 64, "folder128": 128, "folder128_labels": 128}
STAND_INS = {  # data of the same shapes, where the config's own are larger to fetch, or are the user's
    name: [f'data=Tfds(name="cifar10", size={size})', *(["held_out=None"] if size == 96 else [])]
    for name, size in SIZES.items()
}
LIMIT = 900  # seconds for a config
TITLES = ("batch", "needs", "FLOP", "bytes", "bound by", "images/s", "drawing", "compiled in", "host memory")


def measured(name: str, where: str, *changes: str) -> dict[str, Any]:
    """Of this process's one config."""
    import jax

    from jaxdiff.base import code
    from jaxdiff.base.overrides import overrides
    from jaxdiff.base.words import amount
    from jaxdiff.models.diffusion import Diffusion
    from jaxdiff.models.dry_run import step_bound, step_flops
    from jaxdiff.models.experiment import Experiment
    from jaxdiff.models.target import room, target
    from jaxdiff.nets.machine import compiled_for

    jax.config.update("jax_platforms", "cpu")  # as environment.prepare(elsewhere=True), without its cache
    machine = target(where)
    config = overrides(code.load(name), [*STAND_INS.get(name, []), *changes])
    experiment = Experiment(config, ROOT / "runs" / f"{name}-not-there")
    flops, experiment.elsewhere = step_flops(experiment), machine
    with compiled_for(machine.kind):
        compiled, seconds = timed(experiment.compiled)
        bound = step_bound(experiment, machine, flops, compiled)
        row = {
            "batch": config.batch_size,
            "needs": amount(getattr(room(compiled, 1, machine), "needs", 0), "B"),
            "FLOP": amount(flops / config.batch_size, ""),
            "bytes": amount(bound.moved_an_image, "B"),
            "bound by": "memory" if bound.moving > bound.computing else "computing",
            "images/s": f"{bound.rate:,.0f}",
            "compiled in": f"{seconds:.0f} s",
        }
        if isinstance(config.system, Diffusion):
            row |= drawing(experiment, machine)
    return row | {"host memory": amount(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "B")}


def drawing(experiment: Any, machine: Any) -> dict[str, Any]:
    """64 images at a time, as the config has it."""
    import jax

    from jaxdiff.models.model import Model
    from jaxdiff.models.target import Bound, bytes_moved, dtype_of

    system = experiment.config.system
    params = system.start(jax.random.key(0), experiment.shape)
    model = Model(system, params, experiment.shape, None, tuple(experiment.examples.classes or ()))
    compiled, seconds = timed(lambda: model.lowered(64, devices=machine.devices).compile())
    with jax.default_matmul_precision("highest"):  # as written: one turn of its loop is counted, here and below
        cost: Any = model.lowered(64, devices=jax.devices()[:1]).cost_analysis()
    steps = len(model.times()) - 1
    bound = Bound(machine, 64, steps * cost["flops"], steps * bytes_moved(compiled), dtype_of(system))
    return {"drawing": f"{bound.rate:,.3g} images/s in {steps} steps, compiled in {seconds:.0f} s"}


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.monotonic()
    return action(), time.monotonic() - begin


def row(name: str, where: str) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--one", name, where]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"batch": f"not within {LIMIT} s"}
    if child.returncode:
        said = (line[:200] for line in reversed(child.stderr.splitlines()) if "Error" in line)
        return {"batch": next(said, f"ended with {child.returncode}")}
    return json.loads(child.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1] == "--one":
        print(json.dumps(measured(*sys.argv[2:])))
        return
    where, *names = sys.argv[1:]
    print("|".join(["", "config", *TITLES, ""]), "|" + " --- |" * (len(TITLES) + 1), sep="\n", flush=True)
    for name in names or sorted(path.stem for path in (ROOT / "configs").glob("*.py")):
        found = row(name, where)
        print("|".join(["", name, *(str(found.get(title, "")) for title in TITLES), ""]), flush=True)


if __name__ == "__main__":
    main()
