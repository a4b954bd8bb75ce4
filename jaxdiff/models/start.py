"""What a run may start from, and learn of: another run, or a folder of diffusers."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from jaxdiff.base import files
from jaxdiff.base.devices import is_first
from jaxdiff.data import Examples
from jaxdiff.models import walks
from jaxdiff.models.config import Config
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.loading import load, load_diffusers
from jaxdiff.models.model import Model
from jaxdiff.models.walks import Teacher, Walks
from jaxdiff.training.checkpoint import fingerprint
from jaxdiff.training.state import bytes_of


class Start:
    """The model that `config.start` names, kept in the folder of the run, so that its own folder may vanish."""

    def __init__(self, config: Config, folder: Path, code: Sequence[ModuleType] = ()):
        self._config, self._folder, self._code = config, folder, code
        self._walks: Walks | None = None

    @cached_property
    def model(self) -> Model | None:
        if self._config.start is None:
            return None
        own = self._folder / "teacher"
        return _opened(own if own.is_dir() else Path(self._config.start), self._code)

    @cached_property
    def teacher(self) -> Teacher | None:
        """It, if more is learnt of it than how to begin."""
        wanted = self.model is not None and getattr(self._config.system, "wants_teacher", False)
        return Teacher(self.model.system, self.model.params) if wanted and self.model is not None else None

    def keep(self) -> None:
        """A copy of it: whole, or not there."""
        own, source = self._folder / "teacher", self._config.start
        if source is not None and not own.is_dir() and is_first():
            with files.beside(own) as new:
                try:
                    for name in _parts(Path(source)):
                        _copy(Path(source) / name, new / name)
                except OSError as error:
                    why = error.strerror or "something in it is gone"
                    raise ValueError(f"start={source} cannot be copied to {own} ({why}): try again") from None
                os.replace(new, own)

    def to_write(self, examples: Examples, shape: tuple[int, ...]) -> int:
        """Bytes of its copy and of its walks, of what is not in the folder yet."""
        source, copied = Path(self._config.start or ""), (self._folder / "teacher").is_dir()
        parts = [] if copied or self._config.start is None else [source / name for name in _parts(source)]
        found = [path for part in parts for path in (part, *part.rglob("*")) if path.is_file()]
        walked = (self._folder / "trajectories.npz").exists()
        made = None if walked else self.walk_shapes(examples, shape, walks.HELD_OUT)
        return sum(path.stat().st_size for path in found) + bytes_of(made)

    # --- walks of it --------------------------------------------------------------------------------------------------

    def walks(self, examples: Examples, shape: tuple[int, ...]) -> Walks:
        """Those that are wanted, made unless they are in the folder."""
        if self._walks is None and self._pair is not None:
            path = self._folder / "trajectories.npz"
            self._walks = walks.walked(*self._pair, examples, shape, self._config.seed, path)
        return self._walks or Walks()

    def walk_shapes(self, examples: Examples, shape: tuple[int, ...], more: int = 0) -> Any:
        """Of those that are trained on, and so many more."""
        return None if self._pair is None else walks.shapes(*self._pair, examples, shape, more)

    @property
    def _pair(self) -> tuple[Teacher, Diffusion] | None:
        """Who walks, and who learns of it."""
        teacher, system = self.teacher, self._config.system
        wanted = isinstance(system, Diffusion) and system.walks is not None
        return (teacher, system) if wanted and teacher is not None else None  # type: ignore[return-value]

    # --- whether it fits ----------------------------------------------------------------------------------------------

    def check(self, shape: tuple[int, ...], classes: tuple[str, ...], codec: Any) -> None:
        """Refuses a model that means something else than the one that starts from it."""
        model, system = self.model, self._config.system
        assert model is not None
        if not isinstance(system, Diffusion):
            raise ValueError(f"start is for diffusion models, {type(system).__name__} has none: leave it out")
        if model.shape != shape:
            raise ValueError(f"start: {model.name} draws {model.shape}, the data are {shape}: they must be equal")
        for name in ("process", "prediction", "input_scale", "c_noise"):
            was, now = getattr(model.system, name), getattr(system, name)
            if was != now:
                raise ValueError(f"start: {model.name} has {name}={_named(was)}, this system {_named(now)}: {_EQUAL}")
        if not np.array_equal(fingerprint(model.codec), fingerprint(codec)):
            raise ValueError(f"start: {model.name} has the latents of another autoencoder: {_EQUAL}, by system.codec")
        _check_condition(model, system, classes)
        if model.system.objective is not None:
            raise ValueError(f"start: {model.name} is a model of few steps itself: start from the one that taught it")


_EQUAL = "make them equal"


def _opened(folder: Path, code: Sequence[ModuleType]) -> Model:
    """The model in a folder, of a run or of diffusers."""
    if not folder.is_dir():
        raise ValueError(f"start={folder} is not there: train it first, or name another run or a diffusers folder")
    is_run = any((folder / name).exists() for name in ("checkpoints", "data.json"))
    model = load(folder, code=code) if is_run else load_diffusers(folder)
    return replace(model, params=jax.device_get(model.params))  # not on a device: it may be wanted on all of them


def _parts(source: Path) -> list[str]:
    """What reading it takes: of a run only its newest checkpoint."""
    if not (source / "checkpoints").is_dir():
        return [""]
    steps = [int(path.name) for path in (source / "checkpoints").iterdir() if path.name.isdecimal()]
    newest = f"checkpoints/{max(steps)}"  # by its name: Orbax would wait for all processes
    return [newest, "config.json", "data.json", *(["codec"] if (source / "codec").is_dir() else [])]


def _copy(source: Path, new: Path) -> None:
    """A file or a folder."""
    if source.is_dir():
        shutil.copytree(source, new)
    else:
        shutil.copy2(source, new)


def _check_condition(model: Model, system: Diffusion, classes: tuple[str, ...]) -> None:
    was, now = model.system.condition, system.condition
    same = all(getattr(was, name, None) == getattr(now, name, None) for name in ("classes", "tokens"))
    if type(was) is not type(now) or not same:
        raise ValueError(f"start: {model.name} has condition={was}, this system {now}: {_EQUAL}")
    if any(mine != other for mine, other in zip(model.classes, classes, strict=False)):
        several = f"{', '.join(model.classes[:3])}, ...; the data {', '.join(classes[:3])}, ..."
        raise ValueError(f"start: {model.name} knows the classes {several}: they must be equal")
    if system.wants_teacher and system.trained_scale is not None and was is not None and not was.drop:
        raise ValueError(f"start: {model.name} cannot teach guidance: it was trained without condition.drop")


def _named(value: Any) -> str:
    return getattr(value, "__name__", None) or str(value)
