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

    def ask(self, case: str) -> Any:
        """What a case returns; None if this contender has no such case."""
        return self._process.submit(_call, case).result()

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


def prepare_torch() -> None:
    """All cores, and freed memory kept as `keep_memory` does it, without importing jax."""
    import torch

    for setting in ((-4, 0), (-1, -1)):
        ctypes.CDLL(None).mallopt(*setting)
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def ddpm_cifar10() -> Any:
    """DDPM's UNet for CIFAR-10 as diffusers has it: 35,746,307 parameters."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        norm_eps=1e-6,
    )
