"""The accelerator that this machine has, and what to do where JAX computes on the CPU beside it."""

import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxdiff.base.console import warn
from jaxdiff.base.text import first_line


@dataclass(frozen=True)
class Accelerator:
    """One kind of them: JAX's name for it, and where JAX's code for it comes from."""

    name: str
    platform: str
    plugins: dict[str, str]  # a package, and the extra of jax that brings it; the first is proposed
    is_there: Callable[[Path], bool]  # judged by the files of the system, since JAX may be what is wrong


def _file(*patterns: str) -> Callable[[Path], bool]:
    return lambda root: any(path.exists() for pattern in patterns for path in root.glob(pattern))


def _tpu(root: Path) -> bool:
    """Among the devices on the PCI bus: Google's network cards have its vendor number too."""
    chips = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")  # v2 to TPU7x
    folders = [path.parent for path in root.glob("sys/bus/pci/devices/*/vendor") if _word(path) == "0x1ae0"]
    return any(_word(folder / "device") in chips for folder in folders)


def _word(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


ACCELERATORS = (
    Accelerator("a TPU", "tpu", {"libtpu": "tpu"}, _tpu),
    Accelerator(
        "an NVIDIA GPU",
        "cuda",
        {"jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13"},
        _file("dev/nvidia[0-9]*", "usr/lib/wsl/lib/libcuda.so*"),  # the second is what Windows gives its Linux
    ),
    Accelerator("an AMD GPU", "rocm", {"jax-rocm7-plugin": "rocm7-local"}, _file("dev/kfd")),
)


def present(root: Path = Path("/")) -> Accelerator | None:
    """What this machine has, whether JAX can use it or not."""
    return next((each for each in ACCELERATORS if each.is_there(root)), None)


def is_prepared(root: Path = Path("/")) -> bool:
    """Whether it has one, and JAX something for it."""
    there = present(root)
    return there is not None and _installed(there)[1] is not None


def check_used(root: Path = Path("/")) -> None:
    """Warns where JAX computes on the CPU beside an accelerator, unless JAX_PLATFORMS asks for the CPU."""
    platforms, accelerator = jax.config.jax_platforms, present(root)  # type: ignore[attr-defined]
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)  # it warns as well, without a cure
    try:
        used = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the second where it knows nothing of that name
        cure = f"; {_cure(accelerator, str(error))}" if accelerator else "; unset it, and JAX takes what there is"
        raise ValueError(f"JAX_PLATFORMS={platforms} cannot be had here: {_said(error)}{cure}") from error
    if used == "cpu" and accelerator is not None and platforms != "cpu":
        reason, cure = _why(accelerator)
        warn(f"computing on the CPU, though this machine has {accelerator.name}: {reason}; {cure}")


def _why(accelerator: Accelerator) -> tuple[str, str]:
    """Why JAX does not use it, and what to do."""
    try:
        jax.devices(accelerator.platform)
    except RuntimeError as error:
        plugin, version = _installed(accelerator)
        if version is None:
            reason = f"JAX has nothing for it ({plugin} is not installed)"
        elif "Unknown backend" in str(error):
            reason = f"{plugin} {version} does not go with JAX {jax.__version__}"
        else:
            reason = _said(error)
        return reason, _cure(accelerator, str(error))
    return "JAX prefers the CPU here", f"unset JAX_PLATFORMS, or set it to {accelerator.platform}"


def _cure(accelerator: Accelerator, error: str) -> str:
    if "in use" in error:
        return "end that process; in a notebook, shut down the other one's runtime"
    extra = accelerator.plugins[_installed(accelerator)[0]]
    return f'pip install "jax[{extra}]=={jax.__version__}", and in a notebook restart the runtime'


def _installed(accelerator: Accelerator) -> tuple[str, str | None]:
    """The package by which JAX uses it and its version; without one, that which to install."""
    for name in accelerator.plugins:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return next(iter(accelerator.plugins)), None


def _said(error: Exception) -> str:
    """Without the advice that JAX adds, which `_cure` knows better; an assertion says nothing."""
    told = first_line(error).partition(" (set JAX_PLATFORMS")[0].removesuffix(".")
    return "JAX has no such platform" if isinstance(error, AssertionError) else told
