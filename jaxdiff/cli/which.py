"""The model that the options of sample.py name."""

import contextlib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from jaxdiff.base import code
from jaxdiff.base.plain import CodeNeededError
from jaxdiff.models.config import read_config
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.loading import load, load_diffusers
from jaxdiff.models.model import Model
from jaxdiff.models.published import is_of_the_hub


def modules_of(o: Namespace) -> list[ModuleType]:
    """Those that --code names."""
    return [code.module(source) for source in o.code or ()]


def model_of(o: Namespace, code: Sequence[ModuleType]) -> Model:
    if o.from_diffusers is not None:
        return load_diffusers(o.from_diffusers)
    return load(o.workdir, o.checkpoint, average_of(o.average), code)


def place_of(o: Namespace) -> Path:
    """Where pictures go: beside the run; of a model of the Hub, or of diffusers, into this folder."""
    return Path() if o.workdir is None or is_of_the_hub(o.workdir) else Path(o.workdir)


def newest(runs: Path, code: Sequence[ModuleType] = ()) -> Path:
    """The run of a diffusion model whose checkpoints changed last."""
    found = [path for path in runs.glob("*/checkpoints") if any(path.glob("[0-9]*")) and draws(path.parent, code)]
    if not found:
        begun = [path.parent.name for path in runs.glob("*/config.json")]
        more = f" (of {', '.join(begun[:5])} none has a checkpoint of a diffusion model yet)" * bool(begun)
        raise ValueError(f"there is no run in {runs} that draws{more}: jaxdiff train --config digits makes one")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def draws(run: Path, code: Sequence[ModuleType] = ()) -> bool:
    """Whether it trained a diffusion model, and not a classifier or an autoencoder."""
    try:
        return isinstance(read_config(run, code).system, Diffusion)
    except CodeNeededError:
        return True  # it may, and says what it needs when it is loaded
    except (ValueError, OSError):
        return False


def average_of(text: str | None) -> int | float | None:
    if text is None:
        return 0
    if text.lower() == "none":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    raise ValueError(f"--average must be a number such as 0, a width such as 0.08, or none, got {text!r}")
