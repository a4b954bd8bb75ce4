"""Image diffusion in JAX, exact and small.

    model = jaxdiff.train("mnist")  # later: jaxdiff.load("runs/mnist")
    jaxdiff.show(model.sample(16, labels=3, guidance_scale=3.0))

`core` is the mathematics, for one image; `nets` the networks; `data` the images; `training` the training loop; `models`
what is put together of them, and `cli` the commands.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdiff.models.from_python import show as show
    from jaxdiff.models.from_python import train as train
    from jaxdiff.models.loading import load as load
    from jaxdiff.models.loading import load_classifier as load_classifier
    from jaxdiff.models.loading import load_diffusers as load_diffusers

__version__ = "0.4.0"
_PLACES = dict.fromkeys(("load", "load_classifier", "load_diffusers"), "loading")
_PLACES |= dict.fromkeys(("show", "train"), "from_python")
__all__ = ["load", "load_classifier", "load_diffusers", "show", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on demand, so that importing jaxdiff takes no time
        return getattr(importlib.import_module(f"jaxdiff.models.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'jaxdiff' has no attribute {name!r}")
