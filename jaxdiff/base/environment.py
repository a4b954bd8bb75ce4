"""What a process sets before JAX does anything: memory, compiled programs, logging, several processes."""

import ctypes
import logging
import os
import sys
import warnings

import jax

from jaxdiff.base import accelerators, compiling, files
from jaxdiff.base.console import warn
from jaxdiff.base.text import shown


def prepare(distributed: bool = False, elsewhere: bool = False) -> None:
    """A process that trains or samples: on a CPU it keeps its memory, and compiled programs are kept on the disk.

    What compiles for long says so, and so does an accelerator that is not used. With `elsewhere` it compiles for a
    machine that is not here.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not accelerators.is_prepared():
        keep_memory()
        if elsewhere:  # CUDA's plugin is not there to compile for a GPU where it looks for one and finds none
            jax.config.update("jax_platforms", "cpu")
    _quieten()
    if distributed:  # before anything is said, which asks JAX for the number of this process
        count, number = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")  # JAX itself reads the address only
        jax.distributed.initialize(num_processes=count, process_id=number)
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        _keep_programs()
    compiling.announce()
    accelerators.check_used()


def _keep_programs() -> None:
    """In the cache; in one that cannot be written to, those that are there are found still."""
    folder = files.cache_folder() / "programs"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    warnings.filterwarnings("ignore", "Error .* persistent compilation cache")  # once is enough:
    try:
        files.check_place(folder / "program", "set JAXDIFF_CACHE to a folder that can be")
    except ValueError as error:
        warn(f"compiled programs are not kept, {error}")


def _quieten() -> None:
    """An error in a checkpoint is raised and becomes one line; Orbax's threads would each print theirs as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook
    sys.unraisablehook = lambda what: None if "Event loop is closed" in str(what.exc_value) else usual(what)
    warnings.filterwarnings("ignore", "Image size")  # Pillow's, of images that are left out for it
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(shown(str(message)).split())}\n"


def _number(name: str) -> int | None:
    """The number in an environment variable."""
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, got {text!r}")
    return None if text is None else int(text)


def keep_memory() -> None:
    """What this process frees stays its own, for the next step. To be called before JAX does anything.

    On a CPU, XLA allocates the workspace of each call anew. glibc would get it from the system page by page each time,
    which takes a sixth of a training step; it keeps memory for the main thread only, so that one must do the work.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: which never shrinks
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def give_back() -> None:
    """The pages that are free go back to the system: else the threads of each checkpoint leave holes in the heap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def compiled(lowered: jax.stages.Lowered, platform: str) -> jax.stages.Compiled:
    """On a CPU to hold little at a time: by itself XLA begins more at once, in up to half as much memory again."""
    if platform != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(_LITTLE_MEMORY)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
    return lowered.compile()


_LITTLE_MEMORY: dict[str, str | bool] = (  # two names of the same, of newer JAX and of older
    {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if jax.__version_info__ >= (0, 9, 1)
    else {"xla_cpu_enable_concurrency_optimized_scheduler": False}
)
