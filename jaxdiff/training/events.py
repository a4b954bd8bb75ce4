"""TensorBoard's file of events. tensorboardX's own writer is a thread: a full disk ends it, and all wait for it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

_SECONDS = 30  # between two times that the file is brought up to date


class Events:
    """One more file in the folder; from step `start` on it takes the place of what earlier ones have."""

    def __init__(self, folder: Path, start: int):
        folder.mkdir(exist_ok=True)
        self._writer, self._due = EventsWriter(str(folder / "events")), 0.0
        self._write(step=start, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._write(step=step, summary=summary.scalar(name, value))
        if time.monotonic() > self._due:
            self._writer.flush()
            self._due = time.monotonic() + _SECONDS

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        self._write(step=step, summary=summary.image(name, picture, dataformats="HWC"))

    def _write(self, **event: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **event))

    def close(self) -> None:
        self._writer.close()
