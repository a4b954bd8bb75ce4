"""The training step: the same on any devices, in any parts; its averages; steps that are not finite; what it costs."""

import math
import os
import signal
import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdiff.base import environment
from jaxdiff.core import c_noise, predictions
from jaxdiff.core.process import Flow
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, Diffusion, Labels
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.system import Constants
from jaxdiff.nets import UNet
from jaxdiff.nets.layers import Net
from jaxdiff.training import Adam, Ema, PowerEma, Schedule, Training
from jaxdiff.training.loop import DivergedError, train
from jaxdiff.training.pace import Pace
from jaxdiff.training.placing import Trainer
from jaxdiff.training.state import Clock, State, Tally
from jaxdiff.training.step import train_step


class Dropping(Net):
    """Layers large enough to be split, and much dropout."""

    @nn.compact
    def __call__(self, x, c_noise, label):
        c_noise = jnp.stack([c_noise / 1000, (label / 10.0).astype(jnp.float32)], -1)
        h = nn.Dense(256, name="first")(x.reshape(*x.shape[:-3], -1)) + nn.Dense(256, name="c_noise")(c_noise)
        h = nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(nn.silu(h))
        return nn.Dense(64, name="last")(h).reshape(x.shape)


CONFIG = Config(
    system=Diffusion(Dropping(), Flow(), predictions.flow, c_noise=c_noise.time, condition=Labels(10, drop=0.3)),
    batch_size=32,
    augment=Augment(flip=True, pad=2),
    training=Training(
        steps=20,
        optimiser=Adam(3e-3, Schedule("cosine", warmup=5), weight_decay=0.01, clip=1.0),
        averages=(Ema(0.9), PowerEma(0.1)),
        log_every=20,
    ),
)


def begun(**training):
    """An experiment, its compiled step and its first state."""
    experiment = Experiment(replace(CONFIG, training=replace(CONFIG.training, **training)), Path("nowhere"))
    nothing = SimpleNamespace(restore_newest=lambda *given: None)
    return experiment, experiment.step(), experiment._begin(nothing)


class Steps(NamedTuple):
    losses: list[float]  # the sum after each call
    state: State
    compiled_later: int  # programs, after the first call


@pytest.fixture(scope="module")
def steps(compiled):
    """Twenty steps as a function of how they are taken."""

    @lru_cache
    def of(**training):
        experiment, step, state = begun(**training)
        batches, stride, sums = experiment.batches(), experiment.steps_per_call, []
        for start in range(0, 20, stride):
            batch = jax.tree.map(lambda *rows: np.stack(rows), *(batches[start + i] for i in range(stride)))
            state = step(state, (Constants(), None), experiment.trainer.put(batch))
            sums.append(float(state.tally.loss))
            before = len(compiled) if start == 0 else before
        return Steps(sums, state, len(compiled) - before)

    return of


@pytest.fixture(scope="module")
def alone(steps):
    return steps(placing="jit")


WAYS = {
    "pmap": {"placing": "pmap"},
    "sharded": {"placing": "sharded"},
    "in parts": {"placing": "jit", "accumulate": 2},
    "pmap, in parts": {"placing": "pmap", "accumulate": 2},
}
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@EACH_WAY
def test_the_same_losses_on_any_devices_and_in_parts(steps, alone, way):
    assert jax.device_count() == 8
    sums, state, _ = steps(**way)
    assert len(state.params["last"]["kernel"].devices()) == (1 if way["placing"] == "jit" else 8)
    np.testing.assert_allclose(np.diff(sums), np.diff(alone.losses), rtol=1e-5)
    assert float(state.tally.gradient_norm) == pytest.approx(float(alone.state.tally.gradient_norm), rel=1e-5)
    ours, theirs = jax.device_get((state.ema, alone.state.ema))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), ours, theirs)


def test_several_steps_a_call_are_the_same_bit_for_bit(steps, alone):
    sums, state, _ = steps(placing="jit", steps_per_call=4)
    assert sums == alone.losses[3::4]
    for name in ("params", "ema", "opt_state"):
        ours, theirs = jax.device_get((getattr(state, name), getattr(alone.state, name)))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_as_many_steps_a_call_as_divide_all_intervals():
    training = Training(steps=1000, log_every=50, show_every=200, save_every=100)
    assert [training.in_one_call(quick, 0) for quick in (True, False)] == [10, 1]
    assert [training.in_one_call(True, at) for at in (100, 105, 106, 107)] == [10, 5, 2, 1]
    assert replace(training, steps=900, log_every=4, save_every=500).in_one_call(True, 0) == 4
    assert replace(training, steps_per_call=25).in_one_call(False, 0) == 25
    with pytest.raises(ValueError, match="steps_per_call must be a whole number"):
        Training(steps_per_call="many")


