"""What a run says of itself: to whoever started it, and in its folder, beside its checkpoints."""

import json
import os
import platform
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import jaxdiff
from jaxdiff import interop
from jaxdiff.base import files
from jaxdiff.base.devices import memory
from jaxdiff.base.text import shown
from jaxdiff.base.words import amount, plural
from jaxdiff.models.config import modules_of, written
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.run import Run
from jaxdiff.training import page
from jaxdiff.training.placing import Trainer
from jaxdiff.training.state import parameters


def introduce(run: Run, trainer: Trainer, at: int, say: Callable[[str], None]) -> None:
    """Its first lines."""
    count, begins = len(run.examples), f"resumes at step {at}" if at else "begins"
    what = f"{plural(count, 'image')}, {parameters(run.state_shapes.params):,} parameters, {trainer}"
    say(f"{run.folder} {begins}: {what}")
    say(f"{run.folder / page.NAME} shows how it goes")
    if run.examples.unreadable:
        left_out, path = plural(len(run.examples.unreadable), "file"), run.folder / "unreadable.txt"
        say(f"{left_out} could not be read and left out: {path} says why")


def write(run: Run, trainer: Trainer, again: str | None) -> None:
    """All that reading the run takes, and what its page shows of it; `again` is what resumes it."""
    files.write(run.folder / "config.json", written(run.config))
    files.write(run.folder / "data.json", json.dumps(run.identity))
    files.write(run.folder / "about.json", json.dumps(_about(run, trainer, again), indent=1))
    left_out = "".join(f"{' '.join(shown(name).split())}: {why}\n" for name, why in run.examples.unreadable)
    if left_out:
        files.write(run.folder / "unreadable.txt", left_out)
    if run.codec is not None and not (run.folder / "codec").is_dir():
        interop.write_codec(run.folder / "codec", run.codec)


def _about(run: Run, trainer: Trainer, again: str | None) -> dict[str, Any]:
    images, system = run.examples.images, type(run.config.system).__name__
    kind, known = jax.local_devices()[0].device_kind, memory()
    has = "" if known is None else f", {amount(known, 'B')}"
    cores = f"{plural(os.cpu_count() or 1, 'CPU core')}, {platform.system()} on {platform.machine()}"
    return {
        "folder": str(run.folder.absolute()),
        "data": f"{plural(len(images), 'image')} of {'x'.join(map(str, images.shape[1:]))}",
        "model": f"{system} of {parameters(run.state_shapes.params):,} parameters",
        "devices": f"{trainer}: {kind}{has}; {cores}",
        "versions": f"jaxdiff {jaxdiff.__version__}, JAX {jax.__version__}, Python {platform.python_version()}",
        "commands": ({"resume": again} if again else {}) | _commands(run, again),
    }


def _commands(run: Run, again: str | None) -> dict[str, str]:
    if not isinstance(run.config.system, Diffusion):
        return {}
    modules = (each for each in modules_of(run.config) if not each.__name__.startswith("jaxdiff."))
    own = sorted(filter(None, {getattr(each, "__file__", None) for each in modules}))  # a notebook has none
    of = shlex.join(["--workdir", str(run.folder), *(word for file in own for word in ("--code", file))])
    sample, evaluate = (f"{_called(name, again)} {of}" for name in ("sample", "evaluate"))
    return {
        "sample": sample,
        "watch": f"{sample} --trajectory",
        "evaluate": evaluate,
        "look for copies": f"{evaluate} --nearest",
    }


def _called(name: str, again: str | None) -> str:
    """A command as the run was begun: `python sample.py`, if that is beside its train.py, else `jaxdiff sample`."""
    begun = re.match(r"python (\S*)train\.py\b", again or "")
    script = begun and f"{begun[1]}{name}.py"
    return f"python {script}" if script and Path(script).exists() else f"jaxdiff {name}"
