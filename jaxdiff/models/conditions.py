"""Conditions: the label of an image, or a prompt in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.data import Examples
from jaxdiff.nets.text import Bytes, Prompted, Words


class Condition(Protocol):
    """What a model is told of an image: which fields of an example it is made of, and what stands for none."""

    @property
    def drop(self) -> float:
        """How often it is replaced by the null condition in training."""

    @property
    def null(self) -> Any:
        """The condition that says nothing."""

    def fields(self, examples: Examples) -> dict[str, np.ndarray]:
        """What a batch must hold for it: arrays with one row an example."""

    def pick(self, key: Array, example: dict[str, Array]) -> Any:
        """The condition of one example."""

    def choices(self, names: Sequence[str] = ()) -> tuple[Any, list[str]]:
        """Conditions for a picture, and what each says; `names` are those of classes."""


@dataclass(frozen=True)
class Labels:
    """The class of the image, one of 0 .. classes - 1; `classes` stands for none."""

    classes: int = 10
    drop: float = 0.0  # how often the label is left out in training, as guidance needs it

    def __post_init__(self) -> None:
        require(0 < self.classes <= 2**20, "classes from 1 to 2^20", self)
        require(0 <= self.drop < 1, "0 <= drop < 1", self)

    @property
    def null(self) -> np.ndarray:
        return np.int32(self.classes)  # type: ignore[return-value]

    def fields(self, examples: Examples) -> dict[str, np.ndarray]:
        return {"label": labels_of(examples, self.classes)}

    def pick(self, key: Array, example: dict[str, Array]) -> Any:
        return example["label"]

    def choices(self, names: Sequence[str] = ()) -> tuple[Any, list[str]]:
        return self.named(np.arange(self.classes), names)

    def named(self, labels: np.ndarray, names: Sequence[str]) -> tuple[Any, list[str]]:
        """Labels, and their names where they have any."""
        return labels.astype(np.int32), [names[label] if label < len(names) else str(label) for label in labels]


@dataclass(frozen=True)
class Prompts:
    """A text: the captions of the images, or their class put into a template, another one each time."""

    tokens: Words | Bytes  # how a text becomes numbers
    templates: tuple[str, ...] = ("{}",)  # sentences, of which one takes the name of the class
    drop: float = 0.0  # how often the prompt is left out in training, as guidance needs it
    shown: tuple[str, ...] = ()  # prompts for the pictures

    def __post_init__(self) -> None:
        require(0 <= self.drop < 1, "0 <= drop < 1", self)
        fits = bool(self.templates) and all("{}" in template for template in self.templates)
        require(fits, "templates with {} in them, where the class goes", self.templates)

    @property
    def null(self) -> np.ndarray:
        return self.tokens("")

    def fields(self, examples: Examples) -> dict[str, np.ndarray]:
        if examples.captions is not None:
            return {"tokens": self._written([examples.captions])}
        classes = examples.classes
        require(classes is not None and examples.labels is not None, "captions or classes in the data", classes)
        texts = [[template.format(name) for name in classes or ()] for template in self.templates]
        return {"tokens": self._written(texts)[examples.labels]}

    def _written(self, texts: Sequence[Sequence[str]]) -> np.ndarray:  # [examples or classes, ways to say it, length]
        small = np.uint16 if self.tokens.count < 2**16 else np.int32
        return np.stack([[self.tokens(text) for text in way] for way in texts], axis=1).astype(small)

    def pick(self, key: Array, example: dict[str, Array]) -> Any:
        tokens = example["tokens"].astype(np.int32)
        return tokens[jax.random.randint(key, (), 0, len(tokens))]

    def choices(self, names: Sequence[str] = ()) -> tuple[Any, list[str]]:
        return self.written(self.shown or ("",))

    def named(self, labels: np.ndarray, names: Sequence[str]) -> tuple[Any, list[str]]:
        """Classes in the words of the first template."""
        return self.written([self.templates[0].format(names[label]) for label in labels])

    def written(self, texts: Sequence[str]) -> tuple[Any, list[str]]:
        return np.stack([self.tokens(text) for text in texts]), list(texts)


def for_condition(network: nn.Module, condition: Any) -> nn.Module:
    """The network, where a text encoder without a count of tokens gets that of the prompts."""
    if not isinstance(network, Prompted) or getattr(network.encoder, "count", 0) is not None:
        return network
    require(isinstance(condition, Prompts), "a condition of Prompts for a TextEncoder without count", condition)
    return network.clone(encoder=network.encoder.clone(count=condition.tokens.count))


def labels_of(examples: Examples, classes: int) -> np.ndarray:
    """The labels of a dataset, if the model knows them all."""
    if examples.labels is None:
        raise ValueError(
            "the model is conditional on labels, and the data has none: use data with labels, or no condition"
        )
    most = int(examples.labels.max())
    if most >= classes:
        raise ValueError(f"the data has labels up to {most}, {_knows(classes, most + 1)}")
    return examples.labels


def check_each_is_seen(system: Any, names: Sequence[str]) -> None:
    """Refuses a model that knows more labels than the data to train it on: it would draw them all the same."""
    knows = getattr(system, "condition", None) or getattr(system, "network", None)
    classes = getattr(knows, "classes", None)
    if names and isinstance(classes, int) and len(names) < classes:
        some = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        raise ValueError(f"the data has the classes {some}, {_knows(classes, len(names))}")


def _knows(classes: int, right: int) -> str:
    where = "system.network.classes, and system.condition.classes where there is a condition,"
    return f"the model knows classes={classes}: {where} must be {right}"