@EACH_WAY
def test_a_step_is_compiled_once(steps, alone, way):
    # before 0.8, pmap gives keys back as something else than it was given them, and is compiled for that too
    twice = jax.__version_info__ < (0, 8) and way["placing"] == "pmap"
    assert alone.compiled_later == 0
    assert steps(**way).compiled_later == twice


def test_the_loss_falls(alone):
    assert np.mean(np.diff(alone.losses)[-5:]) < 0.9 * np.mean(np.diff(alone.losses)[:5])


def test_large_leaves_are_split(steps):
    state = steps(placing="sharded").state
    for tree in (state.params, *state.ema, state.opt_state[1].mu, state.opt_state[1].nu):
        kernel, bias = tree["first"]["kernel"], tree["first"]["bias"]
        assert {shard.data.shape for shard in kernel.addressable_shards} == {(64, 32)}
        assert {shard.index[1].start for shard in kernel.addressable_shards} == set(range(0, 256, 32))
        assert bias.sharding.is_fully_replicated


def test_auto_takes_all_devices_and_splits_what_does_not_fit(monkeypatch):
    assert Trainer("auto").placing == "pmap"
    device = type("Device", (), {"memory_stats": lambda self: {"bytes_limit": 10**9}})()
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(jax, "local_device_count", lambda: 8)
    monkeypatch.setattr("jaxdiff.training.placing.Devices", lambda devices: devices)
    assert [Trainer("auto", size).placing for size in (4 * 10**8, 6 * 10**8)] == ["pmap", "sharded"]


@pytest.mark.parametrize("placing", ["jit", "pmap", "sharded"])
def test_a_loss_sees_the_averages_and_the_step(placing):
    """Whole, however they are divided; and no gradient goes through them."""
    training, trainer = replace(TRAINING, optimiser=Adam(0.5)), Trainer(placing)
    start = lambda: State.start({"w": jnp.arange(2.0**15).reshape(2**8, 2**7)}, training, jax.random.key(3))  # noqa: E731
    like = jax.eval_shape(start)
    state = jax.jit(start, out_shardings=trainer.shardings(like))()

    def objective(seen, constants, key, u, example):
        return jnp.sum(seen.ema[1]["w"][5] * seen.params["w"][7]) + 1000.0 * seen.step + 0 * example["x"]

    step = train_step(objective, training, BATCH, trainer, like)
    losses, w = [], np.arange(2.0**15).reshape(2**8, 2**7)
    for _ in range(2):
        ema = np.asarray(jax.device_get(state.ema[1]["w"]))
        w = np.asarray(jax.device_get(state.params["w"]))
        at = int(state.step)
        before = float(state.tally.loss)
        state = step(state, None, trainer.put(batch_of(0.0)))
        losses.append(float(state.tally.loss) - before)
        assert losses[-1] == pytest.approx(float(ema[5] @ w[7]) + 1000 * at, rel=1e-5)
        norm = np.linalg.norm(ema[5])
    assert float(state.tally.gradient_norm) == pytest.approx(2 * norm, rel=1e-3)
    assert np.all(np.asarray(jax.device_get(state.params["w"]))[8:] == w[8:])


def test_a_step_on_a_cpu_holds_little_at_a_time():
    network = UNet(channels=16, multipliers=(1, 2), blocks=2, attention=(1,))
    config = replace(CONFIG, system=replace(CONFIG.system, network=network, condition=None))
    experiment = Experiment(replace(config, training=Training(steps=1, placing="jit")), Path("nowhere"))
    usual, little = experiment.lowered().compile(), experiment.compiled()
    held = [each.memory_analysis().temp_size_in_bytes for each in (usual, little)]
    assert held[1] < 0.95 * held[0], held


