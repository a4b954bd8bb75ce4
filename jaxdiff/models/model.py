"""A trained diffusion model to sample from, rebuilt from the plain data beside its checkpoint."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxdiff.base import notebook
from jaxdiff.base.checks import check, require
from jaxdiff.base.text import did_you_mean
from jaxdiff.base.words import plural
from jaxdiff.core import sampling
from jaxdiff.core.arguments import checked_indices, checked_sampler
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.flow_maps import ConsistencyModel, End
from jaxdiff.core.grids import Grid, Times
from jaxdiff.core.process import Process
from jaxdiff.core.samplers import Sampler
from jaxdiff.core.samplers.base import FlowMap
from jaxdiff.core.sampling import Progress
from jaxdiff.data.labels import letters
from jaxdiff.models.classification import Classification, LogProb
from jaxdiff.models.conditions import Labels, Prompts
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.edit import Edit, EditCondition, turns
from jaxdiff.models.latents import decoded, encoded
from jaxdiff.models.likelihood import Likelihood
from jaxdiff.nets.autoencoder import Codec
from jaxdiff.training.state import parameters


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

    def __repr__(self) -> str:
        """What it is, in a few lines, without its numbers."""
        system, kind = self.system, "latent diffusion" if self.codec is not None else "diffusion"
        told = [f"{type(system.network).__name__} with {parameters(self.params):,} parameters, {system.process}"]
        if isinstance(system.condition, Labels):
            told += [f"labels {', '.join(self.choices()[1][:20])}{', ...' * (system.condition.classes > 20)}"]
        elif system.condition is not None:
            told += ["prompts" if isinstance(system.condition, Prompts) else str(system.condition)]
        scale = f", guidance_scale={system.guidance_scale:g}" * (system.condition is not None)
        told += [f"sampled by {system.sampler}, {plural(system.steps, 'step')}{scale}"]
        return "\n    ".join([f"{self.name}: {kind}, images of {'x'.join(map(str, self.image_shape))}", *told])

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
        return encoded(self.codec, images)

    def decoded(self, x: np.ndarray) -> np.ndarray:
        """The inverse, as nearly as the autoencoder goes."""
        return decoded(self.codec, x)

    # --- conditions -------------------------------------------------------------------------------------------------

    def choices(
        self,
        labels: int | str | Sequence[int | str] | None = None,
        prompts: str | Sequence[str] | None = None,
        classifier: Classifier | None = None,
    ) -> tuple[Any, list[str]]:
        """Conditions, one for each label or prompt, and what each says; by default all there are; none: (None, [])."""
        condition, names = self.knows(classifier)
        check(labels is None or prompts is None, "labels and prompts contradict each other: give one of them")
        if labels is not None:
            classes = self.classes_of(labels, classifier)  # refuses a model that knows none
            return condition.named(classes, names)
        if prompts is not None and not isinstance(condition, Prompts):
            raise ValueError(f"{self.name} knows no prompts: leave out --prompt")
        if prompts is not None:
            each = _several("prompt", prompts)
            require(all(isinstance(prompt, str) for prompt in each), "prompts that are text", prompts)
            return condition.written(each)
        return (None, []) if condition is None else condition.choices(names)

    def classes_of(self, labels: int | str | Sequence[int | str], classifier: Classifier | None = None) -> np.ndarray:
        """The numbers of classes; of a model of prompts those of which it knows the names."""
        condition, names = self.knows(classifier)
        classes = condition.classes if isinstance(condition, Labels) else len(names) * isinstance(condition, Prompts)
        if not classes:
            raise ValueError(f"{self.name} knows no labels: leave out --labels")
        return np.array([self._label(label, classes, names) for label in _several("label", labels)])

    def conditions_of(
        self, numbers: np.ndarray, labels: Any = None, prompts: Any = None, classifier: Classifier | None = None
    ) -> Any:
        """The condition of each image, where labels or prompts take turns."""
        if prompts is not None:  # thousands, it may be: only those of these images are written
            each = _several("prompt", prompts)
            numbers, prompts = np.arange(len(numbers)), [each[number % len(each)] for number in numbers.tolist()]
        choices, texts = self.choices(labels, prompts, classifier)
        return None if choices is None else choices[numbers % len(texts)]

    def knows(self, classifier: Classifier | None = None) -> tuple[Any, tuple[str, ...]]:
        """The kind of condition that it takes, or else that guides it, and what classes are called."""
        if self.system.condition is None and classifier is not None:
            return Labels(classifier.system.network.classes), classifier.classes
        return self.system.condition, self.classes

    def _label(self, label: int | str, classes: int, names: tuple[str, ...]) -> int:
        found = self._named(label, names) if isinstance(label, str) else _whole(label)
        if not 0 <= found < classes:
            some = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
            by_name = f", or {some}" if any(not name.isdecimal() for name in names) else ""
            near = "" if str(label).isdecimal() else did_you_mean(str(label), names)
            raise ValueError(f"{self.name} knows the labels 0 to {classes - 1}{by_name}; got {label}{near}")
        return found

    def _named(self, label: str, names: tuple[str, ...]) -> int:
        """The class of that name, or of the only one that reads the same: golf ball for golf_ball.

        Where classes have no names, that of the number; -1 if there is none.
        """
        if label in names:
            return names.index(label)
        same = [number for number, name in enumerate(names) if letters(name) == letters(label)]
        if len(same) > 1:
            raise ValueError(f"{label} may be {' or '.join(names[number] for number in same)}: write it as that")
        return same[0] if same else int(label) if label.isdecimal() and not names else -1

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
        """Guided by the model's own condition or by a classifier; `guidance` as `Diffusion.denoiser` has it."""
        log_prob = None if classifier is None else LogProb(self._checked(classifier), classifier.params)
        return self.system.denoiser(self.params, guidance_scale, log_prob=log_prob, **guidance)

    def _checked(self, classifier: Classifier) -> Classification:
        mine, its = self.system, classifier.system
        if classifier.shape != self.shape:
            raise ValueError(f"{classifier.name} was trained for {classifier.shape}, {self.name} draws {self.shape}")
        if its.process != mine.process:
            raise ValueError(f"{classifier.name} was trained on {its.process}, {self.name} on {mine.process}")
        if mine.condition is not None and not isinstance(mine.condition, Labels):
            raise ValueError(f"{self.name} takes prompts, {classifier.name} labels: they cannot guide together")
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
        classifier: Classifier | None = None,
        batch_size: int | None = None,
        callback: Callable[[Progress], None] | None = None,
        every: int | None = None,
        debug: bool = False,
        devices: Sequence[jax.Device] | None = None,
        **guidance: Any,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Samples batch by batch, (indices, images), as `jaxdiff.core.sampling.batches` does.

        Labels or prompts take turns. `guidance` is that of `self.denoiser`, in place of which `denoiser` may stand.
        """
        edit = Edit() if edit is None else edit
        how: dict[str, Any] = {"steps": steps, "sampler": sampler, "grid": grid, "denoiser": denoiser}
        parts, own = self._call(
            checked_indices(indices), labels, prompts, edit, classifier=classifier, **how, **guidance
        )
        own |= {"seed": seed, "batch_size": batch_size, "debug": debug, "devices": devices}
        drawn = sampling.batches(*parts, **own, callback=callback, every=every)
        return ((chosen, edit.pasted(chosen, self.decoded(x))) for chosen, x in drawn)

    def lowered(
        self,
        indices: int | Sequence[int],
        labels: int | str | Sequence[int | str] | None = None,
        prompts: str | Sequence[str] | None = None,
        *,
        edit: Edit | None = None,
        devices: Sequence[jax.Device] | None = None,
        **how: Any,
    ) -> jax.stages.Lowered:
        """What `batches` would run for these images as one batch, as `jaxdiff.core.sampling.lowered` has it."""
        edit = Edit() if edit is None else edit
        parts, own = self._call(checked_indices(indices), labels, prompts, edit, **how)
        return sampling.lowered(*parts, **own, devices=devices)

    def _call(
        self,
        numbers: np.ndarray,
        labels: Any,
        prompts: Any,
        edit: Edit,
        *,
        steps: int | None = None,
        sampler: Sampler | None = None,
        grid: Grid | None = None,
        denoiser: Denoiser | None = None,
        classifier: Classifier | None = None,
        **guidance: Any,
    ) -> tuple[tuple[Denoiser, Process, Sampler, Times], dict[str, Any]]:
        """Denoiser, process, sampler and times; and what each image has of its own."""
        condition = self.conditions_of(numbers, labels, prompts, classifier)
        model, condition = self._edited(edit, numbers, condition, denoiser, classifier, guidance)
        whole = len(self.times(steps, grid)) - 1  # also where a part of these steps is taken
        parts = (
            model,
            self.system.process,
            checked_sampler(sampler or self.system.sampler).over(whole),
            self.times(steps, grid, edit.strength),
        )
        return parts, {"shape": self.shape, "indices": numbers, "conditions": condition, **edit.starts(numbers)}

    def _edited(
        self,
        edit: Edit,
        numbers: np.ndarray,
        condition: Any,
        denoiser: Denoiser | None,
        classifier: Classifier | None,
        guidance: dict[str, Any],
    ) -> tuple[Denoiser, Any]:
        """The denoiser, guided, thresholded and edited, and the conditions that it takes."""
        threshold = guidance.pop("threshold", None)
        if denoiser is None:
            self._check_names(guidance)
            model = self.denoiser(classifier=classifier, threshold=0.0, **guidance)
        elif guidance:
            raise ValueError(f"a denoiser of your own is guided as it is: leave out {', '.join(guidance)}")
        else:
            model, threshold = denoiser, threshold or 0.0
        if edit.exact:
            model = self.system.cut_off(model, threshold)
        if edit.transform is not None:
            given = jax.tree.map(partial(turns, numbers), edit.given)
            condition = EditCondition(given, () if condition is None else (condition,))
            few = isinstance(model, FlowMap)
            changed = edit.transform(End(model) if isinstance(model, FlowMap) else model, self.system.process)
            model = ConsistencyModel(changed) if few else changed
        return model if edit.exact else self.system.cut_off(model, threshold), condition

    def _check_names(self, guidance: dict[str, Any]) -> None:
        taken = inspect.signature(self.system.denoiser).parameters
        if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            return  # a system of one's own may take what it likes
        own = taken.keys() - {"params", "log_prob"}
        others = inspect.signature(self.batches).parameters.keys() - {"guidance"}
        for name in guidance:
            check(name in own, f"there is no option {name}{did_you_mean(name, (own | others) - {name})}")

    def sample(
        self, indices: int | Sequence[int] = 16, *args: Any, progress: bool | None = None, **kwargs: Any
    ) -> np.ndarray:
        """All images in one array, otherwise as `batches`; `progress` is a bar, as there is one in notebooks."""
        shown = "callback" not in kwargs and (notebook.is_here() if progress is None else progress)
        with tqdm(total=len(checked_indices(indices)), unit=" images", leave=False, disable=not shown) as bar:
            begun = 0

            def seen(at: Progress) -> None:
                nonlocal begun
                _ = at.images  # when they are there, not when they are asked for
                bar.update(begun + len(at.indices) * at.step // at.steps - bar.n)
                begun += len(at.indices) * (at.step == at.steps)

            steps = len(self.times(kwargs.get("steps"), kwargs.get("grid"))) - 1
            watched: dict[str, Any] = {"callback": seen, "every": max(steps // 20, 1)} if shown else {}
            return np.concatenate([images for _, images in self.batches(indices, *args, **(watched | kwargs))])

    # --- likelihood -------------------------------------------------------------------------------------------------

    def log_likelihoods(
        self,
        images: Any,
        labels: int | str | Sequence[int | str] | None = None,
        prompts: str | Sequence[str] | None = None,
        *,
        how: Likelihood = Likelihood(),
        seed: int = 0,
        first: int = 0,
        batch_size: int = 32,
    ) -> Iterator[np.ndarray]:
        """log p of images in nats, batch by batch: of floats in [-1, 1] the density, of uint8 the probability.

        By the probability-flow ODE, or as `how` says. Labels or prompts take turns, from the image numbered `first` on;
        without any, a conditional model is asked without its condition.
        """
        if self.codec is not None:
            raise ValueError(f"{self.name} is a latent model: it has a density of latents, and none of images")
        if self.system.objective is not None:
            raise ValueError(f"{self.name} is a model of few steps, which has no likelihood: ask that of its teacher")
        if not len(images) or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"{self.name} draws {self.image_shape} images, got {tuple(images.shape)}")
        numbers = first + np.arange(len(images))
        said = labels is not None or prompts is not None
        conditions = self.conditions_of(numbers, labels, prompts) if said else self.null(len(images))
        t_max = self.system.network_denoiser(self.params).t_max
        denoise = self.denoiser(1.0, threshold=0.0)
        parts = denoise, self.system.process, images, conditions
        return how.batches(*parts, t_max=t_max, seed=seed, first=first, batch_size=batch_size)

    def log_likelihood(self, images: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """All of them in one array, otherwise as `log_likelihoods`."""
        return np.concatenate(list(self.log_likelihoods(images, *args, **kwargs)))


def _several(what: str, given: Any) -> Sequence[Any]:
    """At least one of them, of one or many."""
    each = [given] if np.ndim(given) == 0 else given
    require(len(each) > 0, f"at least one {what}", given)
    return each


def _whole(label: Any) -> int:
    try:
        return index(label)
    except TypeError:
        raise ValueError(f"labels must be whole numbers or names, got {label!r}") from None
