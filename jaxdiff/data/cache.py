"""Decode once, keep the pixels on the disk, and map them into memory from then on.

The cache is in $JAXDIFF_CACHE, or $XDG_CACHE_HOME/jaxdiff, or ~/.cache/jaxdiff. Each entry is a folder named by a hash
of all that its pixels depend on, so it never goes stale; files that a disk did not give are tried again. Any of them
may be deleted at any time. Where the pixels are not kept, which records can be read still is, so that the number of
examples is known at once the next time.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from jaxdiff.base.files import beside, cache_folder, clear, free_bytes, hold, npy_header
from jaxdiff.base.text import shown
from jaxdiff.data.examples import Cache, Images
from jaxdiff.data.records import Chunk, Decoded, Records, survey

TRIED = 32  # of the files that could not be read, each time
_VERSION = 2  # of the way in which images are decoded and kept
_USUAL_LIMIT = Image.MAX_IMAGE_PIXELS  # larger images are not decoded
_ABOUT, _NUMBERS, _LABELS, _IMAGES = "about.json", "numbers.npy", "labels.npy", "images.npy"


@dataclass(frozen=True, eq=False)
class Stored:
    """What is known of records once all of them were decoded."""

    numbers: np.ndarray  # of the readable ones
    images: Images
    labels: np.ndarray | None
    unreadable: tuple[tuple[str, str], ...]


def stored(records: Records, cache: Cache) -> Stored:
    """The records decoded: mapped from the cache, or decoded when asked for.

    `cache` True keeps the pixels, False does not, "auto" does if they take at most a quarter of the free disk.
    """
    if cache not in (True, False, "auto"):
        raise ValueError(f'cache must be True, False or "auto", got {cache!r}')
    with_pixels, without = cache_folder() / _key(records), cache_folder() / f"{_key(records)}-index"
    keep = cache is True or (cache == "auto" and (with_pixels.exists() or _fits(records)))
    for entry in (with_pixels,) if keep else (without, with_pixels):
        found = _load(entry, records, keep)
        if found is not None:
            return found
    entry = with_pixels if keep else without
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with hold(entry.with_name(f"{entry.name}.lock"), wait=True):
            found = _load(entry, records, keep)  # another process may have made it meanwhile
            if found is None:
                _write(entry, records, keep)
                found = _load(entry, records, keep, tried=True)
    except OSError as error:
        if cache is True:
            raise ValueError(f"cannot write to the cache, {error}: set JAXDIFF_CACHE to a folder that can be") from None
        found = _unstored(records, error)
    if found is None:
        raise ValueError(f"{entry} was damaged as soon as it was written: delete it, and look at the disk")
    return found


def _key(records: Records) -> str:
    limit = [] if Image.MAX_IMAGE_PIXELS == _USUAL_LIMIT else [Image.MAX_IMAGE_PIXELS]
    identity = json.dumps([_VERSION, PIL.__version__, records.identity, records.shape, *limit])
    title = "".join(c if c.isalnum() else "-" for c in records.title)
    return f"{title[:40]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _fits(records: Records) -> bool:
    return 4 * int(np.prod(records.shape)) <= free_bytes(cache_folder())


def _load(entry: Path, records: Records, pixels: bool, tried: bool = False) -> Stored | None:
    """An entry, if it is there and whole; not `tried` just now, what it lacks is."""
    try:
        about = json.loads((entry / _ABOUT).read_bytes())
        numbers = np.load(entry / _NUMBERS)
        labels = np.load(entry / _LABELS) if (entry / _LABELS).exists() else None
        images = np.load(entry / _IMAGES, mmap_mode="r") if pixels else Decoded(records, numbers)
        unreadable = tuple((str(name), str(reason)) for name, reason in about["unreadable"])
        if not tried and _are_back(records, about.get("away", [])):
            return None
    except Exception:  # a damaged file leads to errors of many classes; it is made again
        return None
    return Stored(numbers, images, labels, unreadable)


def _are_back(records: Records, away: Sequence[int]) -> bool:
    """Whether files that could not be read can be now; some are tried."""
    some = away[:: -(-len(away) // TRIED)] if away else []
    return bool(some) and any(not isinstance(each, ValueError) for each in records.load(some)[0])


def _write(entry: Path, records: Records, pixels: bool) -> None:
    """Made beside its place and moved there when all of it is written. To be called alone."""
    clear(entry.parent, entry.name)
    shutil.rmtree(entry, ignore_errors=True)  # damaged
    with beside(entry) as new:
        new.mkdir()
        if pixels:
            with open(new / _IMAGES, "wb") as file:
                file.write(npy_header("|u1", records.shape))
                numbers, labels, unreadable, away = _collect(records, lambda chunk: file.write(chunk.images.data))
                file.seek(0)
                file.write(npy_header("|u1", (len(numbers), *records.shape[1:])))
        else:
            numbers, labels, unreadable, away = _collect(records)
        np.save(new / _NUMBERS, numbers)
        if labels is not None:
            np.save(new / _LABELS, labels)
        about = {"of": records.title, "shape": records.shape, "unreadable": unreadable, "away": away}
        (new / _ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        new.rename(entry)


def _collect(
    records: Records, keep: Callable[[Chunk], object] = lambda chunk: None
) -> tuple[np.ndarray, np.ndarray | None, list[tuple[str, str]], list[int]]:
    """Decodes all: numbers of the readable, their labels, and the others, also those of them that are away.

    Only `keep` sees the images.
    """
    numbers, labels, unreadable, away = [], [], [], []
    with tqdm(total=records.shape[0], desc=f"decoding {shown(records.title)}", unit=" images", disable=None) as bar:
        for chunk in survey(records):
            keep(chunk)
            numbers.append(chunk.numbers)
            labels.append(chunk.labels)
            unreadable += chunk.unreadable
            away += chunk.away
            bar.update(len(chunk.numbers) + len(chunk.unreadable))
    known = [some for some in labels if some is not None]
    return np.concatenate(numbers), np.concatenate(known) if known else None, unreadable, away


def _unstored(records: Records, error: OSError) -> Stored:
    warnings.warn(
        f"cannot write to the cache, {error}: images are decoded anew each time they are asked for; set JAXDIFF_CACHE "
        f"to a folder that can be written",
        stacklevel=4,
    )
    numbers, labels, unreadable, _ = _collect(records)
    return Stored(numbers, Decoded(records, numbers), labels, tuple(unreadable))