def test_what_this_xla_cannot_be_told_is_not_said(monkeypatch):
    monkeypatch.setattr(environment, "_LITTLE_MEMORY", {"xla_cpu_of_another_day": True})
    assert environment.compiled(jax.jit(jnp.sin).lower(1.0), "cpu")(0.0) == 0
    monkeypatch.setattr(environment, "_LITTLE_MEMORY", {"xla_cpu_enable_fast_math": "neither"})
    with pytest.raises(jax.errors.JaxRuntimeError):
        environment.compiled(jax.jit(jnp.sin).lower(1.0), "cpu")


# --- one number to train --------------------------------------------------------------------------------------------

BATCH = 8
TRAINING = Training(
    steps=10, optimiser=Adam(0.1), averages=(Ema(0.5, warmup=False), Ema(0.9)), placing="jit", log_every=10, patience=3
)


def one_number(objective, training=TRAINING, placing="jit"):
    """A compiled step for params = {"w": 1}, and the state it starts from."""
    trainer = Trainer(placing)
    like = jax.eval_shape(lambda: State.start({"w": jnp.ones(())}, training, jax.random.key(3)))
    start = lambda: State.start({"w": jnp.ones(())}, training, jax.random.key(3))  # noqa: E731
    state = jax.jit(start, out_shardings=trainer.shardings(like))()
    return train_step(objective, training, BATCH, trainer, like), state, trainer


def batch_of(value):
    return {"x": np.full((1, BATCH), value, np.float32), "index": np.arange(BATCH, dtype=np.uint32)[None]}


def squared(seen, constants, key, u, example):
    return jnp.square(seen.params["w"] - example["x"])


def test_steps_averages_and_sums_as_written_out():
    step, state, trainer = one_number(squared)
    adam, w, emas, losses, norms = optax.adam(0.1), jnp.ones(()), [1.0, 1.0], 0.0, 0.0
    opt_state = adam.init(w)
    for number in range(6):
        losses, norms = losses + float((w + 2.0) ** 2), norms + float(2 * (w + 2.0))
        updates, opt_state = adam.update(2 * (w + 2.0), opt_state)
        w = w + updates
        decays = 0.5, min(0.9, (1 + number) / (10 + number))
        emas = [decay * ema + (1 - decay) * float(w) for decay, ema in zip(decays, emas, strict=True)]
        state = step(state, None, trainer.put(batch_of(-2.0)))
        assert float(state.params["w"]) == pytest.approx(float(w), rel=1e-6)
        assert [float(ema["w"]) for ema in state.ema] == pytest.approx(emas, rel=1e-5)
    assert int(state.step) == int(state.tally.steps) == 6
    assert float(state.tally.loss) == pytest.approx(losses, rel=1e-6)
    assert float(state.tally.gradient_norm) == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])  # the last has a finite gradient, and a loss that is not
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad):
    step, state, trainer = one_number(squared)
    state = step(state, None, trainer.put(batch_of(0.5)))
    before = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
    batch = batch_of(0.5)
    batch["x"][0, 5] = bad  # one example is enough
    state = step(state, None, trainer.put(batch))
    after = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
    for name in ("params", "ema", "opt_state", "key"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(after, name))
    assert (after.step, after.tally.steps, after.tally.skipped, after.tally.in_a_row) == (2, 2, 1, 1)
    assert after.tally.loss == before.tally.loss
    state = step(state, None, trainer.put(batch_of(0.5)))
    assert (int(state.tally.skipped), int(state.tally.in_a_row)) == (1, 0)
    assert float(state.params["w"]) != before.params["w"]


def test_a_loss_that_is_finite_where_its_gradient_is_not():
    def kinked(seen, constants, key, u, example):
        return jnp.sqrt(seen.params["w"] - 1.0) + example["x"]

    step, state, trainer = one_number(kinked)
    state = step(state, None, trainer.put(batch_of(0.0)))
    assert (int(state.tally.skipped), float(state.params["w"])) == (1, 1.0)


def test_a_step_whose_parameters_would_not_be_finite_changes_nothing():
    step, state, trainer = one_number(squared, replace(TRAINING, optimiser=lambda steps: optax.sgd(1e38)))
    state = step(state, None, trainer.put(batch_of(-9.0)))
    assert (int(state.tally.skipped), float(state.params["w"]), float(state.ema[1]["w"])) == (1, 1.0, 1.0)
    assert state.is_finite


@dataclass(frozen=True)
class Broken:
    """An average that divides by the number of steps so far."""

    def share(self, step):
        return 1 / step


