"""What judges images, by what a user says: features of others' classifiers, of a run of one's own, or any function."""

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.base.calls import construct
from jaxdiff.base.text import first_line
from jaxdiff.data.augment import plain
from jaxdiff.evaluation.features import INCEPTION, LITE0, Features
from jaxdiff.evaluation.pretrained import inception_features, lite0_features
from jaxdiff.models.loading import load_classifier
from jaxdiff.models.model import Classifier
from jaxdiff.training.checkpoint import fingerprint


def features_of(text: str, weights: Path | None = None, code: Sequence[ModuleType] = ()) -> Features:
    """`lite0`, `inception`, the folder of a run that trained a classifier, or `file.py:function`."""
    if weights is not None and text != INCEPTION:
        raise ValueError(f"--weights are those of --features {INCEPTION}, not of {text}")
    if text == INCEPTION:
        return inception_features(weights)
    if text == LITE0:
        return lite0_features()
    if Path(text).is_dir():
        return classifier_features(load_classifier(text, code=code))
    if ".py:" in text:
        return own_features(text)
    raise ValueError(f"--features must be {LITE0}, {INCEPTION}, the run of a classifier, or file.py:name, got {text}")


def own_features(text: str) -> Features:
    """A function of uint8 images [n, height, width, channels] that gives rows [n, d]."""
    function = construct(text, {}, "--features")
    if not isinstance(function, FunctionType):
        raise ValueError(f"--features {text} must be a function of images, [n, height, width, channels] -> [n, d]")
    source = Path(inspect.getfile(function)).read_bytes()  # all of it: the function may call others

    def compute(_: Any, images: np.ndarray) -> tuple[Any, None]:
        try:
            return function(images), None
        except Exception as error:  # anyone's code
            raise ValueError(f"--features {text} failed, {type(error).__name__}: {first_line(error)}") from error

    return Features(text, hashlib.sha256(source).hexdigest()[:16], compute, compiled=False)


def classifier_features(classifier: Classifier) -> Features:
    """What the classifier's last layer is given, of images without noise; or the logits, if it does not say."""
    system, shape = classifier.system, classifier.shape
    name = classifier.name
    t = jnp.asarray(system.process.t_min)

    def one(params: Any, image: Array) -> tuple[Array, Array]:
        c_in = system.input_scale(system.process.alpha(t), system.process.sigma(t))
        inputs = c_in * plain(image), system.c_noise(system.process, t)
        logits, kept = system.network.apply({"params": params}, *inputs, mutable=["intermediates"])
        pooled = kept.get("intermediates", {}).get("pooled", [logits])[0]
        return jnp.ravel(pooled), logits

    def compute(params: Any, images: Array) -> tuple[Array, Array]:
        if images.shape[1:] != shape:
            raise ValueError(f"{name} was trained for {shape}, the images are {images.shape[1:]}")
        found: tuple[Array, Array] = jax.vmap(one, (None, 0))(params, images)
        return found

    digest = hashlib.sha256(np.asarray(fingerprint(classifier.params)).tobytes()).hexdigest()[:16]
    seen = jax.eval_shape(compute, classifier.params, jax.ShapeDtypeStruct((1, *shape), jnp.uint8))
    classes = classifier.classes or tuple(map(str, range(seen[1].shape[1])))
    return Features(name, digest, compute, classifier.params, count=seen[0].shape[1], classes=classes)
