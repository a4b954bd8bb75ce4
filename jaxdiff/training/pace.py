"""How long a run goes on: for its steps, or by the clock, in which then as many are fitted as its speed allows."""

import time
from collections.abc import Iterator

import numpy as np

from jaxdiff.base.devices import from_first, in_place_of
from jaxdiff.training.optimisers import learning_rate_of
from jaxdiff.training.state import Clock, State, Training


class Pace:
    """`steps` is where the run ends, as far as is known. Time counts from `begin` on, by default now: compiling too."""

    def __init__(self, training: Training, state: State, per_call: int, begin: float | None = None):
        self.training, self.per_call = training, per_call
        self._begin = time.perf_counter() if begin is None else begin
        self._at, self._since = int(state.step), self._begin
        self._before = 0.0 if state.clock is None else float(state.clock.seconds)
        known = self._before > 0  # a speed, from before
        steps = self._fitting(self._at, self._at / self._before) if known else training.steps
        self.steps = int(from_first(np.int32(steps)))

    def start(self, state: State) -> State:
        """The state that goes on. Speed counts from here on: all is compiled."""
        self._since = time.perf_counter()
        return self._noted(state)

    def fit(self, at: int, state: State) -> State:
        """The state that knows how many steps fit, as seen at step `at`; of a run by its steps as it is."""
        if state.clock is not None:
            speed = (at - self._at) / (time.perf_counter() - self._since)
            self.steps = self._fitting(at, speed)
        return self._noted(state)

    def learning_rate(self, updates: int) -> float:
        """Of the update after so many."""
        training = self.training
        steps = training.schedule_length if training.minutes is None else self.steps
        return learning_rate_of(training.optimiser, updates, steps)

    def _noted(self, state: State) -> State:
        """The state with the clock of the first of the processes, by whose the others go too."""
        if state.clock is None:
            return state
        clock = from_first(Clock(np.float32(self._seconds), np.int32(self.steps)))  # type: ignore[arg-type]
        self.steps = int(clock.steps)
        return state.replace(clock=in_place_of(state.clock, clock))  # type: ignore[attr-defined]

    @property
    def _seconds(self) -> float:
        """For which it has trained."""
        return self._before + time.perf_counter() - self._begin

    def _fitting(self, at: int, speed: float) -> int:
        """The steps at the end, at so many a second: in whole calls, at most as many as JAX counts."""
        left, call = max(60 * (self.training.minutes or 0.0) - self._seconds, 0.0), self.per_call
        return min(at + int(speed * left) // call * call, 2**31 - call)


def resumed(before: Training, now: Training, state: State) -> Iterator[str]:
    """What becomes of the learning rate, where a run is resumed at another length."""
    at, changed = state.updates, (before.steps, before.schedule_length) != (now.steps, now.schedule_length)
    end = at + now.steps - 1 - int(state.step)
    rates = before.learning_rate(at - 1), now.learning_rate(at), now.learning_rate(end)
    if now.minutes is None and changed and np.isfinite(rates).all():
        was, comes, last = (f"{rate:.3g}" for rate in rates)
        length = f"training.schedule_steps={now.schedule_length}"
        yield f"the learning rate was {was}, is {comes} and will be {last} at step {now.steps:,}, by {length}"


def longer(training: Training, state: State) -> str:
    """What more time would do to a run that is at its end."""
    if training.minutes is not None:
        return f", {training.minutes:g} minutes; with more training.minutes it would go on"
    rate = training.learning_rate(state.updates)
    return f"; more training.steps would go on at the learning rate {rate:.3g}" if np.isfinite(rate) else ""
