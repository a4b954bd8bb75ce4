"""The parts of a data set: images that are trained on, and those that are held out."""

import dataclasses
from pathlib import PurePath
from typing import Any

from jaxdiff.data.digits import Digits
from jaxdiff.data.folder import HELD_OUT, TRAINED_ON, Folder, has_files


def split_of(source: Any, split: str) -> Any:
    """The same source with another split; a ValueError says why it has none."""
    if isinstance(source, Folder):
        return dataclasses.replace(source, path=_beside(PurePath(source.path), split))
    if isinstance(source, Digits) and source.split == "all":
        raise ValueError(f"{source} trains on all of its images: data.split=train holds some out")
    if not dataclasses.is_dataclass(source) or not hasattr(source, "split"):
        raise ValueError(f"{source} has no other split")
    return dataclasses.replace(source, split=split)  # type: ignore[type-var]


def _beside(path: PurePath, split: str) -> str:
    """The folder of a split, where this one is that of another: train and val lie beside each other."""
    kinds = [kind for kind in (TRAINED_ON, HELD_OUT) if split in kind]
    if path.name.lower() not in TRAINED_ON | HELD_OUT or not kinds:
        raise ValueError(f"{path} is no folder of a split, such as images/train beside images/{split}")
    for name in (split, *sorted(kinds[0])):
        if has_files(str(path.with_name(name))):
            return str(path.with_name(name))
    raise ValueError(f"there is no {split} beside {path}")
