"""Files, folders and command lines that mean harm, or are damaged: one line says so, and nothing is lost."""

import contextlib
import io
import json
import os
import re
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy import config

from jaxdiff.base import console, files
from jaxdiff.base.overrides import override
from jaxdiff.base.tree import check
from jaxdiff.cli import command, options, output
from jaxdiff.core.grids import Uniform
from jaxdiff.core.process import Flow
from jaxdiff.core.tables import CosineBetas, LinearBetas
from jaxdiff.data import Arrays, Digits, Folder, archives, images
from jaxdiff.data import folder as folder_module
from jaxdiff.interop.files import read_file
from jaxdiff.models import Labels
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.run import Run
from jaxdiff.models.workdir import prepared
from jaxdiff.nets import MLP, Bytes, DiT, UNet, bound
from jaxdiff.nets.bound import started

LATENT = replace(config, system=replace(config.system, codec="runs/codec", encode="each step"))
PRECIOUS = b"years of work\n"

# --- locks and links --------------------------------------------------------------------------------------------------


@pytest.fixture
def precious(tmp_path):
    """A file that must stay as it is."""
    path = tmp_path / "precious"
    path.write_bytes(PRECIOUS)
    yield path
    assert path.read_bytes() == PRECIOUS
    assert not path.is_symlink()


def singles(folder):
    return output.Singles(folder, range(2), {"of": "digits"})


def npz(folder):
    return output.Npz(folder.with_suffix(".npz"), 2, (4, 4, 1), False, {"of": "digits"})


OPEN = {
    "a run": lambda folder: prepared(folder).__enter__(),
    "--singles": singles,
    "--npz": npz,
    "the cache": lambda folder: files.hold(folder / "lock", wait=True),
}


@pytest.mark.parametrize(
    "place", [os.symlink, os.link, lambda target, lock: os.mkfifo(lock)], ids=["soft", "hard", "fifo"]
)
@pytest.mark.parametrize("what", OPEN)
def test_a_lock_that_is_not_a_lock_is_left_alone(what, place, precious, tmp_path):
    folder = tmp_path / ("run.npz.part" if what == "--npz" else "run")
    folder.mkdir()
    place(precious, folder / "lock")
    with pytest.raises((ValueError, OSError), match=r"lock is (a link|a file of something else|no regular file)"):
        OPEN[what](tmp_path / "run")


@pytest.mark.parametrize("done", ["0", "1"])
def test_what_is_gone_on_with_is_no_link(done, precious, tmp_path):
    about = {"of": "digits", "arr_0": [2, 4, 4, 1], "arr_1": False}
    part = tmp_path / "run.npz.part"
    part.mkdir()
    files.write(part / "about.json", json.dumps(about))
    files.write(part / "done", done)
    precious.write_bytes(PRECIOUS * 100)
    (part / "arr_0.npy").symlink_to(precious)
    with pytest.raises(ValueError, match=r"run.npz.part is damaged: remove it to start over"):
        npz(tmp_path / "run")
    (part / "done").unlink()
    begun = npz(tmp_path / "run")
    begun.write(np.zeros((1, 4, 4, 1), np.uint8))
    begun.close()
    assert precious.read_bytes() == PRECIOUS * 100
    precious.write_bytes(PRECIOUS)


def test_a_file_is_never_written_through_a_link(precious, tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 2 * size)  # a name that can be guessed
    (tmp_path / f".table.csv.{'0' * 16}.part").symlink_to(precious)
    with pytest.raises(FileExistsError):
        files.write(tmp_path / "table.csv", "new")
    (tmp_path / "table.csv").symlink_to(precious)
    files.write(tmp_path / "table.csv", "new")
    assert (tmp_path / "table.csv").read_text() == "new"
    assert precious.read_bytes() == PRECIOUS


