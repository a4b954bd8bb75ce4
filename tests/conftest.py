"""Every test runs on eight fake CPU devices, and silent broadcasting between ranks is an error."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: _compiled.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
)


@pytest.fixture(scope="session")
def compiled() -> list[str]:
    """One entry for each program that XLA has compiled so far."""
    return _compiled


jax.config.update("jax_numpy_rank_promotion", "raise")
