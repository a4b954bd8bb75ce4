"""An experiment is a config in a folder: it can be begun, continued, looked at without running, and sampled from."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import (
    augment,
    averages,
    conditions,
    denoise,
    files,
    grids,
    interop,
    latents,
    losses,
    optimisers,
    process,
    samplers,
    systems,
    training,
)
from jaxdiff import config as configs
from jaxdiff.augment import Augment
from jaxdiff.checkpoint import Checkpoints
from jaxdiff.checks import require
from jaxdiff.data import Batches, Digits, Examples, Source, arrays, digits, folder, tfds
from jaxdiff.logbook import Logbook
from jaxdiff.loop import train
from jaxdiff.nets import autoencoder, blocks, classifier, dit, layers, small, text, unet
from jaxdiff.parallel import Trainer, agreed, gathered, is_first
from jaxdiff.systems import System
from jaxdiff.training import Objective, State, Training, train_step


@dataclass(frozen=True)
class Config:
    """All that can be chosen."""

    system: System
    data: Source = Digits()
    held_out: Source | None = None  # images that are not trained on, for pictures and accuracies
    batch_size: int = 128
    augment: Augment = Augment()
    training: Training = Training()
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "0 <= seed < 2^32", self.seed)
        require(self.batch_size >= 1, "batch_size >= 1", self.batch_size)
        if self.encoded_once and self.augment != Augment():
            raise ValueError(f'{self.augment} needs system.encode="each step": what is encoded once stays as it is')
        if self.batch_size % self.training.accumulate:
            raise ValueError(f"needs a batch_size that accumulate={self.training.accumulate} divides")

    @property
    def codec(self) -> str | None:
        """Where the autoencoder of a latent model comes from."""
        return getattr(self.system, "codec", None)

    @property
    def encoded_once(self) -> bool:
        """Whether latents are made before the training."""
        return self.codec is not None and getattr(self.system, "encode", None) == "once"


# All that a config kept beside a checkpoint may be made of: nothing else is ever looked up.
VOCABULARY = configs.Vocabulary(
    [
        *(process, denoise, samplers, grids, losses, conditions, systems, optimisers, averages, augment, training),
        *(unet, small, dit, autoencoder, classifier, text, blocks, layers),
        *(arrays, digits, folder, tfds),
        sys.modules[__name__],
    ],
    [
        *(denoise.data, denoise.noise, denoise.velocity, denoise.score, denoise.flow, denoise.unscaled),
        *(denoise.time, denoise.index, denoise.log_sigma, denoise.quarter_log_sigma, denoise.quarter_log_snr),
        *(losses.simple, losses.uniform, losses.flow, losses.likelihood, losses.steps, losses.absolute, losses.squared),
    ],
)

# What may be another when a run is continued: when things are written and shown, where it runs, how long.
FREE = (
    *(f"training.{name}" for name in ("steps", "steps_per_call", "placing", "log_every", "show_every", "save_every")),
    *(f"training.{name}" for name in ("keep", "keep_every", "patience", "wandb")),
    *(f"system.{name}" for name in ("sampler", "grid", "steps", "guidance_scale", "clip", "shown")),
    *("held_out", "data.path"),
)


class Experiment:
    """One run: its config, its folder, and what follows from them."""

    def __init__(self, config: Config, folder: Path):
        self.config, self.folder = config, folder

    @cached_property
    def examples(self) -> Examples:
        return self.config.data.open()

    @cached_property
    def held_out(self) -> Examples:
        return self.examples if self.config.held_out is None else self.config.held_out.open()

    @cached_property
    def codec(self) -> Any:
        """Of a latent model: kept in the folder, so that the run needs no other."""
        if self.config.codec is None:
            return None
        own = self.folder / "codec"
        return interop.read_codec(own) if own.is_dir() else codec_of(Path(self.config.codec), self.examples)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what the network sees."""
        if self.codec is None:
            return self.image
        return tuple(jax.eval_shape(self.codec.encode, jax.ShapeDtypeStruct(self.image, jnp.float32)).shape)

    @cached_property
    def image(self) -> tuple[int, ...]:
        """The shape of an image: once trained, known without the data."""
        path = self.folder / "data.json"
        if path.exists():
            return tuple(json.loads(path.read_text(encoding="utf-8"))["image"])
        return tuple(self.examples.images.shape[1:])

    def fields(self) -> dict[str, Any]:
        """What a batch holds."""
        own = self.config.system.fields(self.examples)
        if not self.config.encoded_once:
            return {"image": self.examples.images, **own}
        return {"moments": latents.moments_of(self.codec, self.examples, self.folder / "latents.npy"), **own}

    def example_shapes(self) -> dict[str, Any]:
        """Of one row of a batch, with nothing decoded or encoded."""
        own = self.config.system.fields(self.examples)
        shapes = {name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for name, leaf in own.items()}
        image = tuple(self.examples.images.shape[1:])
        if not self.config.encoded_once:
            return {"image": jax.ShapeDtypeStruct(image, jnp.uint8), **shapes}
        return {"moments": jax.eval_shape(self.codec.moments, jax.ShapeDtypeStruct(image, jnp.float32)), **shapes}

    @cached_property
    def state_shapes(self) -> State:
        return jax.eval_shape(partial(self._start, self.shape), self.config.seed)

    def _start(self, shape: tuple[int, ...], seed: Any) -> State:
        key = jax.random.key(seed, impl="threefry2x32")
        params = self.config.system.start(jax.random.fold_in(key, 0), shape)
        return State.start(params, self.config.training, jax.random.fold_in(key, 1))

    @cached_property
    def trainer(self) -> Trainer:
        trainer = Trainer(self.config.training.placing, bytes_of(self.state_shapes))
        trainer.check_batch(self.config.batch_size, self.config.training.accumulate)
        return trainer

    def batches(self) -> Batches:
        part, parts = jax.process_index(), jax.process_count()
        return Batches(self.fields(), self.config.batch_size, self.config.seed, part, parts)

    def step(self) -> Any:
        """The training step (state, constants, batches) -> state, not yet compiled."""
        config = self.config
        return train_step(self._objective, config.training, config.batch_size, self.trainer, self.state_shapes)

    @property
    def _objective(self) -> Objective:
        return partial(self.config.system.loss, self.config.augment)

    # --- training ---------------------------------------------------------------------------------------------------

    def train(self, restart: bool = False) -> str | None:
        """Trains to the end, from the newest checkpoint if there is one. The signal that stopped it, if one did."""
        (Experiment(self.config, files.unused(self.folder)) if restart else self).check()
        with prepared(self.folder, restart), contextlib.ExitStack() as closing:
            trainer, training = self.trainer, self.config.training
            checkpoints = Checkpoints(self.folder / "checkpoints", training.keep, training.keep_every)
            closing.callback(checkpoints.close)
            state = self._begin(checkpoints)
            at = int(state.step)
            if at % training.steps_per_call:
                raise ValueError(f"training.steps_per_call must divide {at}, the step from which {self.folder} goes on")
            self._write_config()
            self._keep_codec()
            batches = self.batches()
            if at >= training.steps:
                say(f"{self.folder} is trained to its end, step {at}: training.steps={2 * at} would go on")
                return None
            logbook = None
            if is_first():
                logbook = Logbook(self.folder, at, training.steps, self._wandb())
                closing.callback(logbook.close)
                self._tell(at, logbook.say)
            codec = None if self.config.encoded_once else jax.device_get(self.codec)
            constants = trainer.devices.replicate(codec)
            ahead = batches.ahead(at, training.steps, training.steps_per_call)
            if training.steps_per_call == 1:
                ahead = (jax.tree.map(lambda leaf: leaf[None], batch) for batch in ahead)
            state, stopped = train(
                state,
                self.step(),
                constants,
                ahead,
                training,
                trainer,
                checkpoints=checkpoints,
                logbook=logbook,
                show=self.picture,
                batch_size=self.config.batch_size,
                batches_an_epoch=batches.steps_per_epoch,
            )
        return stopped

    def _begin(self, checkpoints: Checkpoints) -> State:
        shardings = self.trainer.shardings(self.state_shapes)
        like = jax.tree.map(lambda leaf, sharding: leaf.update(sharding=sharding), self.state_shapes, shardings)
        restored = checkpoints.restore_newest(like, warn)
        if restored is not None:
            return restored[1]
        return jax.jit(partial(self._start, self.shape), out_shardings=shardings)(self.config.seed)

    def picture(self, state: State) -> np.ndarray:
        params = jax.device_put(gathered(state.ema[0]), jax.local_devices()[0])
        return self.config.system.picture(params, self.codec, self.shape, self.held_out)

    def check(self) -> None:
        """Refuses what cannot be trained here; nothing is written."""
        self._check_continues()
        self._wandb_module()
        configs.to_data(self.config, VOCABULARY)
        self.config.system.check()
        state, u = self.state_shapes, jax.ShapeDtypeStruct((), jnp.float32)
        jax.eval_shape(self._objective, state.params, self.codec, state.key, u, self.example_shapes())
        self._check_space()
        _ = self.trainer

    def _check_continues(self) -> None:
        path = self.folder / "config.json"
        if not path.exists() and any((self.folder / "checkpoints").glob("*/")):
            raise ValueError(f"{self.folder} has checkpoints and no config.json: --restart sets them aside")
        if path.exists():
            free = tuple(name for name in FREE if not (name == "data.path" and self.config.encoded_once))
            differing = configs.differences(read_config(self.folder), self.config)
            changed = [c for c in differing if not f"{c[0]}.".startswith(tuple(f"{name}." for name in free))]
            if changed:
                fields = ", ".join(f"{name} was {old!r}, is {new!r}" for name, old, new in changed[:5])
                raise ValueError(
                    f"the run in {self.folder} cannot go on with another config ({fields}): "
                    f"give these back, take another --workdir, or --restart to set the old run aside"
                )

    def _check_space(self) -> None:
        kept = self.config.training.keep + 1  # one more while it is written
        need, free = kept * bytes_of(self.state_shapes) + 2**24, files.free_bytes(self.folder)
        if free < need:
            raise ValueError(f"{self.folder} has {gigabytes(free)} of space left, checkpoints need {gigabytes(need)}")

    def _keep_codec(self) -> None:
        if self.codec is not None and is_first() and not (self.folder / "codec").is_dir():
            interop.write_codec(self.folder / "codec", self.codec)

    def _write_config(self) -> None:
        if is_first():
            files.write(
                self.folder / "config.json",
                json.dumps(configs.to_data(self.config, VOCABULARY), indent=1, allow_nan=False),
            )
            about = {"image": self.examples.images.shape[1:], "classes": self.examples.classes}
            files.write(self.folder / "data.json", json.dumps(about))
            left_out = "".join(f"{name}: {why}\n" for name, why in self.examples.unreadable)
            if left_out:
                files.write(self.folder / "unreadable.txt", left_out)

    def _tell(self, at: int, tell: Callable[[str], None]) -> None:
        count, begins = len(self.examples), f"goes on from step {at}" if at else "begins"
        where = f"{len(self.trainer.devices.devices)} {jax.devices()[0].platform} device(s), {self.trainer.placing}"
        tell(f"{self.folder} {begins}: {count:,} images, {parameters(self.state_shapes):,} parameters, {where}")
        if self.examples.unreadable:
            left_out, path = len(self.examples.unreadable), self.folder / "unreadable.txt"
            tell(f"{left_out} files could not be read and are left out: {path} lists them")

    def _wandb_module(self) -> Any:
        if self.config.training.wandb is None:
            return None
        try:
            import wandb
        except ImportError:
            raise ValueError("training.wandb needs Weights & Biases: pip install wandb, or leave it out") from None
        return wandb

    def _wandb(self) -> Any:
        wandb = self._wandb_module()
        if wandb is None:
            return None
        data = configs.to_data(self.config, VOCABULARY)
        known = self.folder / "wandb_id"
        if not known.exists():
            files.write(known, wandb.util.generate_id())
        return wandb.init(
            project=self.config.training.wandb,
            name=self.folder.name,
            id=known.read_text(encoding="utf-8"),
            dir=self.folder,
            config=data,
            resume="allow",
        )

    # --- without training -------------------------------------------------------------------------------------------

    def dry_run(self) -> str:
        """What a run would be: its config, and what the compiler says of one step on one device."""
        self.check()
        config, state, images = self.config, self.state_shapes, self.examples.images
        rows = {"index": jax.ShapeDtypeStruct((), jnp.uint32), **self.example_shapes()}
        batch = jax.tree.map(lambda row: row.update(shape=(1, config.batch_size, *row.shape)), rows)
        step = Experiment(replace(config, training=replace(config.training, placing="jit")), self.folder).step()
        with jax.default_matmul_precision("highest"):  # convolutions as written, not in fewer multiplications
            cost = step.lower(state, self.codec, batch).cost_analysis()
        memory = step.lower(state, self.codec, batch).compile().memory_analysis()
        steps, devices = len(images) / config.batch_size, self.trainer.devices.devices
        facts = {
            "images": f"{len(images):,} of {'x'.join(map(str, images.shape[1:]))}",
            "parameters": f"{parameters(state):,}",
            "one step": f"{cost['flops'] / 1e9:.4g} GFLOP, {cost['bytes accessed'] / 1e9:.3g} GB moved",
            "state": f"{gigabytes(bytes_of(state))}, and {gigabytes(memory.temp_size_in_bytes)} while it works",
            "an epoch": f"{steps:.1f} steps; the run is {config.training.steps / steps:.1f} epochs",
            "devices": f"{len(devices)} {devices[0].platform}, {self.trainer.placing}",
            "folder": f"{self.folder}, {'there already' if (self.folder / 'config.json').exists() else 'new'}",
        }
        return "\n".join([configs.show(config), "", *(f"{name:12}{fact}" for name, fact in facts.items())])


