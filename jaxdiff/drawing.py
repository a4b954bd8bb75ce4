"""Samples of a trained run as a picture, for the command line."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff import images
from jaxdiff.conditions import Labels, Prompts
from jaxdiff.experiment import Experiment, opened, trained
from jaxdiff.sampling import sample
from jaxdiff.systems import Diffusion, decoded, laid_out


def newest(runs: Path) -> Path:
    """The run whose checkpoints changed last."""
    found = [path for path in runs.glob("*/checkpoints") if path.is_dir()]
    if not found:
        raise ValueError(f"there is no run in {runs}: python train.py --config configs/digits.py makes one")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def draw(
    folder: Path,
    num: int | None = None,
    labels: str | None = None,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    out: Path | None = None,
) -> Path:
    """Draws images, writes them as one picture, and says where it is."""
    run = opened(folder)
    system = run.config.system
    if not isinstance(system, Diffusion):
        raise ValueError(f"{folder} trained {type(system).__name__}, which draws no images: give another --workdir")
    if num is not None and num < 1:
        raise ValueError(f"--num must be at least 1, got {num}")
    path = folder / "samples.png" if out is None else out
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {path}")
    told, texts = conditions(run, system, num or system.shown, labels, prompts)
    step, params = trained(run)
    model, times = system.denoiser(params, guidance_scale), system.times_of(steps)
    scale = system.guidance_scale if guidance_scale is None else guidance_scale
    guided = "" if system.condition is None else f", guidance_scale={scale}"
    what = f"{num or system.shown} images of {folder} at step {step}: {system.sampler}, {len(times) - 1} steps"
    print(f"{what}{guided}, seed {seed}", file=sys.stderr)
    shape, count = run.shape, num or system.shown
    x = sample(model, system.process, system.sampler, times, shape=shape, indices=count, seed=seed, conditions=told)
    images.save(path, laid_out(decoded(run.codec, x), texts))
    return path


def conditions(
    run: Experiment, system: Diffusion, num: int, labels: str | None, prompts: Sequence[str] | None
) -> tuple[Any, list[str] | None]:
    """What each image is told, and how it reads."""
    condition = system.condition
    if labels is not None and not isinstance(condition, Labels):
        raise ValueError(f"{run.folder} knows no labels: leave out --labels")
    if prompts is not None and not isinstance(condition, Prompts):
        raise ValueError(f"{run.folder} knows no prompts: leave out --prompt")
    if isinstance(condition, Labels) and labels is not None:
        names = class_names(run)
        return condition.named(np.resize(parsed_labels(labels, condition.classes, names), num), names)
    if isinstance(condition, Prompts) and prompts is not None:
        texts = [prompts[i % len(prompts)] for i in range(num)]
        return np.stack([condition.tokens(text) for text in texts]), texts
    return (None, None) if condition is None else condition.rows(num, class_names(run))


def class_names(run: Experiment) -> Sequence[str]:
    path = run.folder / "data.json"
    return json.loads(path.read_text(encoding="utf-8"))["classes"] or () if path.exists() else ()


def parsed_labels(text: str, classes: int, names: Sequence[str]) -> list[int]:
    """ "3", "0-9" or "cat,ship" as labels."""
    found: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        first, dash, last = part.partition("-")
        if part in names:
            found.append(names.index(part))
        elif first.isdigit() and (not dash or last.isdigit()):
            found.extend(range(int(first), min(int(last or first), classes) + 1))
        else:
            legal = f"0 to {classes - 1}" + (f", or {', '.join(names)}" if names else "")
            raise ValueError(f"--labels {part!r} is no label of this model: it knows {legal}")
    if not found or max(found) >= classes:
        raise ValueError(f"--labels must be from 0 to {classes - 1}, such as 3 or 0-{classes - 1}, got {text!r}")
    return found
