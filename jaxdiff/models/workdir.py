"""The folder of a run: its own, and what is in it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jaxdiff.base import files
from jaxdiff.base.console import say
from jaxdiff.base.devices import agreeing, is_first

WRITTEN = (  # in the folder of a run, beside config.json
    *("best", "best.json", "checkpoints", "codec", "data.json", "evaluation", "evaluation.json", "events"),
    *("latents-*.npy", "loss.png", "metrics.csv", "samples", "teacher", "trajectories.npz", "unreadable.txt"),
    *("about.json", "drawn", "report.html"),
)


@contextlib.contextmanager
def prepared(folder: Path, restart: bool = False) -> Iterator[None]:
    """A folder of its own for a run; an old run moves aside if it is to start over."""
    try:
        str(folder.absolute()).encode()  # as Orbax wants it
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "its name is not UTF-8"
        raise ValueError(f"{folder} cannot be made ({why}): give another --workdir") from None
    with contextlib.ExitStack() as held:
        with agreeing():  # the others wait until the folder is the new one
            if is_first():
                held.enter_context(_taken(folder, restart))
        yield


@contextlib.contextmanager
def _taken(folder: Path, restart: bool) -> Iterator[None]:
    """The folder held for this process alone, without what killed ones left."""
    with contextlib.ExitStack() as held:
        held.enter_context(files.locked(folder))
        if restart and any((folder / name).exists() for name in ("config.json", *WRITTEN)):
            aside = files.unused(folder.absolute().with_name(f"{folder.absolute().name}_old"))
            held.close()  # Windows moves no folder in which a file is open
            os.replace(folder, aside)
            folder.mkdir()
            held.enter_context(files.locked(folder))
            say(f"the old run is now {aside}")
        for name in ("drawn", "samples"):
            files.clear(folder / name)
        yield
