"""Discrete processes: a table of betas, and the smooth process through its entries."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np

from jaxdiff.base.checks import whole
from jaxdiff.core.process import Process, Scalar, Time

LONGEST = 10**6  # entries of a table, and steps of a grid


@dataclass(frozen=True)
class _Table:
    steps: int = 1000  # T, the number of entries

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1, LONGEST + 1)


@dataclass(frozen=True)
class LinearBetas(_Table):
    """DDPM's table: betas rise linearly (Ho et al. 2020)."""

    first: float = 1e-4  # beta at entry 0, the least noisy
    last: float = 0.02  # beta at the last entry

    def __call__(self) -> np.ndarray:
        return np.linspace(self.first, self.last, self.steps)


@dataclass(frozen=True)
class ScaledLinearBetas(_Table):
    """Latent diffusion's table: the square roots of the betas rise linearly (Rombach et al. 2022)."""

    first: float = 0.00085  # beta at entry 0, the least noisy
    last: float = 0.012  # beta at the last entry

    def __call__(self) -> np.ndarray:
        return np.linspace(self.first**0.5, self.last**0.5, self.steps) ** 2


@dataclass(frozen=True)
class CosineBetas(_Table):
    """The table whose alpha-bar follows a squared cosine with offset s (Nichol & Dhariwal 2021)."""

    s: float = 0.008  # the cosine's offset
    largest: float = 0.999  # no beta is larger

    def __call__(self) -> np.ndarray:
        t = np.linspace(0, 1, self.steps + 1)
        alpha_bar = np.cos((t + self.s) / (1 + self.s) * np.pi / 2) ** 2
        return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], self.largest)


@dataclass(frozen=True)
class ZeroTerminalSNR:
    """Another table, rescaled to zero terminal SNR (Lin et al. 2024)."""

    betas: "Betas"  # the other table

    def __call__(self) -> np.ndarray:
        alpha = np.sqrt(np.cumprod(1 - betas_of(self.betas)))
        if len(alpha) < 2:
            raise ValueError(f"{self} needs a table of at least two entries")
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        return 1 - (alpha / np.concatenate([[1.0], alpha[:-1]])) ** 2


Betas = Callable[[], np.ndarray] | tuple[float, ...]


def betas_of(betas: Betas) -> np.ndarray:
    """A table of betas as float64 numbers, checked."""
    try:
        table = np.asarray(betas() if callable(betas) else betas, np.float64)
    except TypeError:
        message = "betas must be a table with a whole number of steps, such as LinearBetas(1000), or a row of numbers"
        raise ValueError(f"{message}, got {betas!r}") from None
    if table.ndim != 1 or not table.size:
        raise ValueError(f"betas must be a row of at least one number, got shape {table.shape}")
    legal = (table > 0) & (table < 1)
    legal[-1] |= table[-1] == 1  # the last may leave no signal at all
    if not legal.all():
        k = int(np.argmin(legal))
        raise ValueError(f"betas must lie within (0, 1), only the last may be 1; number {k} is {table[k]}")
    return table


@dataclass(frozen=True)
class Discrete(Process):
    """A DDPM: any table of T betas. Entry k (from 0) stands at t = (k + 1) / T, and t = 0 is clean data.

    Between entries the square of the angle arctan(sigma / alpha) runs along a monotone cubic (near the data sigma
    goes as the square root of t), so that alpha² + sigma² stays 1 and continuous solvers run on it too.
    """

    betas: Betas = LinearBetas()  # the table: a function that gives it, or its numbers

    def __post_init__(self) -> None:
        betas_of(self.betas)
        if not callable(self.betas):  # a list or an array would make the process unhashable
            object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """The table of alpha² that papers call alpha-bar, in float64; alpha_bar[k] belongs to entry k."""
        return np.cumprod(1 - betas_of(self.betas))

    @property
    def steps(self) -> int:
        """T, the number of entries."""
        return len(self.alpha_bar)

    @property
    def t_min(self) -> float:
        return 1 / self.steps

    def index(self, t: Time) -> Scalar:
        """The place of t in the table, from 0: a whole number at an entry, else a fraction between two."""
        index = jnp.asarray(t * self.steps - 1.0)
        whole, error = jnp.round(index), max(1e-3, 2 * self.steps * float(jnp.finfo(index.dtype).eps))
        return jnp.where(jnp.abs(index - whole) < error, whole, index)  # rounding must not move an entry to one below

    def time_of_index(self, index: np.ndarray) -> np.ndarray:
        """The time at which an entry of the table stands: the inverse of `index`."""
        return (np.asarray(index, np.float64) + 1) / self.steps

    @cached_property
    def _curves(self) -> tuple[np.ndarray, np.ndarray]:
        """The squared angle and its complement, each with float64's precision near its own zero."""
        alpha_bar = np.concatenate([[1.0], self.alpha_bar])
        angle = np.arctan2(np.sqrt(1 - alpha_bar), np.sqrt(alpha_bar))
        complement = np.arctan2(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)) * (np.pi / 2 + angle)  # (pi/2)² - angle²
        return _monotone_cubic(angle**2), _monotone_cubic(complement)

    def alpha(self, t: Time) -> Scalar:
        return jnp.sin(_interpolate(self._curves[1], t) / (np.pi / 2 + self._angle(t)))  # sin(pi/2 - angle)

    def sigma(self, t: Time) -> Scalar:
        return jnp.sin(self._angle(t))

    def _angle(self, t: Time) -> Scalar:
        return jnp.sqrt(_interpolate(self._curves[0], t))


def _monotone_cubic(values: np.ndarray) -> np.ndarray:
    """Values and slopes at both ends of each interval; slopes limited: it never turns (Fritsch & Carlson 1980)."""
    secants = np.diff(values)
    direction = np.sign(secants[0])
    limit = 3 * np.minimum(abs(np.append(secants, secants[-1])), abs(np.insert(secants, 0, secants[0])))
    slopes = direction * np.clip(direction * np.gradient(values, edge_order=2 if len(values) > 2 else 1), 0, limit)
    return np.stack([values[:-1], values[1:], slopes[:-1], slopes[1:]])


def _interpolate(cubic: np.ndarray, t: Time) -> Scalar:
    """The cubic over the equal intervals of [0, 1], at t."""
    steps = cubic.shape[1]
    u = jnp.asarray(t, float) * steps
    k = jnp.clip(jnp.floor(u).astype(int), 0, steps - 1)
    w = u - k
    low, high, rise_low, rise_high = jnp.asarray(cubic, u.dtype)[:, k]
    ends = (1 - w) ** 2 * (1 + 2 * w) * low + w**2 * (3 - 2 * w) * high  # exactly the entries at w = 0 and 1
    return ends + w * (1 - w) * ((1 - w) * rise_low - w * rise_high)
