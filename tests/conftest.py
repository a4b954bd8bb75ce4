"""Every test runs on eight fake CPU devices, and silent broadcasting between ranks is an error."""

import gc
import os
import sys
from collections.abc import Callable, Iterator

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: _compiled.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
)


@pytest.fixture(scope="session")
def compiled() -> list[str]:
    """One entry for each program that XLA has compiled so far."""
    return _compiled


@pytest.fixture(scope="module")
def compiled_quickly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For tests that compile much and run little: with few optimisations, and equal programs but once."""
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture
def optimised() -> Iterator[None]:
    """For those among them that run much after all."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command in this process: the exit code of its main, and what that wrote to stdout and stderr."""

    def of(main: Callable[[], int], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return of


jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(200_000, 20, 50)  # tracing makes many objects: collected as often as usual, they cost a tenth of all
