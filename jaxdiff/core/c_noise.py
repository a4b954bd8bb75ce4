"""The noise level as the network receives it, c_noise: (process, t) -> c_noise."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxdiff.core.process import Process, Scalar
from jaxdiff.core.tables import Discrete

CNoise = Callable[[Process, Scalar], Scalar]


def time(process: Process, t: Scalar) -> Scalar:
    """t, from 0 to 1."""
    return t


@dataclass(frozen=True)
class ScaledTime:
    """t times a factor, 1000 say: for networks whose embedding was made for step numbers."""

    factor: float = 1000.0  # of t

    def __call__(self, process: Process, t: Scalar) -> Scalar:
        return self.factor * t


def index(process: Process, t: Scalar) -> Scalar:
    """The step number, from 0; a fraction between two entries of the table."""
    if not isinstance(process, Discrete):
        raise ValueError(f"only a Discrete process numbers its steps, {process} does not: use time or ScaledTime()")
    return process.index(t)


def log_sigma(process: Process, t: Scalar) -> Scalar:
    """log(sigma / alpha)."""
    return -process.log_snr(t) / 2


def quarter_log_sigma(process: Process, t: Scalar) -> Scalar:
    """log(sigma / alpha) / 4, EDM's c_noise."""
    return log_sigma(process, t) / 4


def quarter_log_snr(process: Process, t: Scalar) -> Scalar:
    """log-SNR / 4."""
    return process.log_snr(t) / 4
