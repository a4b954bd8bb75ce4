"""A run that is trained: begun or resumed, checked before anything is written, shown as it goes."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.base import compiling, environment, files, plain, tree
from jaxdiff.base.console import say, warn
from jaxdiff.base.devices import EVERYWHERE, agreed, agreeing, gathered, is_first
from jaxdiff.base.words import amount
from jaxdiff.data import identity
from jaxdiff.data.batches import Batches
from jaxdiff.data.examples import whole
from jaxdiff.models import about, conditions, exhibits
from jaxdiff.models.config import Config, modules_of, read_config
from jaxdiff.models.diffusion import Diffusion
from jaxdiff.models.held_out import HeldOut
from jaxdiff.models.model import Model
from jaxdiff.models.quick import Quick, kept_best
from jaxdiff.models.run import Run, codec_of
from jaxdiff.models.start import Start
from jaxdiff.models.system import Constants
from jaxdiff.models.target import Target
from jaxdiff.models.workdir import WRITTEN, prepared
from jaxdiff.nets import machine
from jaxdiff.training import page, wandb
from jaxdiff.training.checkpoint import Best, Checkpoints
from jaxdiff.training.logbook import Logbook
from jaxdiff.training.loop import check_end, train
from jaxdiff.training.pace import Pace, longer, resumed
from jaxdiff.training.placing import Trainer
from jaxdiff.training.state import State, Training, bytes_of
from jaxdiff.training.step import Objective, Seen, train_step

RESIDENT = 2 * 10**9  # bytes of data that a GPU or TPU keeps, unless the config says otherwise
_LIKE_THESE = "set held_out to more images of the same kind, or to None"


class Experiment(Run):
    """A run and what it takes to train it: the data. With `accept_data` it resumes with others than it began with.

    `again` is what the user types to resume it, for its page.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        code: Sequence[ModuleType] = (),
        accept_data: bool = False,
        again: str | None = None,
    ):
        super().__init__(config, folder, code)
        self.accept_data, self.again = accept_data, again
        self.elsewhere: Target | None = None  # another machine to compile for, instead of this one
        self._at = 0  # the step at which it begins or resumes

    @cached_property
    def codec(self) -> Any:
        if self.config.codec is None or (self.folder / "codec").is_dir():
            return super().codec
        return codec_of(Path(self.config.codec), self.examples, self.code)

    @property
    def image(self) -> tuple[int, ...]:
        return tuple(self.examples.images.shape[1:])

    @property
    def classes(self) -> tuple[str, ...]:
        return self.examples.classes or ()

    @cached_property
    def trainer(self) -> Trainer:
        there = () if self.elsewhere is None else (self.elsewhere.devices, self.elsewhere.memory)
        given = bytes_of(self.state_shapes) + bytes_of(self._constants_like)
        trainer = Trainer(self.config.training.placing, given, *there)
        trainer.check_batch(self.config.batch_size, self.config.training.accumulate)
        return trainer

    @cached_property
    def start(self) -> Start:
        """The model that it starts from, if there is one."""
        return Start(self.config, self.folder, (*self.code, *modules_of(self.config)))

    def batches(self) -> Batches:
        part, parts = jax.process_index(), jax.process_count()
        fields = {"row": np.arange(len(self.examples), dtype=np.int32)} if self.resident else self.fields()
        return Batches(fields, self.config.batch_size, self.config.seed, part, parts)

    def step(self) -> Any:
        """The training step (state, constants, batches) -> state, not yet compiled."""
        config = self.config
        return train_step(self._objective, config.training, config.batch_size, self.trainer, self.state_shapes)

    def lowered(self) -> jax.stages.Lowered:
        """That step traced for the batches of this run and the devices of the trainer."""
        rows = {"index": jax.ShapeDtypeStruct((), jnp.uint32), **self._row_shapes()}
        batch = self.trainer.shapes(rows, self.steps_per_call, self.config.batch_size)
        return self.step().lower(self._like(), self.trainer.devices.described(self._constants_like, EVERYWHERE), batch)

    @compiling.named("the training step")
    def compiled(self) -> jax.stages.Compiled:
        """And compiled: by a dry run as by the run after it, which then finds it in the cache."""
        program = environment.compiled(self.lowered(), self.trainer.devices.devices[0].platform)
        environment.give_back()  # what the compiler took, before the steps take as much again
        return program

    def _like(self) -> State:
        """The state without its values: what is where."""
        shardings = self.trainer.shardings(self.state_shapes)
        return jax.tree.map(lambda leaf, sharding: leaf.update(sharding=sharding), self.state_shapes, shardings)

    @cached_property
    def resident(self) -> bool:
        """Whether the data lie on the device, where a step takes its rows; else each batch is sent there."""
        wanted, size = self.config.data_on_device, len(self.examples) * bytes_of(self.example_shapes)
        kind = machine.kind() if self.elsewhere is None else self.elsewhere.kind
        return size <= RESIDENT and kind.platform in ("gpu", "tpu") if wanted is None else wanted

    @property
    def steps_per_call(self) -> int:
        """Several where all they need lies on an accelerator, which would wait for Python between them."""
        there = self.resident and self.trainer.devices.devices[0].platform != "cpu"
        return self.config.training.in_one_call(there, self._at)

    def _row_shapes(self) -> dict[str, Any]:
        return {"row": jax.ShapeDtypeStruct((), jnp.int32)} if self.resident else self.example_shapes

    @cached_property
    def _constants(self) -> tuple[Any, Any]:
        """What a step is given beside its batch: the autoencoder, and the data if they lie there."""
        others = jax.device_get(self._others(self.start.walks(self.examples, self.shape).trained))
        data = None
        if self.resident:  # each row flat: else a TPU would lay out all of them anew in each step
            data = {name: whole(field).reshape(len(field), -1) for name, field in self.fields().items()}
        return self.trainer.devices.replicate((others, data))

    def _others(self, walked: Any) -> Constants:
        """What a step needs of other networks than the one that it trains."""
        return Constants(None if self.config.encoded_once else self.codec, self.start.teacher, walked)

    @cached_property
    def _constants_like(self) -> tuple[Constants, Any]:
        """The same without the values of what is yet to be made."""
        others, count = self._others(self.start.walk_shapes(self.examples, self.shape)), len(self.examples)
        flat = {name: row.update(shape=(count, row.size)) for name, row in self.example_shapes.items()}
        return others, flat if self.resident else None

    @property
    def _objective(self) -> Objective:
        shapes = {name: row.shape for name, row in self.example_shapes.items()}

        def loss(seen: Seen, constants: tuple[Constants, Any], key: Any, u: Any, example: dict[str, Any]) -> Any:
            others, data = constants
            if data is not None:
                example = {name: data[name][example["row"]].reshape(shape) for name, shape in shapes.items()}
            return self.config.system.loss(self.config.augment, seen, others, key, u, example, True)

        return loss

    # --- training ---------------------------------------------------------------------------------------------------

    def train(self, restart: bool = False) -> str | None:
        """Trains to the end, from the newest checkpoint if there is one. The signal that stopped it, if one did."""
        (Experiment(self.config, files.unused(self.folder), self.code) if restart else self).check()
        keep = self.config.training.keep, self.config.training.keep_every
        with prepared(self.folder, restart), contextlib.ExitStack() as closing:
            checkpoints = Checkpoints(self.folder / "checkpoints", *keep)
            closing.callback(checkpoints.close)
            begin = time.perf_counter()
            state = self._begin(checkpoints)
            at = self._at = int(state.step)
            before = self._before().training if at else self.config.training
            self._keep_schedule(before)
            if at % self.steps_per_call:
                raise ValueError(f"training.steps_per_call must divide {at}, the step from which {self.folder} resumes")
            with agreeing():
                if is_first():
                    about.write(self, self.trainer, self.again)
                    self.start.keep()
            pace = Pace(self.config.training, state, self.steps_per_call, begin)
            if at >= pace.steps:
                check_end(state, pace.steps)
                say(f"{self.folder} is trained to its end, step {at}{longer(self.config.training, state)}")
                self._finish(state)
                return None
            with agreeing():
                logbook = self._logbook(at, pace.steps, closing)
            for line in resumed(before, self.config.training, state):
                say(line)
            return self._train(state, pace, checkpoints, logbook, self._best(at, closing))

    def _keep_schedule(self, before: Training) -> None:
        """The schedule keeps the length that it had, unless the config gives it another."""
        now = self.config.training
        if now.minutes is None:
            kept = replace(now, schedule_steps=now.schedule_steps or before.schedule_length)
            self.config = replace(self.config, training=kept)

    def _begin(self, checkpoints: Checkpoints) -> State:
        like = self._like()
        restored = checkpoints.restore_newest(like, warn, lambda at, state: state.is_finite and at == int(state.step))
        if restored is not None:
            return restored[1]
        shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
        given = None if self.start.model is None else self.start.model.params
        start = jax.jit(partial(self._start, self.shape), out_shardings=shardings)
        return compiling.named("the first parameters")(start)(self.seed, given)

    def _train(
        self, state: State, pace: Pace, checkpoints: Checkpoints, logbook: Logbook | None, best: Best | None
    ) -> str | None:
        training, batches = self.config.training, self.batches()
        last = training.steps if state.clock is None else 2**31
        ahead = batches.ahead(self._at, last, pace.per_call)
        if pace.per_call == 1:
            ahead = (jax.tree.map(lambda leaf: leaf[None], batch) for batch in ahead)
        step, constants = self.compiled(), self._constants
        if logbook is not None:
            logbook.begin()
        state = pace.start(state)
        state, stopped = train(
            state,
            lambda state, batch: step(state, constants, batch),
            map(self.trainer.put, ahead),
            pace,
            checkpoints=checkpoints,
            logbook=logbook,
            show=compiling.named("what draws pictures")(self.picture),
            evaluate=compiling.named("the evaluation")(partial(self._numbers, best)),
            batch_size=self.config.batch_size,
            batches_an_epoch=batches.steps_per_epoch,
        )
        if stopped is None:
            self._finish(state)
        return stopped

    def _finish(self, state: State) -> None:
        """What its page shows of the trained model."""
        place, system = self.folder / "drawn" / f"step_{int(state.step):06}", self.config.system
        if isinstance(system, Diffusion) and agreed(is_first() and exhibits.worth(self, place)):
            model = self._model(system, self._averaged(state))
            if is_first():
                exhibits.draw(model, place)
        if is_first():
            page.write(self.folder)

    def _averaged(self, state: State) -> Any:
        return jax.device_put(gathered(state.ema[0]), jax.local_devices()[0])

    def _model(self, system: Diffusion, params: Any) -> Model:
        return Model(system, params, self.shape, self.codec, self.classes)

    def picture(self, state: State) -> np.ndarray:
        return self.config.system.picture(self._averaged(state), self.codec, self.shape, self.held_out)

    # --- held out ---------------------------------------------------------------------------------------------------

    @cached_property
    def _judged(self) -> HeldOut | None:
        config = self.config
        if config.held_out is None:
            return None
        together = config.batch_size // config.training.accumulate
        share = max(together // len(self.trainer.devices.devices), 1)  # it is computed on one device
        others = Constants(self.codec, self.start.teacher, self.start.walks(self.examples, self.shape).held_out)
        return HeldOut(config.system, self.held_out, others, config.encoded_once, share, config.augment.dequantize)

    @cached_property
    def _quick(self) -> Quick | None:
        return None if self.config.judge is None else Quick(self.config, self.code)

    def _numbers(self, best: Best | None, at: int, state: State) -> dict[str, float]:
        """What is seen of the averaged parameters now and then, by column."""
        params, system = self._averaged(state), self.config.system
        found = {} if self._judged is None else self._judged.numbers(params, at)
        if self._quick is not None and isinstance(system, Diffusion):
            found |= self._quick.numbers(self._model(system, params))
        if best is not None:
            best.see(at, state, found[str(self.config.training.keep_best)])
        return found

    def _best(self, at: int, closing: contextlib.ExitStack) -> Best | None:
        best = kept_best(self.config, self.held_out, self.folder, at)
        return None if best is None else closing.enter_context(contextlib.closing(best))

    # --- before it ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuses what cannot be trained here; nothing is written."""
        plain.to_data(self.config)
        training = self.config.training
        self._check_resumes()
        if self.config.start is None and not (self.folder / "config.json").exists():  # what was begun goes on
            conditions.check_each_is_seen(self.config.system, self.classes)
        self._check_data()
        if training.wandb is not None:
            wandb.require_wandb()
        self.config.system.check()
        self._check_held_out()
        _ = self._quick
        state, u = self.state_shapes, jax.ShapeDtypeStruct((), jnp.float32)
        if self.start.model is not None:
            self.start.check(self.shape, self.classes, self.codec)
            jax.eval_shape(partial(self._start, self.shape), self.seed, self.start.model.params)
        jax.eval_shape(lambda params, clock: training.transform(clock).init(params), state.params, state.clock)
        seen = Seen(state.params, state.ema, state.step)
        jax.eval_shape(self._objective, seen, self._constants_like, state.key, u, self._row_shapes())
        self._check_space()
        _ = self.trainer

    def _check_resumes(self) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            found = [path for name in WRITTEN for path in self.folder.glob(name)]
            there = [path.name for path in found if path.is_file() or any(path.glob("*"))]
            if there:  # of what is not known, and would be written over
                what = f"{self.folder} has {there[0]} and no config.json"
                raise ValueError(f"{what}: give another --workdir, or --restart to set the whole folder aside")
            return
        before = self._before()
        changed = tree.differences(before, self.config)
        minutes = before.training.minutes, self.config.training.minutes
        if minutes.count(None) == 1:  # 20 in place of 10 may be, but a run by its steps knows no time
            changed.append(("training.minutes", *minutes))
        if changed:
            fields = ", ".join(f"{name} was {tree.brief(old)}, is {tree.brief(new)}" for name, old, new in changed[:5])
            raise ValueError(
                f"the run in {self.folder} cannot be resumed with another config ({fields}): "
                f"set these back, give another --workdir, or --restart to set the old run aside"
            )

    def _before(self) -> Config:
        """The config that the run had when it was last begun or resumed."""
        return read_config(self.folder, (*self.code, *modules_of(self.config)))

    def _check_data(self) -> None:
        before = self._noted()
        changed = identity.changes(before, self.identity)
        if not changed:
            return
        found = f"the data of the run in {self.folder} are not those it began with: {'; '.join(changed)}"
        labelled = "label" in self.config.system.fields(self.examples)
        other_shape = before.get("image", self.identity["image"]) != self.identity["image"]
        if other_shape or (labelled and identity.labels_differ(before, self.identity)):
            raise ValueError(f"{found}. Its model knows no others: set them back, or give another --workdir")
        if not self.accept_data:
            raise ValueError(f"{found}. Set them back, give another --workdir, or --accept_data to go on with these")
        warn(found)

    def _noted(self) -> dict[str, Any]:
        """What data.json says of the data that the run began with; nothing if it cannot be read: it is written anew."""
        try:
            image, classes = self._known
        except ValueError:
            return {}
        known = files.read_json(self.folder / "data.json")
        return {**known, "image": list(image), "classes": list(classes) or None}

    def _check_held_out(self) -> None:
        """They must be like those trained on."""
        if self.config.held_out is None:
            return
        image, classes = tuple(self.held_out.images.shape[1:]), self.held_out.classes or ()
        if image != self.image:
            raise ValueError(f"held_out has images of {image}, the data of {self.image}: {_LIKE_THESE}")
        self.config.system.fields(self.held_out)
        if any(mine != other for mine, other in zip(self.classes, classes, strict=False)):
            raise ValueError(
                f"held_out has the classes {', '.join(classes[:5])}, ..., others than the data: {_LIKE_THESE}"
            )

    def _check_space(self) -> None:
        there = sum(path.name.isdecimal() for path in (self.folder / "checkpoints").glob("*"))
        more = max(self.config.training.keep + 1 - there, 1)  # one more while it is written
        need = more * bytes_of(self.state_shapes) + self.start.to_write(self.examples, self.shape) + 2**24
        free = files.free_bytes(self.folder)
        if free < need:
            raise ValueError(f"{self.folder} has {amount(free, 'B')} of space left, the run needs {amount(need, 'B')}")

    def _logbook(self, at: int, steps: int, closing: contextlib.ExitStack) -> Logbook | None:
        """Of the first process, with its first lines."""
        if not is_first():
            return None
        training = self.config.training
        there = training.wandb and wandb.begin(training.wandb, self.folder, plain.to_data(self.config))
        logbook = closing.enter_context(Logbook(self.folder, at, steps, there, more=self.config.judged))
        about.introduce(self, self.trainer, at, logbook.say)
        return logbook