def test_a_step_whose_averages_would_not_be_finite_changes_nothing():
    step, state, trainer = one_number(squared, replace(TRAINING, averages=(Ema(), Broken())))
    for skipped in (1, 1, 1):  # the first alone
        state = step(state, None, trainer.put(batch_of(0.5)))
        assert (int(state.tally.skipped), state.is_finite) == (skipped, True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_whether_a_state_is_finite_depends_on_every_number_and_on_no_sum(bad, dtype):
    tree = {"a": jnp.full(1001, jnp.finfo(dtype).max, dtype), "b": jnp.ones(3)}
    state = one_number(squared)[1].replace(params=tree)
    assert state.is_finite
    spoilt = {**tree, "a": tree["a"].at[700].set(bad)}
    assert not state.replace(params=spoilt).is_finite
    assert not state.replace(ema=(spoilt,)).is_finite


@pytest.mark.parametrize("placing", ["jit", "pmap", "sharded"])
def test_u_is_spread_evenly_and_keys_are_of_examples(placing):
    def turning(seen, constants, key, u, example):
        return jnp.cos(2 * jnp.pi * u) + 0.0 * seen.params["w"]

    def noisy(seen, constants, key, u, example):
        return jax.random.normal(key) + 0.0 * seen.params["w"]

    step, state, trainer = one_number(turning, placing=placing)
    assert abs(float(step(state, None, trainer.put(batch_of(0.0))).tally.loss)) < 1e-6
    step, state, trainer = one_number(noisy, placing=placing)
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), index) for index in range(BATCH)]
    mean = np.mean([jax.random.normal(key) for key in keys])
    assert float(step(state, None, trainer.put(batch_of(0.0))).tally.loss) == pytest.approx(mean, rel=1e-5)


def test_the_old_state_is_used_up():
    step, state, trainer = one_number(squared)
    step(state, None, trainer.put(batch_of(0.0)))
    assert state.params["w"].is_deleted()
    assert state.ema[0]["w"].is_deleted()


# --- the loop -------------------------------------------------------------------------------------------------------


class Book:
    """A logbook and a folder of checkpoints at once, kept in mind."""

    def __init__(self):
        self.rows, self.saved, self.pictures = [], [], []

    def advance(self, step, steps):
        self.ends = steps

    def write(self, row):
        self.rows.append(row)

    def picture(self, step, picture):
        self.pictures.append(step)

    def save(self, step, state):
        self.saved.append(step)


def looped(training, values, objective=squared, placing="jit", per_call=1):
    step, state, trainer = one_number(objective, training, placing)
    book, batches, pace = Book(), map(batch_of, values), Pace(training, state, per_call)
    show = lambda state: np.zeros((2, 2, 3), np.uint8)  # noqa: E731
    book.state, _ = train(
        pace.start(state),
        lambda state, batch: step(state, None, batch),
        map(trainer.put, batches),
        pace,
        checkpoints=book,
        logbook=book,
        show=show,
        evaluate=lambda at, state: {},
        batch_size=BATCH,
        batches_an_epoch=4.0,
    )
    return book


def test_rows_pictures_and_checkpoints_come_when_asked_for():
    training = replace(TRAINING, log_every=2, show_every=4, save_every=5)
    book = looped(training, [0.0, 0.0, np.nan, 0.0, *[0.0] * 6])
    assert [row["step"] for row in book.rows] == [2, 4, 6, 8, 10]
    assert [row["skipped"] for row in book.rows] == [0, 1, 0, 0, 0]
    assert [row["epoch"] for row in book.rows] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert (book.pictures, book.saved) == ([4, 8, 10], [5, 10])
    assert all(np.isfinite(row["loss"]) and row["images_per_second"] > 0 for row in book.rows)
    assert book.rows[0]["learning_rate"] == pytest.approx(0.1)


def test_a_row_is_the_mean_of_the_steps_that_counted():
    book = looped(replace(TRAINING, steps=3, log_every=3, optimiser=Adam(1e-12)), [0.0, np.nan, 3.0])
    assert book.rows[0]["loss"] == pytest.approx((1 + 4) / 2)
    assert book.rows[0]["gradient_norm"] == pytest.approx((2 + 4) / 2)