@pytest.mark.parametrize(
    "name", ["data.json", "metrics.csv", "loss.png", "samples/1.png", "checkpoints/1/a", "events/a"]
)
def test_a_run_begins_only_where_it_overwrites_nothing(name, tmp_path):
    path = tmp_path / "linked" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(PRECIOUS)
    (tmp_path / "run").symlink_to(tmp_path / "linked")
    message = rf"run has {name.split('/')[0]} and no config.json: give another --workdir"
    with pytest.raises(ValueError, match=message):
        Experiment(config, tmp_path / "run").check()
    with prepared(tmp_path / "run", restart=True):
        pass
    assert (tmp_path / "run_old" / name).read_bytes() == path.read_bytes() == PRECIOUS
    assert os.listdir(tmp_path / "run") == ["lock"]


def test_a_run_may_be_in_a_linked_folder_with_other_files(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "notes.txt").write_bytes(PRECIOUS)
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with prepared(tmp_path / "run"):
        Experiment(config, tmp_path / "run").check()
    assert sorted(os.listdir(tmp_path / "disk")) == ["lock", "notes.txt"]


# --- small files that would take much ---------------------------------------------------------------------------------


def npy(shape, dtype="|u1", data=bytes(128), version=b"\1\0"):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


def zipped(path, entries, patches=(), name=b"bad.png", method=zipfile.ZIP_DEFLATED):
    """A zip file in which the fields of one entry, at places in its local and in its central header, are others."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for each, data in entries.items():
            archive.writestr(each, data)
    content = bytearray(path.read_bytes())
    local, central = content.index(name) - 30, content.rindex(name) - 46
    for in_local, in_central, value in patches:
        content[local + in_local : local + in_local + len(value)] = value
        content[central + in_central : central + in_central + len(value)] = value
    path.write_bytes(content)
    return path


def png(width=8, height=8):
    stored = io.BytesIO()
    Image.new("L", (width, height)).save(stored, "PNG")
    return stored.getvalue()


ENTRIES = {
    "encrypted": ([(6, 8, b"\1\0")], "is encrypted"),
    "an unknown method": ([(8, 10, b"\x63\0")], "compressed by method 99"),
    "another checksum": ([(14, 16, b"abcd")], "Bad CRC"),
    "4 GB, it says": ([(22, 24, b"\xfe\xff\xff\xff")], "it has 4295 MB, the largest read is 134 MB"),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_a_bad_entry_of_a_zip_is_left_out(what, tmp_path):
    patches, why = ENTRIES[what]
    path = zipped(tmp_path / "a.zip", {"good.png": png(), "bad.png": png()}, patches)
    opened = Folder(str(path), size=8).open(cache=False)
    ((name, reason),) = opened.unreadable
    assert (len(opened), name, bool(re.search(why, reason))) == (1, "bad.png", True), reason


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_zip_bomb_takes_no_memory(method, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 2**20)
    path = zipped(tmp_path / "a.zip", {"good.png": png(), "bad.png": bytes(2**20 + 1)}, method=method)
    known = method == zipfile.ZIP_DEFLATED  # the good one is compressed in the same way
    with contextlib.nullcontext() if known else pytest.raises(ValueError, match=f"compressed by method {method}"):
        assert len(Folder(str(path), size=8).open(cache=False)) == 1


@pytest.mark.parametrize("place", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_what_is_no_file_is_left_out(place, tmp_path):
    (tmp_path / "good.png").write_bytes(png())
    place(tmp_path / "bad.png")
    assert len(Folder(str(tmp_path), size=8).open(cache=False)) == 1


def test_tables_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "_MOST_ROWS", 3)
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "labels.csv").write_text("file,label\n" + "a.png,1\n" * 4)
    with pytest.raises(ValueError, match=r"labels.csv cannot be read: it has more than 3 rows"):
        Folder(str(tmp_path)).open(cache=False)
    monkeypatch.setattr(folder_module, "LARGEST", 2**20)
    os.truncate(tmp_path / "labels.csv", 2**20 + 1)
    with pytest.raises(ValueError, match=r"labels.csv cannot be read: it has more than 1 MB"):
        Folder(str(tmp_path)).open(cache=False)


ARRAYS = {
    "below 0": npy((-1, 8, 8, 1)),
    "twice below 0": npy((-2, -1, 8, 8)),
    "huge": npy((99_999_999, 8, 8, 1)),
    "beyond 64 bits": npy((2**70, 8, 8, 1)),
    "nothing of much": npy((0, 2**40, 2**40, 1)),
    "objects": npy((2, 8, 8, 1), "|O"),
    "no dtype": npy((2, 8, 8, 1), "zz"),
    "no shape": npy("'a'"),
    "a bool": npy((True, 8, 8, 2)),
    "another version": npy((2, 8, 8, 1), version=b"\3\0"),
    "deep": npy("(" * 5000),
    "empty": b"",
}


@pytest.mark.parametrize("what", ARRAYS)
@pytest.mark.parametrize("end", ["npy", "npz", "labels"])
def test_a_header_that_lies_is_refused(what, end, tmp_path):
    content = ARRAYS[what]
    (tmp_path / "a.npy").write_bytes(content if end == "npy" else npy((2, 8, 8, 1)))
    if end == "labels":
        (tmp_path / "labels.npy").write_bytes(content)
    if end == "npz":
        zipped(tmp_path / "a.npz", {"images.npy": content}, name=b"images.npy")
    with pytest.raises(ValueError, match=r"a\.np[yz]: "):
        Arrays(str(tmp_path / f"a.{'npz' if end == 'npz' else 'npy'}")).open()


def test_an_array_that_grows_a_hundredfold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_ALIKE", (2**20, 100))
    grown = npy((2**21 // 64, 8, 8, 1), data=bytes(2**21))
    with pytest.raises(ValueError, match=r"images would be 2 MB out of 0.0 MB"):
        Arrays(str(zipped(tmp_path / "a.npz", {"images.npy": grown}, name=b"images.npy"))).open()
    kept = zipped(tmp_path / "b.npz", {"images.npy": grown}, name=b"images.npy", method=zipfile.ZIP_STORED)
    assert len(Arrays(str(kept)).open()) == 2**15


def test_threads_decode_no_more_pixels_at_once_than_one_may(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    room, most, together = images._Room(), [0], threading.Lock()

    def work(pixels):
        with room.of(pixels):
            with together:
                most[0] = max(most[0], room._taken)
            time.sleep(0.001)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 30, 100, 10, 40, 50] * 5))
    assert (most[0] <= 100, room._taken) == (True, 0)
    with pytest.raises(ValueError, match="more than 100 pixels"):
        images.decode(png(11, 10))


SAFETENSORS = {
    "a word": ({"dtype": "F32", "shape": ["a", 3_000_000_000], "data_offsets": [0, 0]}, "needs a row of whole numbers"),
    "a row": ({"dtype": "F32", "shape": [[0], 5e8], "data_offsets": [0, 0]}, "needs a row of whole numbers"),
    "long": ({"dtype": "F32", "shape": [0] * 100_000, "data_offsets": [0, 0]}, "needs a row of whole numbers"),
    "larger": ({"dtype": "F32", "shape": [0] * 2_000_000, "data_offsets": [0, 0]}, "its header has 6.0 MB"),
    "not there": ({"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**64 - 1]}, "damaged"),
    "no tensor": (None, "needs a row of whole numbers"),
}


@pytest.mark.parametrize("what", SAFETENSORS)
def test_headers_of_safetensors_are_bounded(what, tmp_path):
    entry, says = SAFETENSORS[what]
    header = json.dumps({"t": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=rf"a.safetensors is damaged, or no safetensors file: .*{says}|damaged"):
        read_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LinearBetas(10**9), r"steps must be a whole number, at least 1 and below 1000001"),
        (lambda: CosineBetas(0), "steps must be a whole number"),
        (lambda: Uniform()(Flow(), 10**9), "steps must be a whole number"),
        (lambda: UNet(noise_width=2 * 10**9), "noise_width up to 1048576"),
        (lambda: MLP((16,) * 20_000), "at most 250 widths"),
        (lambda: Bytes(10**9), "a length from 2 to 65536"),
        (lambda: Labels(2 * 10**9), "classes from 1 to"),
        (lambda: Folder("a", size=10**6), "from 1 to 4096"),
        (lambda: replace(config, batch_size=2**32), "batch_size from 1 to"),
        (lambda: replace(config.training, steps=2**63), "steps must be a whole number"),
        (lambda: replace(config.training, optimiser=MLP()), "an optimiser such as Adam"),
        (lambda: replace(config, data=MLP()), "data to open, such as Digits"),
        (lambda: override(config, "system.grid=mlp"), "system.grid must be one of"),
        (lambda: check(replace(config.system, grid=MLP())), "grid must be a Grid"),
        (lambda: override(config, "training.optimiser.schedule.warmup=100000000000000000000"), "are below 2"),
    ],
)
def test_sizes_are_bounded(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_network_is_not_endlessly_deep(monkeypatch):
    monkeypatch.setattr(bound, "MOST_CALLS", 50)
    with pytest.raises(ValueError, match=r"DiT has more than 50 layers: make it less deep"):
        jax.eval_shape(lambda: started(DiT(24, 10**6, 6), jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.zeros(())))


def test_a_network_of_parts_that_do_not_fit_is_refused_in_a_line():
    with pytest.raises(ValueError, match=r"UNet cannot be made of these fields, IndexError: .*") as error:
        started(
            UNet(8, (1,), 1, (), noise_embedding=UNet(8, (1,), 1, ())),
            jax.random.key(0),
            jnp.zeros((8, 8, 1)),
            jnp.zeros(()),
        )
    assert "\n" not in str(error.value)


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{}", "null", "[]", "[" * 5000, '{"image": [8, 8]}', '{"image": [1e9, 8, 1]}', "\xff"]
)
def test_a_run_without_its_data_json_says_so(text, tmp_path, monkeypatch):
    monkeypatch.setattr(Digits, "open", lambda *arguments: 1 / 0)
    run = Run(config, tmp_path)
    with pytest.raises(ValueError, match=r"has no data.json, .*: the command that trained this run writes it again"):
        run.image  # noqa: B018
    (tmp_path / "data.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"data.json is damaged"):
        run.state_shapes  # noqa: B018
    with pytest.raises(ValueError, match=r"has no codec, the autoencoder of its latents"):
        Run(LATENT, tmp_path).codec  # noqa: B018


def test_nothing_that_a_terminal_obeys_is_said(capsys):
    hostile = "\x1b]0;owned\x07\u202e\udc80é"
    console.say(hostile)

    def fails():
        raise ValueError(hostile)

    assert command.run("sample.py", fails, "", "") == 2
    with pytest.raises(SystemExit):
        command.Parser("sample.py", None).parse_args([hostile])
    lines = capsys.readouterr().err.splitlines()
    assert [line.isprintable() and r"\x1b]0;owned\x07\u202e\udc80é" in line for line in lines] == [True] * 3


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--guidance_scale", "-1e6"], -1e6),
        (["--guidance_scale", "-.5"], -0.5),
        (["--guidance_scale", "-inf"], "must be a number, got '-inf'"),
        (["--threshold", "-1e-3"], "must be from 0 to 1"),
        (["--threshold=--"], "argument --threshold: expected one argument"),
        (["--prompt=--"], "argument --prompt: expected one argument"),
        (["--threshold", "--"], "expected one argument"),
    ],
)
def test_numbers_below_zero_are_numbers(flags, says, capsys):
    if isinstance(says, float):
        assert options.parsed(flags).guidance_scale == says
        return
    with pytest.raises(SystemExit) as stop:
        options.parsed(flags)
    err = capsys.readouterr().err
    assert (stop.value.code, err.count("\n"), says in err) == (2, 1, True), err


@pytest.mark.parametrize("path", ["file/a.png", "x" * 300 + ".png", "/proc/a.png", "folder.png"])
def test_a_place_that_cannot_be_written_is_found_at_once(path, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"cannot be written \(.*\): give another --out"):
        files.check_place(tmp_path / path, "give another --out")
    files.check_place(tmp_path / "new" / "a.png", "")
    assert sorted(tmp_path.iterdir()) == before
