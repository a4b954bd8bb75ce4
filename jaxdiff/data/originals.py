"""MNIST, Fashion-MNIST and CIFAR-10 from the files in which they were published, without TensorFlow.

TFDS's own builder writes them, so that what is prepared here is what TFDS would have prepared: the same examples in
the same order. It also knows the files' addresses and checksums.
"""

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxdiff.base.files import cache_folder
from jaxdiff.data.download import Original, fetched

Rows = Iterator[tuple[np.ndarray, int]]  # images, and their labels


class Form(NamedTuple):
    """Where else the files are, and how they are read."""

    mirrors: tuple[str, ...]  # addresses, tried in turn
    read: Callable[[Path, str], Rows]  # from a folder, a split


def _idx(folder: Path, split: str) -> Rows:
    """Yann LeCun's form: a header of big-endian numbers, then bytes."""
    start = {"train": "train", "test": "t10k"}[split]
    images = gzip.decompress((folder / f"{start}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{start}-labels-idx1-ubyte.gz").read_bytes())
    shape = np.frombuffer(images, ">i4", 3, offset=4)
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(shape)
    return zip(pixels, np.frombuffer(labels, np.uint8, offset=8).tolist(), strict=True)


def _cifar(folder: Path, split: str) -> Rows:
    """Alex Krizhevsky's form: a byte of the label, then the planes of red, green and blue."""
    names = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}[split]
    for name in names:
        rows = np.frombuffer(_in_archive(folder, name), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        yield from zip(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].tolist(), strict=True)


def _in_archive(folder: Path, name: str) -> bytes:
    with tarfile.open(folder / "cifar-10-binary.tar.gz") as archive:
        return archive.extractfile(f"cifar-10-batches-bin/{name}").read()  # type: ignore[union-attr]


FORMS = {
    "mnist": Form(("https://ossci-datasets.s3.amazonaws.com/mnist/",), _idx),
    "fashion_mnist": Form(("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",), _idx),
    "cifar10": Form(
        (
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
        ),
        _cifar,
    ),
}


def prepare(builder: Any) -> None:
    """Downloads the files of a builder of TFDS, and has it write their examples."""
    form, folder = FORMS[builder.name], cache_folder() / "downloads" / builder.name
    for original in _originals(builder, form):
        fetched(original, folder)
    if builder.name == "cifar10":  # which learns them from the files; the others have them
        names = _in_archive(folder, "batches.meta.txt").decode().split()
        builder.info.features["label"].names = names
    with_id = "id" in builder.info.features
    builder._split_generators = lambda manager: {
        split: _examples(form.read(folder, split), split if with_id else None) for split in ("train", "test")
    }
    builder.download_and_prepare()


def _originals(builder: Any, form: Form) -> Iterator[Original]:
    """From $JAXDIFF_MIRROR alone, if that is set; else where TFDS would download them, then from the other mirrors."""
    own = os.environ.get("JAXDIFF_MIRROR")
    for url, info in builder.url_infos.items():
        mirrors = (own.rstrip("/") + "/",) if own else (url.removesuffix(info.filename), *form.mirrors)
        yield Original(info.filename, int(info.size), info.checksum, tuple(m + info.filename for m in mirrors))


def _examples(rows: Rows, id_of: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """As TFDS takes them: numbered, the image as the file that is kept. Without TensorFlow it cannot encode one."""
    for number, (pixels, label) in enumerate(rows):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        file.seek(0)
        named = {} if id_of is None else {"id": f"{id_of}_{number:05d}"}
        yield number, {"image": file, "label": label, **named}
