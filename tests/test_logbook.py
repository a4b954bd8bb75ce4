"""What a run writes down: whole lines, numbers that come back, pictures; one process a folder."""

import csv
import errno
import os
import struct
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jaxdiff.base.files import locked
from jaxdiff.data import images
from jaxdiff.training.logbook import Logbook
from jaxdiff.training.metrics import COLUMNS, read_metrics, smoothed
from jaxdiff.training.wandb import begin


def row(step, loss=0.1 + 0.2, **others):
    return {
        **{"step": step, "epoch": step / 3, "loss": loss, "gradient_norm": 1e-9, "learning_rate": 1e-4},
        **{"skipped": 0, "images_per_second": 123.4, **others},
    }


def written(folder, steps, start=0, **options):
    book = Logbook(folder, start, 100, **options)
    book.begin()
    for step in steps:
        book.advance(step, 100)
        book.write(row(step))
    return book


def same(rows, other):
    return [list(row) for row in rows] == [list(row) for row in other] and np.array_equal(
        *([list(row.values()) for row in each] for each in (rows, other)), equal_nan=True
    )


def test_metrics_come_back_bit_for_bit(tmp_path):
    book = written(tmp_path, (10, 20))
    book.write(row(30, np.nan))
    book.write(row(40, np.inf))
    wanted = [row(10), row(20), row(30, np.nan), row(40, np.inf)]
    assert same(read_metrics(tmp_path / "metrics.csv"), wanted)  # at once: nothing is held back
    book.close()
    before = (tmp_path / "metrics.csv").read_bytes()
    Logbook(tmp_path, 40, 100).close()
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert next(csv.reader(before.decode().splitlines())) == list(COLUMNS)


def test_what_comes_after_the_step_gone_on_from_is_taken_back(tmp_path):
    written(tmp_path, (10, 20, 30)).close()
    written(tmp_path, (25,), start=20).close()
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.csv")] == [10, 20, 25]


@pytest.mark.parametrize("cut", [1, 5, 12, 30])
def test_a_line_cut_short_is_left_out(tmp_path, cut):
    written(tmp_path, (10, 20)).close()
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    assert same(read_metrics(path), [row(10)])
    written(tmp_path, (20,), start=10).close()
    assert same(read_metrics(path), [row(10), row(20)])


GOOD = [row(10), row(20)]
HEAD = ",".join(COLUMNS) + "\n"
LINES = [",".join(map(str, r.values())) + "\n" for r in GOOD]
SPOILT = {
    "narrow": (HEAD + LINES[0] + "15,1,2\n" + LINES[1], GOOD),
    "wide": (HEAD + LINES[0] + LINES[1].replace("\n", ",7\n"), GOOD[:1]),
    "words": (HEAD + "a,b,c,d,e,f,g\n" + LINES[0], GOOD[:1]),
    "no step": (HEAD + LINES[0] + LINES[1].replace("20,", "nan,", 1), GOOD[:1]),
    "another header": ("step,loss\n10,0.5\n", []),
    "no header": (LINES[0] + LINES[1], []),
    "NUL": (HEAD + LINES[0] + "\0" * 50 + "\n" + LINES[1], GOOD),
    "no last newline": (HEAD + LINES[0] + LINES[1].strip(), GOOD[:1]),
    "not ASCII": (HEAD + LINES[0] + "é,1,2,3,4,5,6\n" + LINES[1], GOOD),
    "one long line": (HEAD + LINES[0] + "1" * 200_000 + "\n" + LINES[1], GOOD[:1]),
}


@pytest.mark.parametrize(("content", "wanted"), SPOILT.values(), ids=SPOILT)
def test_no_row_is_lost_in_silence(tmp_path, capsys, content, wanted):
    path = tmp_path / "metrics.csv"
    path.write_text(content, encoding="utf-8")
    written(tmp_path, (30,), start=20, quiet=True).close()
    assert same(read_metrics(path), [*wanted, row(30)])
    assert (tmp_path / "metrics_old.csv").read_text(encoding="utf-8") == content
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{len(wanted)} rows go on, the file is now metrics_old.csv" in said[0]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "metrics.csv")
    with pytest.raises(ValueError, match=r"metrics\.csv is no file: move it away"):
        Logbook(tmp_path, 0, 10)


