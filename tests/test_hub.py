"""Data sets of the Hugging Face Hub: from a stand-in for it on this machine, from the cache, and from nowhere."""

import hashlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from jaxdiff.data import Hub
from jaxdiff.data.identity import identity_of

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(find_spec("datasets") is None, reason="the library datasets is not here")

# --- a hub ------------------------------------------------------------------------------------------------------------


class StandIn(ThreadingHTTPServer):
    """What of the Hub's interface `datasets` asks for, with repositories of files in memory."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits, self.gated = {}, set()  # by name and revision: the hash, and the files by path
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def commit(self, name, files, *tags):
        said = repr(sorted((path, hashlib.sha1(content).hexdigest()) for path, content in files.items()))
        commit = hashlib.sha1(said.encode()).hexdigest()
        self.commits.update({(name, revision): (commit, files) for revision in ("main", commit, *tags)})
        return commit


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):  # as the library calls it
        length = int(self.headers.get("Content-Length") or 0)
        asked = parse_qs(self.rfile.read(length).decode()).get("paths", [])
        parts = unquote(urlsplit(self.path).path).strip("/").removeprefix("api/").split("/")
        if parts[0] != "datasets" or len(parts) < 3:
            return self.say(404)
        name, (kind, revision, *below) = "/".join(parts[1:3]), parts[3:] or ("revision", "main")
        if name in self.server.gated:
            return self.say(401, error="GatedRepo")
        if (name, "main") not in self.server.commits:
            return self.say(401, error="RepoNotFound")
        if (name, revision) not in self.server.commits:
            return self.say(404, error="RevisionNotFound")
        commit, files = self.server.commits[name, revision]
        if kind == "resolve":
            return self.file(commit, files, "/".join(below))
        if kind == "revision":
            return self.json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})
        everything = listed(files)
        if kind == "paths-info":
            return self.json([everything[path] for path in asked if path in everything])
        above = "".join(f"{part}/" for part in below)
        within = {path.removeprefix(above): about for path, about in everything.items() if path.startswith(above)}
        deep = "recursive=true" in self.path
        return self.json([about for path, about in within.items() if deep or "/" not in path])

    do_HEAD = do_POST = do_GET

    def file(self, commit, files, path):
        if path not in files:
            return self.say(404, error="EntryNotFound", X_Repo_Commit=commit)
        return self.say(200, files[path], ETag=f'"{hashlib.sha1(files[path]).hexdigest()}"', X_Repo_Commit=commit)

    def json(self, value):
        self.say(200, json.dumps(value).encode())

    def say(self, status, content=b"", error=None, **headers):
        self.send_response(status)
        headers |= {"Content-Length": str(len(content))} | ({"X-Error-Code": error} if error else {})
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def listed(files):
    """Files and folders, as the Hub describes them."""
    folders = {str(above) for path in files for above in Path(path).parents[:-1]}
    found = {path: {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in sorted(folders)}
    for path, content in files.items():
        oid = hashlib.sha1(content).hexdigest()
        found[path] = {"type": "file", "oid": oid, "size": len(content), "path": path}
    return found


# --- what is in it ----------------------------------------------------------------------------------------------------


def png(level, height=6, width=6, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (width, height), (level,) * 3 if mode == "RGB" else level).save(file, "PNG")
    return file.getvalue()


def parquet(features, **columns):
    """A file of rows; images are given by the bytes of their files."""
    import datasets

    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            columns[name] = [None if data is None else {"bytes": data, "path": None} for data in columns[name]]
    file = io.BytesIO()
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(file)
    return file.getvalue()


def fill(hub):
    import datasets

    datasets.disable_progress_bars()
    image, text = datasets.Image(), datasets.Value("string")
    kind = datasets.ClassLabel(names=["no", "yes"])

    def add(name, features, tags=(), split="train", more=None, **columns):
        path = f"data/{split}-00000-of-00001.parquet"
        return hub.commit(name, {path: parquet(features, **columns)} | (more or {}), *tags)

    first = [png(10), png(20), b"no image", png(40), None]
    test = {"data/test-00000-of-00001.parquet": parquet({"img": image, "label": kind}, img=[png(90)], label=[1])}
    both = {"img": image, "label": kind}
    old = add("me/kinds", both, ("v1",), more=test, img=[png(10), png(21)], label=[1, 0])
    add("me/kinds", both, more=test, img=first, label=[1, 0, 1, 1, 0])
    add("me/same", both, ("other",), more=test, img=[*first[:3], png(50), None], label=[1, 0, 1, 1, 0])
    add("me/same", both, more=test, img=first, label=[1, 0, 1, 1, 0])
    add("me/same", both, ("v2",), more={**test, "README.md": b"about it"}, img=first, label=[1, 0, 1, 1, 0])
    add("me/gray", {"picture": image}, picture=[png(7, 3, 5, "L")] * 3)
    add("me/sizes", {"image": image}, image=[png(1, 6, 8), png(2, 8, 6)])
    add("me/late", {"image": image}, image=[png(2, 4, 5) if i == 4 else png(1, 4, 4) for i in range(150)])
    words = {"image": image, "text": text, "kind": text, "n": datasets.Value("int64")}
    columns = {"text": ["a", None, "c", "d"], "kind": ["x", "y", "x", "w"], "n": [2, 0, 1, 2]}
    add("me/words", words, image=[png(1), png(2), b"", png(4)], **columns)
    add("me/fine", {"image": image, "fine": kind, "coarse": kind}, image=[png(1)] * 2, fine=[0, 1], coarse=[1, 1])
    add("me/some", {"image": image, "label": kind}, image=[png(1)] * 3, label=[0, None, -1])
    add("me/pairs", {"before": image, "after": image}, before=[png(1)], after=[png(2)])
    add("me/numbers", {"n": datasets.Value("int64")}, n=[1])
    add("me/broken", {"image": image}, image=[b"no image"] * 2)
    hub.commit("me/files", {"train/b/2.png": png(30), "train/a/0.png": png(10), "train/a/1.png": b""})
    hub.commit("me/script", {"script.py": b"1 / 0"})
    hub.commit("me/empty", {"README.md": b"nothing"})
    configs = "".join(f"- config_name: {c}\n  data_files: data/{s}*\n" for c, s in (("one", "train"), ("two", "test")))
    add(
        "me/configs", both, more={**test, "README.md": f"---\nconfigs:\n{configs}---".encode()}, img=[png(1)], label=[0]
    )
    hub.gated.add("me/gated")
    return old


# --- who asks ---------------------------------------------------------------------------------------------------------


def begin(environment):
    """What a process does first: the libraries read their environment when they are imported."""
    os.environ.update(environment)
    warnings.simplefilter("error")


def answer(source, cache):
    """What a test may know of the examples; to be called in that process."""
    found = source.open(cache)
    return SimpleNamespace(
        shape=found.images.shape,
        levels=[] if len(found) == 0 else np.asarray(found.images[np.arange(len(found))])[:, 0, 0, 0].tolist(),
        labels=None if found.labels is None else found.labels.tolist(),
        classes=found.classes,
        captions=found.captions,
        unreadable=found.unreadable,
        hash=identity_of(found)["hash"],
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The stand-in, ways to ask for a source, and the environment: with the Hub there, forbidden, and not there."""
    home = tmp_path_factory.mktemp("hub")
    with StandIn() as running:
        old = fill(running)
        address = f"http://127.0.0.1:{running.server_port}"
        known = {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": address, "JAXDIFF_CACHE": str(home / "cache")}
        ways = {"online": {}, "offline": {"HF_HUB_OFFLINE": "1"}, "unplugged": {"HF_ENDPOINT": "http://127.0.0.1:9"}}
        spawn = multiprocessing.get_context("spawn")
        pools = {
            way: ProcessPoolExecutor(1, spawn, begin, ({**known, **more, "JAXDIFF_CACHE": str(home / way)},))
            for way, more in ways.items()
        }
        asks = {
            way: lambda source, cache="auto", pool=pool: pool.submit(answer, source, cache).result()
            for way, pool in pools.items()
        }
        yield SimpleNamespace(**asks, server=running, environment=known, old=old)
        for pool in pools.values():
            pool.shutdown()
        running.shutdown()


@pytest.mark.parametrize("cache", [True, False])
def test_hub(hub, cache):
    for _ in range(2):
        found = hub.online(Hub("me/kinds"), cache)
        assert found.shape == (3, 6, 6, 3)
        assert (found.levels, found.labels, found.classes) == ([10, 20, 40], [1, 0, 1], ("no", "yes"))
        assert found.captions is None
        assert found.unreadable == (
            ("me/kinds train, row 2", "not an image of a known format"),
            ("me/kinds train, row 4", "there is none"),
        )


def test_parts_and_splits(hub):
    assert hub.online(Hub("me/kinds", "test")).levels == [90]
    assert hub.online(Hub("me/kinds", "train[1:4]", size=(3, 9), channels=1)).shape == (2, 3, 9, 1)
    assert hub.online(Hub("me/kinds", "train[:1]+test")).levels == [10, 90]


def test_gray_as_it_is(hub):
    found = hub.online(Hub("me/gray"))
    assert (found.shape, found.levels, found.labels, found.classes) == ((3, 3, 5, 1), [7] * 3, None, None)
    assert hub.online(Hub("me/gray", channels=3)).shape == (3, 3, 5, 3)


def test_files_of_their_own(hub):
    found = hub.online(Hub("me/files"))
    assert (found.levels, found.labels, found.classes) == ([10, 30], [0, 1], ("a", "b"))
    assert found.unreadable == (("me/files train, row 1", "the file is empty"),)


def test_labels_and_captions_of_columns(hub):
    found = hub.online(Hub("me/words"))
    assert (found.labels, found.captions) == (None, ("a", "", "d"))
    found = hub.online(Hub("me/words", label="kind", caption="kind"))
    assert (found.labels, found.classes, found.captions) == ([1, 2, 0], ("w", "x", "y"), ("x", "y", "w"))
    found = hub.online(Hub("me/words", label="n"))
    assert (found.labels, found.classes) == ([2, 0, 2], ("0", "1", "2"))
    assert hub.online(Hub("me/fine")).labels is None
    assert hub.online(Hub("me/fine", label="fine")).labels == [0, 1]
    assert hub.online(Hub("me/some")).labels is None
    assert hub.online(Hub("me/pairs", image="after")).levels == [2]


def test_many_sizes(hub):
    assert hub.online(Hub("me/sizes", size=4)).shape == (2, 4, 4, 3)
    assert hub.online(Hub("me/late", size=4)).shape == (150, 4, 4, 3)


def test_configs(hub):
    assert hub.online(Hub("me/configs", config="one")).levels == [1]
    assert hub.online(Hub("me/configs", config="two")).levels == [90]


def test_the_identity_is_that_of_the_content(hub):
    now = hub.online(Hub("me/kinds"))
    assert hub.online(Hub("me/kinds"), False).hash == now.hash
    old = hub.online(Hub("me/kinds", revision="v1"))
    assert (old.levels, hub.online(Hub("me/kinds", revision=hub.old)).hash) == ([10, 21], old.hash)
    assert len({now.hash, old.hash, hub.online(Hub("me/kinds", "train[:3]")).hash}) == 3
    same, other = (hub.online(Hub("me/same", revision=revision)).hash for revision in ("v2", "other"))
    assert (hub.online(Hub("me/same")).hash == same, other == same) == (True, False)


@pytest.mark.parametrize("way", ["offline", "unplugged"])
def test_without_a_network(hub, way):
    first, gone = hub.online(Hub("me/same")), getattr(hub, way)
    begin = time.monotonic()
    assert vars(gone(Hub("me/same"))) == vars(first)
    assert time.monotonic() - begin < 20  # the library alone would ask again and again, for longer
    assert gone(Hub("me/same", "test")).levels == [90]
    assert gone(Hub("me/same", revision="main")).hash == first.hash
    with pytest.raises(ValueError, match="me/same has no config 'no', only 'default'"):
        gone(Hub("me/same", config="no"))
    with pytest.raises(
        ValueError, match=r"me/never is not in the cache of datasets, and the Hub cannot be reached: con"
    ):
        gone(Hub("me/never"))


def test_without_a_network_no_other_revision_is_taken(hub):
    found = {revision: hub.online(Hub("me/kinds", revision=revision)) for revision in (hub.old, "v1", "main")}
    assert [found[revision].levels for revision in found] == [[10, 21], [10, 21], [10, 20, 40]]
    for revision, was in found.items():
        assert vars(hub.offline(Hub("me/kinds", revision=revision))) == vars(was)
    for revision in ("v0", "0" * 40):
        with pytest.raises(ValueError, match=f"revision {revision} of me/kinds is not in the cache of datasets, and"):
            hub.offline(Hub("me/kinds", revision=revision))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Hub("me/absent"), "there is no data set me/absent, or it is private: .* `hf auth login`"),
        (
            Hub("me/gated"),
            "me/gated is gated: ask for access at https://huggingface.co/datasets/me/gated, then `hf auth",
        ),
        (Hub("me/kinds", revision="v9"), "v9"),
        (Hub("me/kinds", "val"), "me/kinds has train, test, and parts of these, not 'val'"),
        (Hub("me/kinds", "train[4"), "me/kinds has train, test, and parts of these, not 'train.4'"),
        (Hub("me/kinds", "train[9:]"), "me/kinds has train, test, and parts of these"),
        (Hub("me/kinds", image="image"), "image must be img, got 'image': me/kinds has img, label"),
        (Hub("me/kinds", label="class"), "label must be label, got 'class': me/kinds has img, label"),
        (Hub("me/kinds", caption="label"), "caption cannot be found, got 'label': me/kinds has img, label"),
        (Hub("me/configs"), "me/configs needs a config, one of 'one', 'two'"),
        (Hub("me/configs", config="three"), "me/configs has no config 'three', only 'one', 'two'"),
        (Hub("me/pairs"), "me/pairs has several images in a row: needs one of image=before or image=after"),
        (Hub("me/some", label="label"), "me/some has no label in 2 of 3 rows: needs one in each"),
        (Hub("me/numbers"), "me/numbers is not a data set of images: it has n"),
        (Hub("me/sizes"), "the images of me/sizes train are of many sizes: needs a size, such as size=64"),
        (Hub("me/late"), "the images of me/late train are of many sizes: needs a size, such as size=64"),
        (Hub("me/broken"), "me/broken train has no image that can be read"),
        (Hub("me/script"), "me/script cannot be opened: Dataset scripts are no longer supported"),
        (Hub("me/empty"), "me/empty cannot be opened: .* doesn't contain any data files"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_bad_sources_are_refused(hub, source, says):
    with pytest.raises(ValueError, match=says) as caught:
        hub.online(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"name": ""}, 'name must be OWNER/NAME, as .* has it, "uoft-cs/cifar10" say'),
        ({"name": "cifar10"}, "name must be OWNER/NAME"),
        ({"name": "../etc"}, "name must be OWNER/NAME"),
        ({"split": None}, 'split must be "train", "test" or a part'),
        ({"size": 0}, "size must be a whole number of pixels from 1 to 4096"),
        ({"channels": 4}, "channels must be 1"),
        ({"label": 3}, "label must be a name or None, got 3"),
        ({"revision": ""}, "revision must be a name or None, got ''"),
    ],
)
def test_bad_values_are_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        Hub(**{"name": "me/kinds", **bad})


def test_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "kinds").mkdir(parents=True)
    with pytest.raises(ValueError, match="me/kinds is also a folder here, which would be read instead"):
        Hub("me/kinds").open()


def test_the_library_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"Hub needs the library datasets: pip install datasets$"):
        Hub("me/kinds").open()


def test_nothing_but_progress_is_said(hub):
    code = "from jaxdiff.data import Hub; print(len(Hub('me/kinds').open()), len(Hub('me/empty').open()))"
    for more, last in ({}, "me/empty cannot be opened"), ({"HF_HUB_OFFLINE": "1"}, "me/empty is not in the cache"):
        environment = {**os.environ, **hub.environment, **more}
        command = [sys.executable, "-W", "error", "-c", code]
        said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stderr
        before, _, after = said.partition("Traceback")
        assert all("%" in line or "split" in line or not line for line in before.splitlines()), before
        assert after.splitlines()[-1].startswith(f"ValueError: {last}"), after
