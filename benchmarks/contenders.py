"""Contenders: processes that take turns on all cores; and what the ones on PyTorch have in common."""

import ctypes
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

Cases = dict[str, Callable[[], Any]]

_cases: Cases = {}  # of the process of a contender


class Contender:
    """A process of its own, with the cases that `prepare` makes."""

    def __init__(self, prepare: Callable[[], Cases]):
        self._process = ProcessPoolExecutor(1, get_context("spawn"), _start, (prepare,))
        self.best: dict[str, float] = {}

    def ask(self, case: str, seconds: float | None = None) -> Any:
        """What a case returns, or a TimeoutError after so many seconds; None if this contender has no such case."""
        return self._process.submit(_call, case).result(seconds)

    def kill(self) -> None:
        """Ends the process, whatever it is at; what it held on the card is free again."""
        for process in list((self._process._processes or {}).values()):  # as `kill_workers` of Python 3.14 does it
            process.kill()
        self._process.shutdown(cancel_futures=True)

    def seconds(self, case: str) -> float:
        return self._process.submit(_seconds, case).result()

    def take_turn(self, case: str) -> None:
        self.best[case] = min(self.best.get(case, math.inf), self.seconds(case))


def _start(prepare: Callable[[], Cases]) -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # one GPU for all
    _cases.update(prepare())


def _call(case: str) -> Any:
    return _cases[case]() if case in _cases else None


def _seconds(case: str) -> float:
    begin = time.perf_counter()
    _call(case)
    return time.perf_counter() - begin


def told(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a call returns, or {"error": what it raised, in one line}: not every exception comes through to another."""
    try:
        return call()
    except Exception as error:
        return {"error": in_one_line(error)}


def in_one_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line[:200]}".removesuffix(": ")


def prepare_torch() -> None:
    """All cores, and freed memory kept as `keep_memory` does it, without importing jax."""
    import torch

    for setting in ((-4, 0), (-1, -1)):
        ctypes.CDLL(None).mallopt(*setting)
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def ddpm_cifar10(**changes: Any) -> Any:
    """DDPM's UNet for CIFAR-10 as diffusers has it: 35,746,307 parameters."""
    from diffusers import UNet2DModel

    settings = {
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "attention_head_dim": None,
        "norm_eps": 1e-6,
    }
    return UNet2DModel(**(settings | changes))
