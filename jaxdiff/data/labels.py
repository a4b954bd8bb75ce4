"""Labels that are written as words: numbers of them, and what these mean."""

from collections.abc import Sequence

import numpy as np


def numbered(labels: Sequence[str], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Whole numbers from 0 stand for themselves if all are such; else see `by_name`. `where` is for messages."""
    if not all(label.isdecimal() for label in labels):
        return by_name(labels)
    largest = max(map(int, labels))
    if largest >= 2**16:
        raise ValueError(f"{where} has a label {largest}: a label must be below 65536, or a name")
    return np.array(labels, np.int32), tuple(map(str, range(largest + 1)))


def by_name(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The classes are the names in their order."""
    classes = tuple(sorted(set(labels)))
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[label] for label in labels], np.int32), classes


def renumbered(labels: np.ndarray, names: Sequence[str] | None, known: Sequence[str], who: str) -> np.ndarray:
    """Labels of the classes `names`, as `who` numbers its own: by name, unless those of either are numbers."""
    if not names or all(name.isdecimal() for name in known):
        return labels
    if all(name.isdecimal() for name in names):
        return np.array([int(name) for name in names], np.int32)[labels]
    strange = [names[label] for label in np.unique(labels) if names[label] not in known]
    if strange:
        some = ", ".join(known[:5]) + ", ..." * (len(known) > 5)
        raise ValueError(f"{who} knows no class {strange[0]}, but {some}: name the classes alike")
    return np.array([known.index(name) if name in known else -1 for name in names], np.int32)[labels]
