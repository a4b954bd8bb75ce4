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
    """The classes are the names in their order: 10 is after 9."""
    classes = tuple(sorted(set(labels), key=lambda name: (int(name) if name.isdecimal() else np.inf, name)))
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[label] for label in labels], np.int32), classes


def letters(name: str) -> str:
    """A name without what is easily written in another way."""
    return name.casefold().translate(str.maketrans("", "", " _-"))


def renumbered(labels: np.ndarray, names: Sequence[str] | None, known: Sequence[str], who: str) -> np.ndarray:
    """Labels of the classes `names`, as `who` numbers its own, by name; by number, where one of them has none."""
    if not names or not known or labels.max(initial=0) >= len(names):
        return labels
    numbers, its_numbers = (all(name.isdecimal() for name in each) for each in (names, known))
    if numbers and not its_numbers:
        return np.array([int(name) for name in names], np.int32)[labels]
    place = {letters(name): number for number, name in enumerate(known)}
    found = np.array([known.index(name) if name in known else place.get(letters(name), -1) for name in names], np.int32)
    others = (found < 0).all() and len(names) == len(known)  # other words for them, in the same order it must be
    if (its_numbers and not numbers) or others:
        return labels
    strange = [names[label] for label in np.unique(labels) if found[label] < 0]
    if strange:
        some = ", ".join(known[:5]) + ", ..." * (len(known) > 5)
        raise ValueError(f"{who} knows no class {strange[0]}, but {some}: name the classes alike")
    return found[labels]
