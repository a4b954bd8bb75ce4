"""What is on the disk: which folder, its JSON, its tensors; and a new folder, all of it or nothing."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxdiff.base.files import new_folder, read_json, regular

Tensors = dict[str, np.ndarray]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_INDEX = f"{WEIGHTS}.index.json"
_LARGEST_HEADER, _ROWS = 2**22, ("shape", "data_offsets")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # until 2023


def of_one_network(folder: Path) -> Path:
    """The folder itself, or the one within it where it is that of a pipeline."""
    if not folder.is_dir():
        what = "is a file: name the folder it is in" if folder.exists() else "is not there, and nothing is downloaded"
        raise FileNotFoundError(f"{folder} {what}")
    if (folder / CONFIG).is_file():
        return folder
    parts = [folder / name for name in ("unet", "vae", "transformer") if (folder / name / CONFIG).is_file()]
    if len(parts) > 1:
        raise ValueError(f"{folder} holds several networks: name one of {', '.join(map(str, parts))}")
    if not parts:
        raise FileNotFoundError(f"{folder} has no {CONFIG}, nor a folder unet, vae or transformer that has one")
    return parts[0]


def read_tensors(folder: Path) -> Tensors:
    """From one file, or from several that an index lists; by the names that PyTorch has for them now."""
    files = {WEIGHTS}
    if not (folder / WEIGHTS).is_file() and (folder / _INDEX).is_file():
        listed = read_json(folder / _INDEX).get("weight_map")
        files = set(map(str, listed.values())) if isinstance(listed, dict) else set()
        if not files or any(Path(name).name != name for name in files):
            raise ValueError(f"{folder / _INDEX} is damaged: its weight_map must name files in the same folder")
    tensors: Tensors = {}
    for name in sorted(files):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}{_instead(folder)}")
        tensors |= read_file(folder / name)
    return {_present(name): tensor for name, tensor in tensors.items()}


def read_file(path: Path) -> Tensors:
    """The tensors of one file."""
    try:
        _check_header(path)
        return load_file(path)
    # the last three: of dtypes without a name
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error!s:.200}") from None


def _check_header(path: Path) -> None:
    """Refuses what safetensors would take minutes or all memory to refuse."""
    with open(path, "rb", opener=regular) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _LARGEST_HEADER:
            raise ValueError(f"its header has {size / 1e6:.1f} MB, the largest read is {_LARGEST_HEADER / 1e6:.0f} MB")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise ValueError(f"its header is no object, but {header!r:.50}")
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    if not all(isinstance(entry, dict) and all(map(_is_row, map(entry.get, _ROWS))) for entry in tensors):
        raise ValueError("each tensor needs a row of whole numbers as shape and as data_offsets")


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(type(number) is int for number in value)


def write_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """All tensors into one file, marked as PyTorch's: its readers ask for that."""
    save_file({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, path, {"format": "pt"})


def _instead(folder: Path) -> str:
    """What is there instead of the tensors."""
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if pickles:
        return f", only {', '.join(pickles)}: a pickle can run code and is not read, save_pretrained makes safetensors"
    return f", only {', '.join(others)}" if others else ""


def _present(name: str) -> str:
    return re.sub(r"\.(query|key|value|proj_attn)(?=\.(weight|bias)$)", lambda old: f".{_OLD_ATTENTION[old[1]]}", name)


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """A new folder of diffusers."""
    with new_folder(folder) as new:
        write_file(new / WEIGHTS, tensors)
        (new / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
