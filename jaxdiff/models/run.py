"""A run: a config in a folder, and all that follows from the two; its trained parameters are read here."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import interop
from jaxdiff.base import files
from jaxdiff.base.devices import Devices
from jaxdiff.base.tree import check, fit
from jaxdiff.data import identity
from jaxdiff.data.examples import Examples, height_and_width
from jaxdiff.data.examples import opened as opened_data
from jaxdiff.models import latents
from jaxdiff.models.autoencoding import Autoencoding
from jaxdiff.models.config import Config, read_config
from jaxdiff.models.grafting import grafted
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.placing import divided
from jaxdiff.training.state import State

_AGAIN = "the command that trained this run writes it again"


class Run:
    """`code` are the modules, besides jaxdiff's, whose classes the configs of this run and its codec's may name."""

    def __init__(self, config: Config, folder: Path, code: Sequence[ModuleType] = ()):
        self.config, self.folder, self.code = config, folder, tuple(code)

    @cached_property
    def examples(self) -> Examples:
        return opened_data(self.config.data)

    @cached_property
    def held_out(self) -> Examples:
        return self.examples if self.config.held_out is None else opened_data(self.config.held_out)

    @cached_property
    def codec(self) -> Any:
        """Of a latent model: kept in the folder, so that the run needs no other."""
        if self.config.codec is None:
            return None
        own = self.folder / "codec"
        if not own.is_dir():
            raise ValueError(f"{self.folder} has no codec, the autoencoder of its latents: {_AGAIN}")
        return interop.read_codec(own)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what the network sees."""
        if self.codec is None:
            return self.image
        return tuple(jax.eval_shape(self.codec.encode, jax.ShapeDtypeStruct(self.image, jnp.float32)).shape)

    @property
    def image(self) -> tuple[int, ...]:
        """The shape of an image, known without the data."""
        return self._known[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean."""
        return self._known[1]

    @cached_property
    def _known(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The shape of an image and the names of classes."""
        path = self.folder / "data.json"
        if not path.exists():
            raise ValueError(f"{self.folder} has no data.json, which says how large its images are: {_AGAIN}")
        known = files.read_json(path)
        image, classes = known.get("image"), known.get("classes") or []
        try:
            shape = fit(tuple[int, int, int], check(image), "image")
            return (*height_and_width(shape[:2]), shape[2]), fit(tuple[str, ...], check(classes), "classes")
        except ValueError as error:
            raise ValueError(f"{path} is damaged, {error}: {_AGAIN}") from None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Which examples the data have."""
        return identity.identity_of(self.examples)

    def fields(self) -> dict[str, Any]:
        """What a batch holds."""
        own = self.config.system.fields(self.examples)
        if not self.config.encoded_once:
            return {"image": self.examples.images, **own}
        kept = self.folder / f"latents-{self.identity['hash']}.npy"
        return {"moments": latents.moments_of(self.codec, self.examples, kept, self.config.augment.flip), **own}

    @cached_property
    def example_shapes(self) -> dict[str, Any]:
        """Of one row of a batch, with nothing decoded or encoded."""
        own = self.config.system.fields(self.examples)
        shapes = {name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for name, leaf in own.items()}
        image = tuple(self.examples.images.shape[1:])
        if not self.config.encoded_once:
            return {"image": jax.ShapeDtypeStruct(image, jnp.uint8), **shapes}
        of_one = partial(latents.moments, flip=self.config.augment.flip)
        return {"moments": jax.eval_shape(of_one, self.codec, jax.ShapeDtypeStruct(image, jnp.float32)), **shapes}

    @cached_property
    def state_shapes(self) -> State:
        return jax.eval_shape(partial(self._start, self.shape), self.seed)

    @property
    def seed(self) -> np.uint32:
        """As a compiled program takes it: half of the seeds do not fit the integers that JAX would choose."""
        return np.uint32(self.config.seed)

    def _start(self, shape: tuple[int, ...], seed: Any, given: Any = None) -> State:
        """The first state, from parameters that are given if there are any."""
        key = jax.random.key(seed, impl="threefry2x32")
        params = self.config.system.start(jax.random.fold_in(key, 0), shape)
        if given is not None:
            params = grafted(params, given, str(self.config.start))
        return State.start(params, self.config.training, jax.random.fold_in(key, 1))


def opened(folder: Path, code: Sequence[ModuleType] = ()) -> Run:
    """A run that is there."""
    return Run(read_config(folder, code), folder, code)


Step = int | Literal["best"] | None  # which checkpoint: None is the newest, "best" that of training.keep_best


def trained(run: Run, step: Step = None, average: int | None = 0) -> tuple[int, Any]:
    """The step and the averaged parameters (None: those not averaged) of a run's checkpoint."""
    places = divided(run.state_shapes, Devices())  # all of it may be too large for one
    like = jax.tree.map(lambda leaf, place: leaf.update(sharding=place), run.state_shapes, places)
    with reading(run, step) as checkpoints:
        state = checkpoints.restore(like, None if step == "best" else step)
    params = state.params if average is None else state.ema[average]
    return int(state.step), jax.device_put(params, jax.local_devices()[0])


@contextlib.contextmanager
def reading(run: Run, step: Step = None) -> Iterator[Checkpoints]:
    """A run's checkpoints, which another process may be adding to."""
    folder = run.folder / ("best" if step == "best" else "checkpoints")
    if step == "best" and not folder.is_dir():
        raise ValueError(f"{run.folder} has no best checkpoint: training.keep_best=held_out_loss keeps one")
    if not folder.is_dir():
        raise ValueError(f"{run.folder} has no checkpoint yet: jaxdiff train makes one")
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        yield checkpoints


def codec_of(source: Path, examples: Examples, code: Sequence[ModuleType] = ()) -> Any:
    """From a run that trained an autoencoder, measured on these images, or from a folder of diffusers."""
    if not source.is_dir():
        raise ValueError(
            f"the autoencoder {source} is not there: train it, jaxdiff train --config {source.name}, "
            f"or name another run or a diffusers folder as system.codec"
        )
    if not (source / "checkpoints").is_dir():
        return interop.read_codec(source)
    run = opened(source, code)
    if not isinstance(run.config.system, Autoencoding):
        raise ValueError(f"{source} did not train an autoencoder, but {type(run.config.system).__name__}")
    _, params = trained(run)
    return latents.measured(run.config.system.network, {"params": params}, examples)
