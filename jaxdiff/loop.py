"""The training loop: steps, rows of metrics, pictures and checkpoints, until the end or until told to stop."""

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.checkpoint import Checkpoints
from jaxdiff.logbook import Logbook
from jaxdiff.parallel import Trainer, agreed
from jaxdiff.training import State, Tally, Training


class DivergedError(ValueError):
    """The loss has not been finite for too long."""


class StopAsked:
    """Ctrl-C or SIGTERM ask for a stop after the step that is under way; the second Ctrl-C is Python's own."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.by: str | None = None

    def __enter__(self) -> "StopAsked":
        self._before: dict[int, Any] = {number: signal.signal(number, self._asked) for number in self.SIGNALS}
        return self

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.by = signal.Signals(number).name
        signal.signal(number, self._before[number])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(
    state: State,
    step: Callable[[State, Any, Any], State],
    constants: Any,
    batches: Iterable[dict[str, np.ndarray]],
    training: Training,
    trainer: Trainer,
    *,
    checkpoints: Checkpoints,
    logbook: Logbook | None,
    show: Callable[[State], np.ndarray],
    batch_size: int,
    batches_an_epoch: float,
) -> tuple[State, str | None]:
    """The last state, and the signal that stopped it before the end if one did. The first process has the logbook."""
    at, taken, seconds = int(state.step), 0, 0.0
    with StopAsked() as stop:
        begin = time.perf_counter()
        for batch in batches:
            state = step(state, constants, trainer.put(batch))
            at += training.steps_per_call
            taken += training.steps_per_call
            last = at == training.steps
            logs, shows, saves = (at % n == 0 for n in (training.log_every, training.show_every, training.save_every))
            meets = logs or shows or saves or jax.process_count() == 1  # several would wait for each other at each step
            asked = meets and agreed(stop.by is not None)
            if logs or shows or saves or last or asked:
                jax.block_until_ready(state.step)
            seconds += time.perf_counter() - begin
            if logbook is not None:
                logbook.advance(at)
            if logs:
                row = _row(state.tally, training, at, at / batches_an_epoch, batch_size * taken / seconds)
                state = state.replace(tally=_written(state.tally))  # type: ignore[attr-defined]
                taken, seconds = 0, 0.0
                if logbook is not None:
                    logbook.write(row)
                _check(int(state.tally.in_a_row), training, at)
            if last or shows:
                picture = show(state)
                if logbook is not None:
                    logbook.picture(at, picture)
            if last or asked or saves:  # after what belongs to this step is written
                checkpoints.save(at, state)
            if asked:
                break
            begin = time.perf_counter()
    return state, None if at == training.steps else stop.by


def _row(tally: Tally, training: Training, step: int, epoch: float, rate: float) -> dict[str, float]:
    """The means since the last row, of the steps that counted."""
    sums = jax.device_get(tally)
    counted = int(sums.steps) - int(sums.skipped)
    learning_rate = training.optimiser.learning_rate(jnp.float32(step - 1), training.steps)
    return {
        "step": step,
        "epoch": epoch,
        "loss": float(sums.loss) / counted if counted else float("nan"),
        "gradient_norm": float(sums.gradient_norm) / counted if counted else float("nan"),
        "learning_rate": float(learning_rate),
        "skipped": int(sums.skipped),
        "images_per_second": rate,
    }


def _written(tally: Tally) -> Tally:
    """Zero again, where the old one lives."""
    zero = jax.device_get(Tally.zero())  # from the host: JAX 0.10 fails to put it from one process's only device on all
    zero = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), zero, tally)
    return replace(zero, in_a_row=tally.in_a_row)


def _check(in_a_row: int, training: Training, step: int) -> None:
    if in_a_row >= training.patience:
        raise DivergedError(
            f"the loss has not been finite for {in_a_row} steps, up to step {step}: try a lower "
            f"training.optimiser.rate, training.optimiser.clip=1.0 or a longer training.optimiser.schedule.warmup, "
            f"with --restart or in another --workdir"
        )
