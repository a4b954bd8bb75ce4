"""Batches that become smaller where they are too large for the memory."""

from collections.abc import Callable, Iterator
from typing import Any

from jaxdiff.base.console import say
from jaxdiff.base.text import exhausted
from jaxdiff.base.words import plural


def halving(batches: Callable[[int, int], Iterator[Any]], count: int, size: int, fixed: bool) -> Iterator[Any]:
    """What `batches(done, size)` gives of `count` images from the one numbered `done` on, an array for each batch."""
    done = 0
    while done < count:
        try:
            for batch in batches(done, size):
                yield batch
                done += len(batch)
        except (RuntimeError, MemoryError) as error:
            if fixed or size == 1 or not exhausted(error):
                raise
            size //= 2
            say(f"too little memory: going on with {plural(size, 'image')} at a time")
