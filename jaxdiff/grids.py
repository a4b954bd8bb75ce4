"""The times at which a sampler evaluates the denoiser. A grid is a value apart from process and sampler.

`grid(process, steps)` gives the steps + 1 falling times of `steps` steps. Those laid by noise level (sigma / alpha)
or over the entries of a table end with a step to clean data at t = 0, unless `to_data` is False.
"""

from dataclasses import dataclass
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.process import Discrete, Process

Times = Float[Array, "steps+1"]


class Grid(Protocol):
    def __call__(self, process: Process, steps: int) -> Times: ...


def checked(times: Times | np.ndarray) -> Times:
    """The times, if they fall strictly within [0, 1]."""
    values = np.asarray(times)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a grid must be a row of at least two times, for one step, got shape {values.shape}")
    if not (np.all(np.diff(values) < 0) and values[0] <= 1 and values[-1] >= 0):
        raise ValueError(
            f"a grid must fall strictly, from at most 1 to at least 0, got {np.array2string(values, threshold=8)}"
        )
    return jnp.asarray(times, float)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")


@dataclass(frozen=True)
class Uniform:
    """Even steps of t from `first` to `last`; of t^(1/power) if a power is given."""

    first: float = 1.0
    last: float = 0.0
    power: float = 1.0

    def __call__(self, process: Process, steps: int) -> Times:
        _check_steps(steps)
        return checked(_even(self.first ** (1 / self.power), self.last ** (1 / self.power), steps) ** self.power)


@dataclass(frozen=True)
class Quadratic(Uniform):
    """Steps of t that shrink towards the data: even steps of its square root."""

    power: float = 2.0


def _even(first: Array | float, last: Array | float, steps: int) -> Times:
    return jnp.linspace(first, last, steps + 1)


@dataclass(frozen=True)
class _NoiseLevels:
    """Levels sigma / alpha from that at `first` to that at `last` (by default the ends of the process's range)."""

    first: float | None = None
    last: float | None = None
    to_data: bool = True

    def __call__(self, process: Process, steps: int) -> Times:
        _check_steps(steps)
        first = process.t_max if self.first is None else self.first
        last = process.t_min if self.last is None else self.last
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

    rho: float = 7.0

    def _between(self, process: Process, first: Array, last: Array, steps: int) -> Times:
        ratios = _even(process.at(first).ratio ** (1 / self.rho), process.at(last).ratio ** (1 / self.rho), steps)
        return process.time(-2 * self.rho * jnp.log(ratios))


@dataclass(frozen=True)
class _TableEntries:
    """Entries of a discrete table from a high one down, then clean data; or, without `to_data`, its first entry."""

    to_data: bool = True

    def __call__(self, process: Process, steps: int) -> Times:
        if not isinstance(process, Discrete):
            raise ValueError(f"{type(self).__name__} walks the entries of a table, and {process} has none: use Uniform")
        _check_steps(steps)
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
    """Every (T // steps)-th entry from `offset` up (DDIM). Without `to_data` and offset this is a step fewer."""

    offset: int = 0

    def indices(self, entries: int, steps: int) -> np.ndarray:
        return np.arange(steps) * (entries // steps) + self.offset


@dataclass(frozen=True)
class Trailing(_TableEntries):
    """Every (T / steps)-th entry from the last down: always starts from pure noise (Lin et al. 2024)."""

    def indices(self, entries: int, steps: int) -> np.ndarray:
        return np.round(np.arange(entries, 0, -entries / steps))[::-1].astype(int) - 1


@dataclass(frozen=True)
class Linspace(_TableEntries):
    """Entries evenly from the first to the last, both ends included (improved DDPM's respacing)."""

    def indices(self, entries: int, steps: int) -> np.ndarray:
        return np.round(np.linspace(0, entries - 1, steps if self.to_data else steps + 1)).astype(int)