def test_of_two_errors_the_first_is_told(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Logbook, "plot", full)
    with pytest.raises(ValueError, match="disk full"), written(tmp_path, (10,)):
        raise ValueError("disk full")
    with pytest.raises(OSError, match="No space left"), written(tmp_path, (10,)):
        pass


def test_events_can_be_read_back(tmp_path):
    written(tmp_path, (10, 20)).close()
    (path,) = (tmp_path / "events").iterdir()
    content, place, events = path.read_bytes(), 0, []
    while place < len(content):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack_from("<Q", content, place)
        events.append(Event.FromString(content[place + 12 : place + 12 + length]))
        place += 16 + length
    values = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert [(step, np.float32(value)) for step, tag, value in values if tag == "loss"] == [
        (10, np.float32(0.3)),
        (20, np.float32(0.3)),
    ]
    assert events[1].session_log.status == SessionLog.START
    assert events[1].step == 1


def test_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "metrics.csv") == []
    (tmp_path / "metrics.csv").write_bytes(b"")
    assert read_metrics(tmp_path / "metrics.csv") == []


def test_smoothing_is_a_mean_of_the_last_ones_that_are_finite():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.inf, 7.0])
    np.testing.assert_allclose(smoothed(values, 3), [1, 1, 2, 4, 4, 6])
    np.testing.assert_allclose(smoothed(values, 1), [1, 0, 3, 5, 0, 7])


def test_pictures(tmp_path):
    picture = np.random.default_rng(0).integers(256, size=(4, 6, 3)).astype(np.uint8)
    book = written(tmp_path, (10,))
    path = book.picture(10, picture)
    assert path == tmp_path / "samples" / "step_000010.png"
    np.testing.assert_array_equal(images.read(path), picture)
    assert images.read(tmp_path / "loss.png").shape == (480, 840, 3)
    book.close()
    assert len(list((tmp_path / "events").iterdir())) == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_loss_that_is_never_finite_is_no_reason_to_warn(tmp_path, caplog):
    book = Logbook(tmp_path, 0, 10)
    book.begin()
    book.write(row(1, np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        book.plot()
        book.close()
    assert caplog.records == []


def test_lines(tmp_path, capsys):
    written(tmp_path, (50,)).close()
    line = capsys.readouterr().err
    assert line.startswith("step 50/100, epoch 16.67, loss 0.3, lr 0.0001, 123 images/s, 0:00:0")
    assert line.endswith(" left\n")
    written(tmp_path, (50,), quiet=True).close()
    assert capsys.readouterr().err == ""


def test_weights_and_biases_gets_it_too(tmp_path):
    class Told:
        Image = staticmethod(lambda picture: picture.shape)

        def __init__(self):
            self.rows, self.finished = [], False

        def log(self, values, step):
            self.rows.append((step, values))

        def finish(self):
            self.finished = True

    wandb = Told()
    book = written(tmp_path, (10,), wandb=wandb)
    book.picture(10, np.zeros((2, 2, 3), np.uint8))
    book.close()
    assert wandb.rows[0] == (10, {name: row(10)[name] for name in COLUMNS[1:]})
    assert wandb.rows[1] == (10, {"samples": (2, 2, 3)})
    assert wandb.finished


def test_a_file_system_without_locks_is_used_as_it_is(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path):
        (tmp_path / "kept").touch()


def test_weights_and_biases_that_cannot_begin_are_one_line(tmp_path, monkeypatch):
    def init(**_):
        raise RuntimeError("api_key not configured\nrun wandb login")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(ValueError, match=r"cannot begin \(RuntimeError: api_key not configured\): wandb login, or"):
        begin("mine", tmp_path, {})


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    holds = "import pathlib, sys; from jaxdiff.base.files import locked\n"
    holds += "with locked(pathlib.Path(sys.argv[1])): print('it does', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", holds, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd()
    )
    with other:
        other.stdout.readline()
        with pytest.raises(ValueError, match=f"being trained in by process {other.pid}: wait for it"), locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()}"
