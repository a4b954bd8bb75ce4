"""Files from the network: checked, resumed where they stopped, and from another mirror if one fails."""

import hashlib
import http.client
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import certifi
from tqdm import tqdm

from jaxdiff.base import files

PATIENCE = 30.0  # seconds without a byte, after which the next mirror is asked
_PIECE = 2**18


@dataclass(frozen=True)
class Original:
    """A file as it was published."""

    name: str
    size: int
    sha256: str
    mirrors: tuple[str, ...]  # URLs, in the order in which they are asked


class _FailedError(Exception):
    """A mirror does not give the file; the message says why."""


def fetched(original: Original, folder: Path) -> Path:
    """The file in this folder, where it may be already, put there by hand; if not, it is downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / original.name, folder / f"{original.name}.part"
    if _is(path, original):  # a folder that cannot be written will do
        return path
    with files.hold(folder / f"{original.name}.lock", wait=True):  # another process may be at it
        if _is(path, original):
            return path
        reasons = []
        for url in original.mirrors:
            try:
                _download(url, part, original)
                os.replace(part, path)
                return path
            except _FailedError as failure:
                reasons.append(f"{urllib.parse.urlsplit(url).netloc}: {failure}")
    said = "; ".join(reasons)
    raise ValueError(f"{original.name} could not be downloaded ({said}): put it into {folder} yourself, or try again")


def _download(url: str, part: Path, original: Original) -> None:
    """All of a file, in as many pieces as the mirror makes of it; what another one gave before is kept."""
    while True:
        begun = _size(part)
        if begun < original.size:
            _append(url, part, original)
        if _is(part, original):
            return
        if begun < _size(part) < original.size:  # cut off, but on the way
            continue
        damaged = _size(part) >= original.size
        if damaged:
            part.unlink()
        if not (damaged and begun):  # what came from elsewhere may have been wrong: once more, from the beginning
            raise _FailedError("another file: its checksum differs" if damaged else "the connection breaks off")


def _append(url: str, part: Path, original: Original) -> None:
    """What comes after that which is there, or if the server cannot, all from the beginning."""
    begun = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE, context=_trusted()) as answer:
            resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            with open(part, "ab" if resumed else "wb") as file, _bar(original, begun if resumed else 0) as bar:
                while file.tell() <= original.size and (piece := _read(answer)):
                    file.write(piece)
                    bar.update(len(piece))
    except urllib.error.HTTPError as error:
        raise _FailedError(f"{error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _FailedError(str(getattr(error, "reason", error)) or type(error).__name__) from None


def _trusted() -> ssl.SSLContext:
    """With certificates where Python has none of its own, as those of python.org for macOS."""
    context, paths = ssl.create_default_context(), ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        context.load_verify_locations(certifi.where())
    return context


def _read(answer: http.client.HTTPResponse) -> bytes:
    """Nothing at the end, wherever the connection is cut off."""
    try:
        return answer.read(_PIECE)
    except TimeoutError:
        raise
    except (http.client.IncompleteRead, OSError):  # an ssl.SSLError is one
        return b""


def _bar(original: Original, begun: int) -> tqdm:
    return tqdm(
        total=original.size, initial=begun, desc=original.name, unit="B", unit_scale=True, file=sys.stderr, leave=False
    )


def _is(path: Path, original: Original) -> bool:
    return _size(path) == original.size and _sha256(path) == original.sha256


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
