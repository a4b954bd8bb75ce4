"""A trained diffusion model to sample from, rebuilt from the plain data beside its checkpoint."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import averages, interop, sampling
from jaxdiff.averages import PowerEma
from jaxdiff.checks import require
from jaxdiff.conditions import Labels, Prompts
from jaxdiff.denoise import Denoiser
from jaxdiff.experiment import Experiment, opened, reading, trained
from jaxdiff.grids import Grid
from jaxdiff.nets.autoencoder import Codec
from jaxdiff.process import Process
from jaxdiff.samplers import DDIM, Sampler
from jaxdiff.sampling import Progress
from jaxdiff.systems import Classification, Diffusion, decoded, in_parts


class Given(NamedTuple):
    """What the denoiser of an edit is told of an image: what the edit gives, and the condition if there is one."""

    by_edit: Any
    condition: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Edit:
    """What images are made from beside a seed: see `jaxdiff.editing`. The rows of its arrays take turns."""

    images: np.ndarray | None = None  # to start from, made as noisy as `strength` of the steps make them
    strength: float = 1.0
    noise: np.ndarray | None = None  # to start from, in place of the seed's
    given: Any = None  # what `transform` tells the denoiser
    transform: Callable[[Denoiser, Process], Denoiser] | None = None  # to one of (x_t, t, Given)
    exact: bool = False  # `transform` comes after the threshold, which so leaves alone what it puts in
    kept: tuple[np.ndarray, np.ndarray] | None = None  # images and masks: what stays where these are 0
    shown: np.ndarray | None = None  # what was given, to be looked at

    def __len__(self) -> int:
        """How many given images there are."""
        return len(next((leaf for leaf in jax.tree.leaves((self.images, self.noise, self.given))), ((),)))

    def repeated(self, times: int) -> "Edit":
        """Each so many times in succession, to be told as many things."""
        return self._each(lambda leaf: np.repeat(leaf, times, 0))

    def rolled(self, first: int) -> "Edit":
        """With the first row for image `first`."""
        return self._each(lambda leaf: np.roll(leaf, first % len(self), 0))

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Edit":
        names = ("images", "noise", "given", "shown", "kept")
        return replace(self, **{name: jax.tree.map(change, getattr(self, name)) for name in names})

    def pasted(self, numbers: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Images with the pixels in them that are to stay: an autoencoder may have changed them."""
        if self.kept is None:
            return images
        known, mask = (_turns(numbers, rows) for rows in self.kept)
        return np.where(mask > 0, images, known)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier of noisy images, to guide a model."""

    system: Classification
    params: Any
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    name: str = "the classifier"


@dataclass(frozen=True, eq=False)
class Model:
    """A diffusion model and its parameters. Images are floats in [-1, 1], [n, height, width, channels]."""

    system: Diffusion
    params: Any
    shape: tuple[int, ...]  # of what the network sees
    codec: Codec | None = None
    classes: tuple[str, ...] = ()
    name: str = "a model"

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        if self.codec is None:
            return self.shape
        return tuple(jax.eval_shape(self.codec.decode, jax.ShapeDtypeStruct(self.shape, jnp.float32)).shape)

    def checked(self, images: np.ndarray) -> np.ndarray:
        """Images in float32, if they are of the kind that it draws."""
        images = np.asarray(images)
        if images.dtype.kind != "f" or images.shape[1:] != self.image_shape or not len(images):
            wanted = f"floats in [-1, 1], of shape (n, {', '.join(map(str, self.image_shape))})"
            raise ValueError(f"{self.name} takes images as {wanted}, got {images.dtype} {images.shape}")
        return images.astype(np.float32, copy=False)

    def encoded(self, images: np.ndarray) -> np.ndarray:
        """Images as the network sees them: the mean of their latents where it is a latent model."""
        images = self.checked(images)
        return images if self.codec is None else in_parts(_encode, self.codec, images)

    def decoded(self, x: np.ndarray) -> np.ndarray:
        """The inverse, as nearly as the autoencoder goes."""
        return decoded(self.codec, x)

    # --- what it is told --------------------------------------------------------------------------------------------

    def choices(
        self,
        labels: int | str | Sequence[int | str] | None = None,
        prompts: str | Sequence[str] | None = None,
        classifier: Classifier | None = None,
    ) -> tuple[Any, list[str]]:
        """Conditions, one for each label or prompt, and what each says; by default all there are; none: (None, [])."""
        condition, names = self.knows(classifier)
        if labels is not None and not isinstance(condition, Labels):
            raise ValueError(f"{self.name} knows no labels: leave out --labels")
        if prompts is not None and not isinstance(condition, Prompts):
            raise ValueError(f"{self.name} knows no prompts: leave out --prompt")
        if labels is not None:
            each = _several("label", labels, (int, str, np.integer))
            return condition.named(np.array([self._label(label, condition.classes, names) for label in each]), names)
        if prompts is not None:
            return condition.told(_several("prompt", prompts, str))
        return (None, []) if condition is None else condition.choices(names)

    def knows(self, classifier: Classifier | None = None) -> tuple[Any, tuple[str, ...]]:
        """The kind of condition that it takes, or else that guides it, and what classes are called."""
        if self.system.condition is None and classifier is not None:
            return Labels(classifier.system.network.classes), classifier.classes
        return self.system.condition, self.classes

    def _label(self, label: int | str, classes: int, names: tuple[str, ...]) -> int:
        numbers = {name: number for number, name in enumerate(names)}
        found = numbers.get(label, -1) if isinstance(label, str) else int(label)
        if not 0 <= found < classes:
            some = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
            by_name = f", or {some}" if any(not name.isdecimal() for name in names) else ""
            raise ValueError(f"{self.name} knows the labels 0 to {classes - 1}{by_name}; got {label}")
        return found

    def null(self, count: int) -> Any:
        """The condition that says nothing, so many times."""
        condition = self.system.condition
        if condition is not None and not condition.drop:
            raise ValueError(f"{self.name} was never trained without its condition: say what the images are, by --was")
        return None if condition is None else np.repeat(np.asarray(condition.null)[None], count, 0)

    # --- sampling ---------------------------------------------------------------------------------------------------

    def denoiser(
        self, guidance_scale: float | None = None, classifier: Classifier | None = None, **guidance: Any
    ) -> Denoiser:
        """Guided by what the model is told, or by a classifier; `guidance` as `Diffusion.denoiser` has it."""
        log_prob = None if classifier is None else self._checked(classifier).log_prob_of(classifier.params)
        return self.system.denoiser(self.params, guidance_scale, log_prob=log_prob, **guidance)

    def _checked(self, classifier: Classifier) -> Classification:
        mine, its = self.system, classifier.system
        if classifier.shape != self.shape:
            raise ValueError(f"{classifier.name} was trained for {classifier.shape}, {self.name} draws {self.shape}")
        if its.process != mine.process:
            raise ValueError(f"{classifier.name} was trained on {its.process}, {self.name} on {mine.process}")
        if mine.condition is not None and not isinstance(mine.condition, Labels):
            raise ValueError(f"{self.name} is told prompts, {classifier.name} labels: they cannot guide together")
        if mine.condition is not None and mine.condition.classes != its.network.classes:
            many = mine.condition.classes, its.network.classes
            raise ValueError(f"{self.name} knows {many[0]} classes, {classifier.name} {many[1]}: they must be equal")
        return its

    def times(self, steps: int | None = None, grid: Grid | None = None, strength: float = 1.0) -> Any:
        """The grid, or the last `strength` of its steps."""
        chosen = self.system if grid is None else replace(self.system, grid=grid)
        times = chosen.times_of(steps)
        if not 0 < strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, got {strength}")
        if strength < 1 and len(times) == 2:
            raise ValueError(f"strength {strength} of a single step is all of it: take more steps, or another sampler")
        return times[-1 - max(round(strength * (len(times) - 1)), 1) :]

    def batches(
        self,
        indices: int | Sequence[int] = 16,
        labels: int | str | Sequence[int | str] | None = None,
        prompts: str | Sequence[str] | None = None,
        *,
        edit: Edit | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
        grid: Grid | None = None,
        denoiser: Denoiser | None = None,
        batch_size: int | None = None,
        callback: Callable[[Progress], None] | None = None,
        every: int | None = None,
        classifier: Classifier | None = None,
        **guidance: Any,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Samples batch by batch: (indices, images).

        Labels or prompts take turns: image i is told the (i mod k)-th of k. `denoiser` takes the place of
        `self.denoiser(...)`, which takes `guidance`. Otherwise as `jaxdiff.sampling.batches`.
        """
        numbers: Any = sampling.checked_indices(indices)
        choices, texts = self.choices(labels, prompts, classifier)
        condition = None if choices is None else choices[numbers % len(texts)]
        edit = Edit() if edit is None else edit
        threshold = guidance.pop("threshold", None)
        if denoiser is None:
            model = self.denoiser(classifier=classifier, threshold=0.0, **guidance)
        elif guidance:
            raise ValueError(f"a denoiser of your own is guided as it is: leave out {', '.join(guidance)}")
        else:
            model, threshold = denoiser, threshold or 0.0
        if edit.exact:
            model = self.system.cut_off(model, threshold)
        if edit.transform is not None:
            given = jax.tree.map(partial(_turns, numbers), edit.given)
            condition = Given(given, () if condition is None else (condition,))
            model = edit.transform(model, self.system.process)
        if not edit.exact:
            model = self.system.cut_off(model, threshold)
        drawn = sampling.batches(
            model,
            self.system.process,
            self.system.sampler if sampler is None else sampler,
            self.times(steps, grid, edit.strength),
            shape=self.shape,
            indices=numbers,
            seed=seed,
            conditions=condition,
            images=None if edit.images is None else _turns(numbers, edit.images),
            noise=None if edit.noise is None else _turns(numbers, edit.noise),
            batch_size=batch_size,
            callback=callback,
            every=every,
        )
        return ((chosen, edit.pasted(chosen, self.decoded(x))) for chosen, x in drawn)

    def sample(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """All images in one array. Otherwise as `batches`."""
        return np.concatenate([images for _, images in self.batches(*args, **kwargs)])


def _several(what: str, given: Any, single: Any) -> Sequence[Any]:
    """At least one of them, of one or many."""
    each = [given] if isinstance(given, single) else given
    require(len(each) > 0, f"at least one {what}", given)
    return each


def _turns(numbers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A row for each number; of one row no copies are made."""
    if len(rows) == 1:
        return np.broadcast_to(rows, (len(numbers), *rows.shape[1:]))
    return rows[numbers % len(rows)]


@jax.jit
def _encode(codec: Codec, images: jax.Array) -> jax.Array:
    return codec.encode(images)


# --- from a folder of diffusers ---------------------------------------------------------------------------------------


def load_diffusers(folder: str | Path) -> Model:
    """The model of a pipeline that diffusers saved, or of a network alone: see `interop.read_pipeline`."""
    read = interop.read_pipeline(folder)
    system = Diffusion(
        network=read.network,
        process=read.process,
        prediction=read.prediction,
        told=read.told,
        condition=None if read.labels is None else Labels(read.labels, drop=0.1 if read.null else 0.0),
        codec=None if read.codec is None else str(folder),
        sampler=DDIM(),
        steps=min(50, getattr(read.process, "steps", 50)),
        clip=read.clip,
        shown=16,
    )
    return Model(system, read.params, read.shape, read.codec, read.classes or (), str(folder))


# --- from a run -----------------------------------------------------------------------------------------------------


def load(folder: str | Path, step: int | None = None, average: int | float | None = 0) -> Model:
    """The model that a run trained: from its newest checkpoint, or from that of a step.

    `average` is which of the config's averages, by number; a width below 0.28 puts together that average from the
    power averages of all checkpoints (Karras et al. 2024); None takes the parameters as they are.
    """
    run = opened(Path(folder))
    if not isinstance(run.config.system, Diffusion):
        what = type(run.config.system).__name__
        raise ValueError(f"{folder} trained {what}, which draws no images: give another --workdir")
    step, params = parameters_of(run, step, average)
    kind = "" if average == 0 else ", its parameters" if average is None else f", average {average}"
    return Model(run.config.system, params, run.shape, run.codec, classes_of(run), f"{folder} at step {step}{kind}")


def load_classifier(folder: str | Path, step: int | None = None) -> Classifier:
    """The classifier that a run trained."""
    run = opened(Path(folder))
    if not isinstance(run.config.system, Classification):
        raise ValueError(f"{folder} trained {type(run.config.system).__name__}, no classifier: give another")
    _, params = trained(run, step)
    return Classifier(run.config.system, params, run.shape, classes_of(run), str(folder))


def parameters_of(run: Experiment, step: int | None, average: int | float | None) -> tuple[int, Any]:
    """The step they are of, and the parameters."""
    kinds = run.config.training.averages
    if isinstance(average, float):
        return _profile(run, step, average)
    if average is not None and not 0 <= average < len(kinds):
        listed = ", ".join(f"{i} {kind}" for i, kind in enumerate(kinds))
        raise ValueError(f"{run.folder} has the averages {listed}; got {average}")
    return trained(run, step, average)


def _profile(run: Experiment, step: int | None, width: float) -> tuple[int, Any]:
    """An average of any width, from all checkpoints up to a step."""
    powers = [(i, kind.width) for i, kind in enumerate(run.config.training.averages) if isinstance(kind, PowerEma)]
    if not powers:
        raise ValueError(f"an average of width {width} needs PowerEma among training.averages, {run.folder} has none")
    if not 0 < width < 0.28:
        raise ValueError(f"the width of an average must be above 0 and below 0.28, got {width}")
    with reading(run) as checkpoints:
        steps, step = checkpoints.steps, checkpoints.known(step)
    snapshots = [(known, float(at), trained(run, at, i)[1]) for at in steps if at <= step for i, known in powers]
    return step, averages.profile(width, step, snapshots)


def classes_of(run: Experiment) -> tuple[str, ...]:
    path = run.folder / "data.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["classes"] or ()) if path.exists() else ()
