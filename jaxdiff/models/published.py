"""A model in a folder as the Hugging Face Hub has them: one set of parameters, and the config and facts of its run.

All of it is plain data, read as a run is. `hub:owner/name` is such a folder in the cache of the Hub.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.base import files
from jaxdiff.base.logs import quiet
from jaxdiff.base.text import first_line
from jaxdiff.data.hub import reachable
from jaxdiff.interop.files import read_file, write_file
from jaxdiff.models.config import Config, written

WEIGHTS = "model.safetensors"
_READ = ["config.json", "data.json", WEIGHTS, "codec/*.json", "codec/*.safetensors"]  # the rest is for people
_PREFIX = "hub:"


def is_published(folder: Path) -> bool:
    """Whether it was written by `jaxdiff publish`, rather than by training."""
    return (folder / WEIGHTS).is_file()


def write(folder: Path, config: Config, step: int, params: Any, known: dict[str, Any]) -> None:
    """The parameters of a step, the config, and what is known of the data: the shape and the classes of images."""
    tensors = {name: np.asarray(leaf) for name, leaf in _named(params).items()}
    write_file(folder / WEIGHTS, tensors)
    about = {**json.loads(written(config)), "step": step}
    files.write(folder / "config.json", json.dumps(about, indent=1, allow_nan=False) + "\n")
    files.write(folder / "data.json", json.dumps(known) + "\n")


def read(folder: Path, like: Any) -> tuple[int, Any]:
    """The step and the parameters, which must be as the config says."""
    step = files.read_json(folder / "config.json").get("step")
    if type(step) is not int:
        raise ValueError(f"{folder / 'config.json'} is damaged: step must be a whole number, got {step!r:.50}")
    wanted, tensors = _named(like), read_file(folder / WEIGHTS)
    for name in sorted(wanted.keys() | tensors.keys()):
        needs, has = (_kind(each.get(name)) for each in (wanted, tensors))
        if needs != has:
            raise ValueError(f"{folder / WEIGHTS} does not fit its config: {name[:200]} must be {needs}, is {has}")
    device = jax.local_devices()[0]
    leaves = [jax.device_put(np.array(tensors[name]), device) for name in wanted]
    return step, jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(tree: Any) -> dict[str, Any]:
    """Each array of a tree by its path."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in found}


def _kind(array: Any) -> str:
    return "absent" if array is None else f"{array.dtype}{list(array.shape)}"


# --- the Hub ----------------------------------------------------------------------------------------------------------


def is_of_the_hub(name: str | Path) -> bool:
    """Whether it names a model of the Hugging Face Hub, as `hub:owner/name` does."""
    return str(name).startswith(_PREFIX)


def folder_of(name: str | Path) -> Path:
    """The folder; of `hub:owner/name` or `hub:owner/name@revision` that in the Hub's cache, downloaded if it can be."""
    if not is_of_the_hub(name):
        return Path(name)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f"{name} needs the library huggingface_hub: pip install huggingface_hub") from None
    own, _, revision = Path(name).as_posix().removeprefix(_PREFIX).partition("@")
    online = reachable()
    try:
        with quiet("huggingface_hub"):
            found = snapshot_download(own, revision=revision or None, allow_patterns=_READ, local_files_only=not online)
    except Exception as error:  # of many classes
        raise ValueError(_why(error, str(name), online)) from None
    return Path(found)


def _why(error: Exception, name: str, online: bool) -> str:
    """Why there is no such model, in a line."""
    kind = type(error).__name__
    if kind == "HFValidationError":
        return f"{name} must be hub:owner/name, or hub:owner/name@revision"
    if kind == "GatedRepoError":
        return f"{name} is gated: ask for access on its page, then `hf auth login`"
    if kind == "RevisionNotFoundError":
        return f"{name} has no such revision: see its commits at https://huggingface.co"
    if kind == "RepositoryNotFoundError":
        return f"{name} is not on the Hub, or is private: see https://huggingface.co, or `hf auth login`"
    if not online:
        return f"{name} is not in the cache of the Hub, which cannot be reached: connect once, or copy $HF_HOME"
    return f"{name} cannot be downloaded: {first_line(error)}"
