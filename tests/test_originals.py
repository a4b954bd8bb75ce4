"""MNIST, Fashion-MNIST and CIFAR-10 without TensorFlow: from servers that are whole, cut off, wrong, silent or slow."""

import gzip
import hashlib
import io
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxdiff.base import files
from jaxdiff.data import Tfds, download, originals
from jaxdiff.data.download import Original, fetched

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Answers in the way that the first part of the address says; /cut/x gives half of x, and the rest if asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = {"it": CONTENT}, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, way, name="it"):
        return f"http://127.0.0.1:{self.server_port}/{way}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):  # as the library calls it
        _, way, name = self.path.split("/")
        self.server.asked.append((way, self.headers.get("Range")))
        if way == "gone" or name not in self.server.files:
            return self.send_error(404)
        content = self.server.files[name]
        whole = len(content)
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if way != "forgetful" else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(whole - begin))
        self.end_headers()
        content = content[begin:]
        if way == "wrong":
            content = content[::-1]
        if way in ("cut", "forgetful"):
            content = content[: whole // 2]
        if way == "slow":
            self.wfile.write(content[:1000])
            self.wfile.flush()
            time.sleep(2)
            return None
        self.wfile.write(content)
        return None


@pytest.fixture
def server():
    with Server() as running:
        yield running
        running.shutdown()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.3)

    def of(*ways):
        mirrors = tuple(map(server.url, ways))
        return fetched(Original("it", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), mirrors), tmp_path / "d")

    return of


def test_it_is_downloaded_once(get, server):
    assert get("whole").read_bytes() == CONTENT
    assert get("whole").read_bytes() == CONTENT
    assert server.asked == [("whole", None)]


def test_what_was_cut_off_is_resumed(get, server):
    assert get("cut").read_bytes() == CONTENT
    assert server.asked == [("cut", None), ("cut", f"bytes={len(CONTENT) // 2}-")]


def test_a_killed_download_is_resumed_by_the_next(get, server, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "it.part").write_bytes(CONTENT[:1234])
    assert get("whole").read_bytes() == CONTENT
    assert server.asked == [("whole", "bytes=1234-")]


@pytest.mark.parametrize("left", [b"x" * 1234, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)], ids=len)
def test_what_another_left_may_be_wrong(left, get, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "it.part").write_bytes(left)
    assert get("whole").read_bytes() == CONTENT


@pytest.mark.parametrize("way", ["gone", "wrong", "slow", "forgetful"])
def test_the_next_mirror_is_asked(way, get, server):
    assert get(way, "whole").read_bytes() == CONTENT
    assert [asked for asked, _ in server.asked][-1] == "whole"


def test_where_none_has_it_the_reasons_are_said_in_one_line(get, server, tmp_path):
    said = r"it could not be downloaded \(127.*: 404 Not Found; .*: another file: its checksum differs; .*: timed out; "
    said += r".*: the connection breaks off\): put it into .*d yourself"
    with pytest.raises(ValueError, match=said) as refused:
        get("gone", "wrong", "slow", "forgetful")
    assert "\n" not in str(refused.value)
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match="refused"):
        get("whole")


def test_what_was_put_there_by_hand_is_taken(get, server, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "it").write_bytes(CONTENT)
    assert get("whole").read_bytes() == CONTENT
    assert server.asked == []


def test_what_is_there_is_taken_from_a_folder_that_cannot_be_written(get, tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "it").write_bytes(CONTENT)
    monkeypatch.setattr(files, "hold", lambda *_, **__: pytest.fail("it was to be written"))
    assert get("whole").read_bytes() == CONTENT


def test_a_file_that_is_damaged_is_fetched_again(get, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "it").write_bytes(CONTENT[:-1])
    assert get("whole").read_bytes() == CONTENT


# --- the data sets --------------------------------------------------------------------------------------------------

COUNTS = {"train": 35, "test": 10}
RANDOM = np.random.default_rng(0)
GRAY = {split: RANDOM.integers(0, 256, (n, 28, 28, 1), np.uint8) for split, n in COUNTS.items()}
COLOUR = {split: RANDOM.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in COUNTS.items()}
LABELS = {split: RANDOM.integers(0, 10, n) for split, n in COUNTS.items()}
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def published(name):
    """The files of a data set, as their authors' pages describe them."""
    if name == "cifar10":
        rows = {
            s: np.column_stack([LABELS[s], COLOUR[s].transpose(0, 3, 1, 2).reshape(n, -1)]) for s, n in COUNTS.items()
        }
        batches = dict(zip([f"data_batch_{i + 1}.bin" for i in range(5)], np.split(rows["train"], 5), strict=True))
        inside = {name: batch.astype(np.uint8).tobytes() for name, batch in batches.items()}
        inside |= {"test_batch.bin": rows["test"].astype(np.uint8).tobytes()}
        inside |= {"batches.meta.txt": ("\n".join(NAMES) + "\n\n").encode()}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for file, content in inside.items():
                entry = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return {"cifar-10-binary.tar.gz": packed.getvalue()}
    found = {}
    for split, start in (("train", "train"), ("test", "t10k")):
        header = np.array([2051, COUNTS[split], 28, 28], ">i4").tobytes()
        found[f"{start}-images-idx3-ubyte.gz"] = gzip.compress(header + GRAY[split].tobytes())
        header = np.array([2049, COUNTS[split]], ">i4").tobytes()
        found[f"{start}-labels-idx1-ubyte.gz"] = gzip.compress(header + LABELS[split].astype(np.uint8).tobytes())
    return found


@pytest.fixture
def at_home(server, tmp_path, monkeypatch):
    """TFDS's folder and the cache are new; the mirror is the server."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAXDIFF_MIRROR", server.url("whole", ""))


@pytest.mark.parametrize("name", originals.FORMS)
def test_it_is_what_was_published_in_the_order_of_tfds(name, server, at_home, tmp_path, monkeypatch):
    server.files = published(name)
    builder = tfds.builder(name, data_dir=tmp_path / "tfds", file_format="array_record")
    small = {
        url: SimpleNamespace(filename=info.filename, size=len(content), checksum=hashlib.sha256(content).hexdigest())
        for url, info in builder.url_infos.items()
        for content in (server.files[info.filename],)
    }
    monkeypatch.setattr(type(builder), "url_infos", small)
    monkeypatch.setattr("jaxdiff.data.tfds._prepare", lambda *_: originals.prepare(builder))
    images = COLOUR if name == "cifar10" else GRAY
    for split in COUNTS:
        examples = Tfds(name, split).open()
        assert len(examples) == COUNTS[split]
        order = [int(np.flatnonzero((images[split] == image).all((1, 2, 3)))[0]) for image in examples.images]
        assert sorted(order) == list(range(COUNTS[split])) != order  # shuffled, as TFDS does
        np.testing.assert_array_equal(examples.labels, LABELS[split][order])
        if name == "cifar10":
            assert examples.classes == NAMES
    if name == "cifar10":
        ids = [record["id"] for record in tfds.data_source(name, split="test", data_dir=tmp_path / "tfds")]
        assert ids == [f"test_{row:05d}".encode() for row in order]


@pytest.mark.parametrize(("content", "says"), [(None, "404 Not Found"), (b"no images", "the connection breaks off")])
def test_a_mirror_without_it_is_refused_in_one_line(content, says, server, at_home, tmp_path):
    server.files = {} if content is None else {"t10k-images-idx3-ubyte.gz": content}
    with pytest.raises(ValueError, match=rf"could not be prepared: .*: {says}\): put it into .* yourself") as refused:
        Tfds("mnist").open()
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "tfds" / "mnist").exists()
