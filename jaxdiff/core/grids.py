"""The times at which a sampler evaluates the denoiser. A grid is a value apart from process and sampler.

`grid(process, steps)` gives the steps + 1 falling times of `steps` steps. Those laid by noise level (sigma / alpha)
or over the entries of a table end with a step to clean data at t = 0, unless `to_data` is False.
"""

from dataclasses import dataclass
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.base.checks import check, whole
from jaxdiff.core.process import Process
from jaxdiff.core.tables import LONGEST, Discrete

Times = Float[Array, "steps+1"]


class Grid(Protocol):
    """(process, steps) -> steps + 1 falling times: any function or frozen dataclass that gives them."""

    def __call__(self, process: Process, steps: int) -> Times: ...


def checked(times: Times | np.ndarray) -> Times:
    """The times, if they fall strictly within [0, 1]."""
    values = np.asarray(times)
    if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"times must be a row of at least two numbers, such as Uniform()(process, steps) of jaxdiff.core.grids, "
            f"got {times!r}"
        )
    values = values.astype(jnp.result_type(float))  # in float32 two times may become one
    if not (np.all(values[1:] < values[:-1]) and values[0] <= 1 and values[-1] >= 0):
        raise ValueError(
            f"a grid must fall strictly, from at most 1 to at least 0, got {np.array2string(values, threshold=8)}"
        )
    return jnp.asarray(values)


def _check(process: Process, steps: int) -> None:
    if not isinstance(process, Process):
        raise ValueError(f"a grid is called as grid(process, steps), got {process!r} for the process")
    whole("steps", steps, 1, LONGEST + 1)


@dataclass(frozen=True)
class Uniform:
    """Even steps of t from `first` to `last`; of t^(1/power) if a power is given."""

    first: float = 1.0  # the time of the noisiest point, at most 1
    last: float = 0.0  # the time at which the grid ends, 0 being clean data
    power: float = 1.0  # steps are even in t^(1/power)

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise ValueError(f"needs power > 0, got {self}")

    def __call__(self, process: Process, steps: int) -> Times:
        _check(process, steps)
        return checked(_even(self.first ** (1 / self.power), self.last ** (1 / self.power), steps) ** self.power)


@dataclass(frozen=True)
class Quadratic(Uniform):
    """Steps of t that shrink towards the data: even steps of its square root."""

    power: float = 2.0


def _even(first: Array | float, last: Array | float, steps: int) -> Times:
    return jnp.linspace(first, last, steps + 1)


@dataclass(frozen=True)
class _NoiseLevels:
    """Levels sigma / alpha from that at time `first` to that at time `last`, by default the process's range."""

    first: float | None = None  # the time of the highest level; None: the process's t_max
    last: float | None = None  # the time of the lowest level; None: the process's t_min
    to_data: bool = True  # whether the last step goes to clean data at t = 0

    def __call__(self, process: Process, steps: int) -> Times:
        _check(process, steps)
        first = process.t_max if self.first is None else self.first
        last = process.t_min if self.last is None else self.last
        if not np.isfinite([float(process.log_snr(first)), float(process.log_snr(last))]).all():
            raise ValueError(
                f"noise levels of {process} are finite from t = {process.t_max} to {process.t_min}: "
                f"first and last are times within these, got {self}"
            )
        append = self.to_data and last > 0
        inner = steps - 1 if append else steps
        if inner == 0:
            return checked(np.array([first, 0.0]))
        times = self._between(process, jnp.asarray(first, float), jnp.asarray(last, float), inner)
        times = times.at[0].set(first).at[-1].set(last)  # not moved by rounding
        return checked(jnp.append(times, 0.0) if append else times)

    def _between(self, process: Process, first: Array, last: Array, steps: int) -> Times:
        raise NotImplementedError


@dataclass(frozen=True)
class LogSNR(_NoiseLevels):
    """Even steps of log-SNR: the natural grid of exponential integrators (DPM-Solver)."""

    def _between(self, process: Process, first: Array, last: Array, steps: int) -> Times:
        return process.time(_even(process.log_snr(first), process.log_snr(last), steps))


@dataclass(frozen=True)
class Karras(_NoiseLevels):
    """Even steps of (sigma / alpha)^(1/rho) (Karras et al. 2022)."""

    rho: float = 7.0  # the larger it is, the more of the steps are at low noise

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise ValueError(f"needs rho > 0, got {self}")

    def _between(self, process: Process, first: Array, last: Array, steps: int) -> Times:
        ratios = _even(process.at(first).ratio ** (1 / self.rho), process.at(last).ratio ** (1 / self.rho), steps)
        return process.time(-2 * self.rho * jnp.log(ratios))


@dataclass(frozen=True)
class _TableEntries:
    """Entries of a discrete table from a high one down, then clean data.

    Without `to_data` they end at entry 0, one step fewer than asked if entry 0 is among them already.
    """

    to_data: bool = True  # whether the last step goes to clean data at t = 0

    def __call__(self, process: Process, steps: int) -> Times:
        _check(process, steps)
        if not isinstance(process, Discrete):
            raise ValueError(f"{type(self).__name__} walks the entries of a table, and {process} has none: use Uniform")
        if steps > process.steps:
            raise ValueError(f"steps must be at most the {process.steps} entries of the table, got {steps}")
        entries = self.indices(process.steps, steps)
        if not self.to_data and entries[0] > 0:
            entries = np.insert(entries, 0, 0)
        times = process.time_of_index(entries[::-1])
        return checked(np.append(times, 0.0) if self.to_data else times)

    def indices(self, entries: int, steps: int) -> np.ndarray:
        """The entries walked, rising."""
        raise NotImplementedError


@dataclass(frozen=True)
class Leading(_TableEntries):
    """Every (T // steps)-th entry from `offset` up (DDIM): in few steps it starts far below the last, the noisiest."""

    offset: int = 0  # the lowest entry, from 0

    def indices(self, entries: int, steps: int) -> np.ndarray:
        indices = np.arange(steps) * (entries // steps) + self.offset
        if not isinstance(self.offset, int) or indices[0] < 0 or indices[-1] >= entries:
            raise ValueError(f"offset must leave {steps} steps within the {entries} entries, got {self}")
        return indices


@dataclass(frozen=True)
class Trailing(_TableEntries):
    """Every (T / steps)-th entry down from the last, the noisiest, where it always starts (Lin et al. 2024)."""

    def indices(self, entries: int, steps: int) -> np.ndarray:
        return np.round(np.arange(1, steps + 1) * entries / steps).astype(int) - 1


@dataclass(frozen=True)
class Linspace(_TableEntries):
    """Entries evenly from the last to the first, both included (improved DDPM's respacing); in one step, the last."""

    def indices(self, entries: int, steps: int) -> np.ndarray:
        walked = steps if self.to_data else steps + 1
        check(walked <= entries, f"without to_data steps must be below the {entries} entries of the table, got {steps}")
        if walked == 1:
            return np.array([entries - 1])
        return np.round(np.arange(walked) * (entries - 1) / (walked - 1)).astype(int)
