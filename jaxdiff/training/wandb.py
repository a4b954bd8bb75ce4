"""Weights & Biases, for those who ask for it: training.wandb="my project"."""

import importlib
import secrets
from pathlib import Path
from typing import Any

from jaxdiff.base import files
from jaxdiff.base.text import first_line


def require_wandb() -> Any:
    """The module, or one line that says how to get it."""
    try:
        return importlib.import_module("wandb")
    except ImportError:
        raise ValueError("training.wandb needs Weights & Biases: pip install wandb, or leave it out") from None


def begin(project: str, folder: Path, config: Any) -> Any:
    """The module, with the run of this folder over there: a new one, or the one that is resumed."""
    wandb, known = require_wandb(), folder / "wandb_id"
    if not known.exists():
        files.write(known, secrets.token_hex(4))
    name = known.read_text(encoding="utf-8")
    try:
        wandb.init(project=project, name=folder.name, id=name, dir=folder, config=config, resume="allow")
    except Exception as error:  # of wandb's own classes
        said = f"Weights & Biases cannot begin ({type(error).__name__}: {first_line(error)})"
        raise ValueError(f"{said}: wandb login, or WANDB_MODE=offline, or leave training.wandb out") from None
    return wandb  # what is logged to the module goes to that run; a run has no Image
