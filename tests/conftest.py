"""Every test runs on eight fake CPU devices, and silent broadcasting between ranks is an error."""

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator

# What tests run is small, and what they compile is much: XLA takes the short way, here and in the commands they start.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"  # for `optimised` tests
)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # nobody looks where in Python an operation came from
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: _compiled.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
)


def pytest_configure(config: pytest.Config) -> None:
    """What one process has compiled, all have: the other workers, and the commands that tests start.

    So it is with what jaxdiff caches, and the user's own cache stays as it was.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        cache = tempfile.TemporaryDirectory(prefix="jaxdiff-tests-", ignore_cleanup_errors=True)
        config.add_cleanup(cache.cleanup)
        os.environ["JAXDIFF_CACHE"] = cache.name
        programs = os.path.join(cache.name, "programs")
        kept = {"jax_compilation_cache_dir": programs, "jax_persistent_cache_min_compile_time_secs": 0.1}
        for name, value in kept.items():
            os.environ[name.upper()] = str(value)
            jax.config.update(name, value)


@pytest.fixture(autouse=True)
def as_before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a command leaves to its process is gone after a test: a user's own files, and how it hears Ctrl-C."""
    modules, path, folder = set(sys.modules), list(sys.path), str(tmp_path_factory.getbasetemp())
    heard = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, heard)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
            del sys.modules[name]


@pytest.fixture(scope="session")
def compiled() -> list[str]:
    """One entry for each program that XLA has compiled so far."""
    return _compiled


@pytest.fixture
def optimised() -> Iterator[None]:
    """For a test that runs much: its programs are compiled with the optimisations that cost little."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


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
jax.config.update("jax_cpu_enable_async_dispatch", False)  # as the commands have it; else programs wait for each other
gc.set_threshold(200_000, 20, 50)  # tracing makes many objects: collected as often as usual, they cost a tenth of all