def test_the_learning_rate_is_that_of_the_steps_that_counted():
    """As optax schedules: of skipped steps it knows nothing."""
    training = replace(TRAINING, steps=4, log_every=1, optimiser=Adam(0.1, Schedule(warmup=100)))
    book = looped(training, [np.nan, 0.0, np.nan, 0.0])
    np.testing.assert_allclose([row["learning_rate"] for row in book.rows], [1e-3, 1e-3, 1e-3, 2e-3], rtol=1e-5)


def test_a_loss_that_stays_not_finite_stops_the_run():
    training = replace(TRAINING, log_every=2, patience=3)
    looped(training, [0.0, np.nan, np.nan, 0.0, 0.0, np.nan, np.nan, 0.0, 0.0, 0.0])
    with pytest.raises(DivergedError, match=r"not been finite for 4 steps, up to step 6: try a lower .*rate"):
        looped(training, [0.0, 0.0, *[np.nan] * 8])
    with pytest.raises(DivergedError, match=r"step 4: no step was, .*nn.Embed with too few rows.* try a lower"):
        looped(training, [np.nan] * 10)


def test_a_run_that_is_not_finite_in_the_end_has_not_gone_well():
    training = replace(TRAINING, log_every=7, patience=100)
    with pytest.raises(
        DivergedError, match=r"the last 4 steps were not finite, and changed nothing: try a lower .*rate"
    ):
        looped(training, [0.0] * 6 + [np.nan] * 4)
    with pytest.raises(DivergedError, match="the last 1 steps"):
        looped(training, [0.0] * 9 + [np.nan])


def test_parameters_that_begin_not_finite_are_not_saved(monkeypatch):
    monkeypatch.setattr(State, "is_finite", False)
    saved = []
    monkeypatch.setattr(Book, "save", lambda self, step, state: saved.append(step))
    with pytest.raises(DivergedError, match="parameters are not finite at step 5, and are not saved"):
        looped(replace(TRAINING, save_every=5), [0.0] * 10)
    assert saved == []


def sending(*numbers):
    """Batches; with the fourth come signals."""
    for step in range(10):
        if step == 3:
            for number in numbers:
                os.kill(os.getpid(), number)
        yield 0.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_end_and_saves(number):
    before = signal.getsignal(number)
    book = looped(TRAINING, sending(number))
    assert book.saved == [4]
    assert book.rows == []
    assert signal.getsignal(number) is before


def test_the_second_ctrl_c_is_not_waited_with():
    with pytest.raises(KeyboardInterrupt):
        looped(TRAINING, sending(signal.SIGINT, signal.SIGINT))


def test_nothing_is_asked_of_the_device_between_rows():
    class Watched:
        """Notes at which step something of the state is looked at."""

        def __init__(self):
            self.at, self.seen, self.is_finite, self.clock = 0, set(), True, None

        step = property(lambda self: self.seen.add(self.at) or jnp.int32(0))
        tally = property(lambda self: self.seen.add(self.at) or Tally.zero())
        updates = property(lambda self: self.seen.add(self.at) or 0)

        def replace(self, **changes):
            return self

    def step(state, batch):
        state.at += 1
        return state

    state, book = Watched(), Book()
    training = replace(TRAINING, steps=20, log_every=5, show_every=20, save_every=20)
    rest = {"checkpoints": book, "logbook": book, "show": lambda state: None, "evaluate": lambda at, state: {}}
    pace = Pace(training, state, 1)
    train(state, step, [{}] * 20, pace, **rest, batch_size=BATCH, batches_an_epoch=4.0)
    assert state.seen == {0, 5, 10, 15, 20}


def test_the_host_sends_the_batch_and_nothing_else():
    step, state, trainer = one_number(squared)
    batches = [trainer.put(batch_of(0.0)) for _ in range(3)]
    state = step(state, None, batches[0])
    with jax.transfer_guard("disallow"):
        for batch in batches[1:]:
            state = step(state, None, batch)


# --- by the clock ---------------------------------------------------------------------------------------------------


def timed(monkeypatch, seconds):
    """Values of batches without end, before each of which the clock goes on by so many seconds, of a list in turn."""
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def values():
        for number in count():
            now[0] += seconds[min(number, len(seconds) - 1)]
            yield 0.0

    return values()


