"""The training loop: steps, rows of metrics, pictures and checkpoints, until the end or until asked to stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdiff.base.devices import agreed, in_place_of
from jaxdiff.base.words import plural
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.logbook import Logbook
from jaxdiff.training.pace import Pace
from jaxdiff.training.state import State, Tally, Training


class DivergedError(ValueError):
    """Loss, gradient or parameters have not been finite for too long."""


class StopAsked:
    """Ctrl-C or SIGTERM ask for a stop after the step that is under way; the second Ctrl-C is Python's own."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.by: str | None = None

    def __enter__(self) -> "StopAsked":
        heard = self.SIGNALS if threading.current_thread() is threading.main_thread() else ()  # others hear none
        self._before: dict[int, Any] = {number: signal.signal(number, self._asked) for number in heard}
        return self

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.by = signal.Signals(number).name
        signal.signal(number, self._before[number])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(
    state: State,
    step: Callable[[State, Any], State],
    batches: Iterable[Any],
    pace: Pace,
    *,
    checkpoints: Checkpoints,
    logbook: Logbook | None,
    show: Callable[[State], np.ndarray],
    evaluate: Callable[[int, State], dict[str, float]],
    batch_size: int,
    batches_an_epoch: float,
) -> tuple[State, str | None]:
    """The last state, and the signal that stopped it before the end if one did. The first process has the logbook."""
    at, clock, asked = int(state.step), _Clock(batch_size), False
    with StopAsked() as stop:
        for batch in batches:
            state = step(state, batch)
            at += pace.per_call
            due = _due(pace, at)
            asked = (any(due) or jax.process_count() == 1) and agreed(stop.by is not None)  # where processes meet
            if any(due) or asked:
                jax.block_until_ready(state.step)
                state = pace.fit(at, state)
                due = _due(pace, at)
            clock.stop(pace.per_call)
            if logbook is not None:
                logbook.advance(at, pace.steps)
            if due.log:
                row = _Row(at, at / batches_an_epoch, clock.rate())
                state = _log(state, pace, logbook, row, evaluate(at, state) if due.evaluate else {})
            if due.show:
                _show(at, show(state), logbook)
            if due.save or asked:  # after what belongs to this step is written
                _save(at, state, checkpoints)
            if asked or at >= pace.steps:
                break
            clock.start()
    check_end(state, pace.steps)
    return state, (stop.by or "SIGTERM") if asked and at < pace.steps else None  # of another process, it may be


def _save(at: int, state: State, checkpoints: Checkpoints) -> None:
    if not state.is_finite:  # it began so: no step makes it so
        raise DivergedError(f"the parameters are not finite at step {at}, and are not saved: look at how they begin")
    checkpoints.save(at, state)


def _show(at: int, picture: np.ndarray, logbook: Logbook | None) -> None:
    if logbook is not None:
        logbook.picture(at, picture)


class _Due(NamedTuple):
    """What is to be done after a step."""

    log: bool
    evaluate: bool
    show: bool
    save: bool


def _due(pace: Pace, at: int) -> _Due:
    training, last = pace.training, at >= pace.steps
    shows, saves = at % training.show_every == 0, at % training.save_every == 0
    logs = at % training.log_every == 0
    last_row = logs and at + training.log_every > pace.steps
    evaluates = at % training.evaluates_every == 0 or last_row
    return _Due(logs, evaluates, shows or last, saves or last)


class _Clock:
    """Seconds spent in steps since the last row, and images in them."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size, self._steps, self._seconds = batch_size, 0, 0.0
        self.start()

    def start(self) -> None:
        self._begin = time.perf_counter()

    def stop(self, steps: int) -> None:
        self._seconds += time.perf_counter() - self._begin
        self._steps += steps

    def rate(self) -> float:
        """Images a second; the next ones are counted anew."""
        rate, self._steps, self._seconds = self._batch_size * self._steps / self._seconds, 0, 0.0
        return rate


class _Row(NamedTuple):
    """What a row of metrics has that the state does not know."""

    step: int
    epoch: float
    rate: float  # images a second


def _log(state: State, pace: Pace, logbook: Logbook | None, row: _Row, seen: dict[str, float]) -> State:
    """Writes a row of metrics, with those `seen` of what is held out; the state with its sums at zero again."""
    numbers = _numbers(state, pace, row) | seen
    state = state.replace(tally=_written(state.tally))  # type: ignore[attr-defined]
    if logbook is not None:
        logbook.write(numbers)
    _check(state, pace.training)
    return state


def _numbers(state: State, pace: Pace, row: _Row) -> dict[str, float]:
    """The means since the last row, of the steps that counted."""
    sums = jax.device_get(state.tally)
    counted = int(sums.steps) - int(sums.skipped)
    return {
        "step": row.step,
        "epoch": row.epoch,
        "loss": float(sums.loss) / counted if counted else float("nan"),
        "gradient_norm": float(sums.gradient_norm) / counted if counted else float("nan"),
        "learning_rate": pace.learning_rate(max(state.updates - 1, 0)),
        "skipped": int(sums.skipped),
        "images_per_second": row.rate,
    }


def _written(tally: Tally) -> Tally:
    """Zero again, where the old one lives."""
    return replace(in_place_of(tally, Tally.zero()), in_a_row=tally.in_a_row)


def _check(state: State, training: Training) -> None:
    step, in_a_row = int(state.step), int(state.tally.in_a_row)
    if in_a_row >= training.patience:
        steps = f"{plural(in_a_row, 'step')}, up to step {step}"
        raise DivergedError(f"loss, gradient or parameters have not been finite for {steps}: {_instead(state)}")


def check_end(state: State, steps: int) -> None:
    """A run whose last steps changed nothing has not learned what it was to learn."""
    in_a_row = int(state.tally.in_a_row)
    if in_a_row and int(state.step) >= steps:
        raise DivergedError(f"the last {in_a_row} steps were not finite, and changed nothing: {_instead(state)}")


def _instead(state: State) -> str:
    never = "no step was, so look at network and data first (a flax nn.Embed with too few rows gives NaN); or "
    return (
        f"{'' if state.updates else never}try a lower training.optimiser.rate, training.optimiser.clip=1.0 or a "
        "longer training.optimiser.schedule.warmup, with --restart or in another --workdir"
    )