def opened(folder: Path) -> Experiment:
    """A run that is there."""
    return Experiment(read_config(folder), folder)


def read_config(folder: Path) -> Config:
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is not the folder of a run: it has no config.json") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return configs.from_data(data, VOCABULARY)


def trained(experiment: Experiment, step: int | None = None, average: int | None = 0) -> tuple[int, Any]:
    """The step and the averaged parameters (None: those not averaged) of a run's newest checkpoint, or of another."""
    like = jax.tree.map(
        lambda leaf: leaf.update(sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0])),
        experiment.state_shapes,
    )
    with reading(experiment) as checkpoints:
        state = checkpoints.restore(like, step)
    return int(state.step), state.params if average is None else state.ema[average]


@contextlib.contextmanager
def reading(experiment: Experiment) -> Iterator[Checkpoints]:
    """A run's checkpoints, which another process may be adding to."""
    folder = experiment.folder / "checkpoints"
    if not folder.is_dir():
        raise ValueError(f"{experiment.folder} has no checkpoint yet: python train.py makes one")
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        yield checkpoints


def codec_of(source: Path, examples: Examples) -> Any:
    """From a run that trained an autoencoder, measured on these images, or from a folder of diffusers."""
    if not source.is_dir():
        raise ValueError(
            f"the autoencoder {source} is not there: train it, python train.py --config configs/{source.name}.py, "
            f"or name another run or a diffusers folder as system.codec"
        )
    if not (source / "checkpoints").is_dir():
        return interop.read_codec(source)
    run = opened(source)
    if not isinstance(run.config.system, systems.Autoencoding):
        raise ValueError(f"{source} did not train an autoencoder, but {type(run.config.system).__name__}")
    _, params = trained(run)
    return latents.measured(run.config.system.network, {"params": params}, examples)


@contextlib.contextmanager
def prepared(folder: Path, restart: bool = False) -> Iterator[None]:
    """A folder of its own for a run; an old run moves aside if it is to start over."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error.strerror}): give another --workdir") from None
    with contextlib.ExitStack() as held:
        if is_first():
            held.enter_context(files.locked(folder))
            if restart and any((folder / name).exists() for name in ("config.json", "checkpoints")):
                aside = files.unused(folder.absolute().with_name(f"{folder.absolute().name}_old"))
                os.replace(folder, aside)
                folder.mkdir()
                held.enter_context(files.locked(folder))
                say(f"the old run is now {aside}")
        agreed(False)  # the others wait until the folder is the new one
        yield


def bytes_of(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def parameters(state: State) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def say(text: str) -> None:
    if is_first():
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")