@pytest.mark.parametrize("placing", ["jit", "pmap", "sharded"])
@pytest.mark.parametrize("per_call", [1, 2])
def test_a_run_by_the_clock_fits_its_schedule_to_the_speed_seen(monkeypatch, placing, per_call):
    training = replace(TRAINING, minutes=2.0, log_every=4, show_every=50, save_every=20, steps_per_call=per_call)
    training = replace(training, optimiser=Adam(0.1, Schedule("cosine")), steps=1000)
    values, batch = timed(monkeypatch, [3.0 * per_call]), batch_of(0.0)
    stacked = jax.tree.map(lambda leaf: np.repeat(leaf, per_call, 0), batch)
    monkeypatch.setitem(globals(), "batch_of", lambda value: stacked)
    book = looped(training, values, placing=placing, per_call=per_call)
    assert (book.ends, [row["step"] for row in book.rows]) == (40, list(range(4, 41, 4)))
    assert (book.pictures, book.saved) == ([40], [20, 40])
    assert float(book.state.clock.seconds) == pytest.approx(120.0)
    shares = [row["learning_rate"] / 0.1 for row in book.rows]
    assert shares == pytest.approx([(1 + np.cos(np.pi * (row["step"] - 1) / 40)) / 2 for row in book.rows], rel=1e-4)


def test_a_run_by_the_clock_that_grows_slower_or_faster_ends_in_time(monkeypatch):
    training = replace(TRAINING, minutes=2.0, log_every=5, steps=10, optimiser=Adam(0.1, Schedule("cosine")))
    for seconds in ([1.0] * 20 + [4.0], [4.0] * 10 + [0.5]):
        book = looped(training, timed(monkeypatch, seconds))
        steps = int(book.state.step)
        assert abs(sum(seconds[min(number, len(seconds) - 1)] for number in range(steps)) - 120) <= 12
        assert book.rows[-1]["learning_rate"] < 0.01


def test_checkpoints_of_runs_by_their_steps_know_no_clock():
    _, state, _ = one_number(squared)
    kept = {"step", "params", "ema", "opt_state", "key", "tally"}
    assert {
        path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda leaf: leaf is None)
    } == kept


def test_a_run_by_the_clock_counts_the_time_before_a_stop(monkeypatch):
    training = replace(TRAINING, minutes=1.0, log_every=2)
    book = looped(training, timed(monkeypatch, [3.0]))
    assert Pace(training, book.state, 1).steps == int(book.state.step) == 20
    assert Pace(replace(training, minutes=1.5), book.state, 1).steps == 30


def test_an_optimiser_that_must_know_its_steps_cannot_go_by_the_clock():
    fixed = lambda steps: optax.adam(optax.cosine_decay_schedule(1e-3, steps))  # noqa: E731
    training = Training(minutes=1.0, optimiser=fixed)
    with pytest.raises(
        ValueError, match=r"takes the number of steps as an array, as Adam\(\) does: give training.steps"
    ):
        jax.eval_shape(lambda clock: training.transform(clock).init(0.0), Clock(0.0, 100))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Training(steps=0), "steps must be a whole number, at least 1"),
        (lambda: Training(averages=()), r"from one average, such as Ema\(\)"),
        (lambda: Training(steps_per_call=7), "steps that steps_per_call=7 divides"),
        (lambda: Training(save_every=500, keep_every=1200), "keep_every that save_every=500 divides"),
        (lambda: Training(patience=0), "patience > 0"),
        (lambda: Training(minutes=0), "a finite number of minutes > 0"),
        (lambda: Training(minutes=math.inf), "a finite number of minutes > 0"),
        (lambda: Training(minutes=1, schedule_steps=5), "without schedule_steps"),
        (lambda: Config(CONFIG.system, batch_size=30, training=Training(accumulate=4)), "accumulate=4 divides"),
        (lambda: Config(CONFIG.system, seed=-1), "0 <= seed"),
        (lambda: Trainer("many"), "placing must be one of auto, jit, pmap, sharded"),
        (lambda: Trainer("pmap").check_batch(12), "8 devices do not divide a batch of 12: 8 or 16 would do"),
        (lambda: Trainer("pmap").check_batch(24, 2), "8 devices and accumulate=2 do not .* 16 or 32 would do"),
        (lambda: Trainer("jit").check_batch(3), None),
    ],
)
def test_bad_settings_are_refused(call, says):
    if says is None:
        call()
    else:
        with pytest.raises(ValueError, match=says):
            call()
