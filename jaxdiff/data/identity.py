"""Which examples a data set has, in a few words: so that a run does not go on with others unnoticed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdiff.data.examples import Examples


def identity_of(examples: Examples) -> dict[str, Any]:
    """As data.json has it: the shape of an image, the names of the classes, how many examples, and a hash.

    The hash is of what the source names them by, of their labels and of their captions; never of places or times, so
    that a run can move to another machine.
    """
    labels = b"" if examples.labels is None else np.asarray(examples.labels, "<i4").tobytes()
    digest = hashlib.sha256(json.dumps([examples.names, examples.captions]).encode() + labels)
    return {
        "image": list(examples.images.shape[1:]),
        "classes": None if examples.classes is None else list(examples.classes),
        "count": len(examples),
        "hash": digest.hexdigest()[:16],
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is another, in words; of what was not noted before, nothing is known."""
    found = {
        "image": f"an image was {before.get('image')}, is {now['image']}",
        "count": f"the number of images was {before.get('count')}, is now {now['count']}",
        "classes": _classes(set(_named(before)), set(_named(now))),
        "hash": "other files, or in another order: their names, contents or labels differ",
    }
    different = [name for name in found if name in before and before[name] != now[name]]
    return [found[name] for name in different if name != "hash" or different == ["hash"]]


def _classes(old: set[str], new: set[str]) -> str:
    came, went = (", ".join(sorted(some)[:5]) for some in (new - old, old - new))
    said = [f"classes came: {came}"] * bool(came) + [f"classes went: {went}"] * bool(went)
    return "; ".join(said) or "the classes are in another order"


def labels_differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a label means another class than before."""
    return any(old != new for old, new in zip(_named(before), _named(now), strict=False))


def _named(data: Mapping[str, Any]) -> list[str]:
    """The names of the classes, as far as they were noted."""
    classes = data.get("classes")
    return list(map(str, classes)) if isinstance(classes, list) else []
