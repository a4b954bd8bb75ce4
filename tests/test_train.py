"""The command: runs that are killed and go on, runs that are refused, and what is said of either."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from toy import config

import train
from jaxdiff.base import environment, pictures
from jaxdiff.base.files import locked
from jaxdiff.data import Folder
from jaxdiff.models import about
from jaxdiff.models.config import written
from jaxdiff.models.experiment import Experiment
from jaxdiff.nets import MLP
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.metrics import read_metrics

ROOT = Path(__file__).parent.parent
TOY = ("--config", "tests/toy.py")


def toy(**training):
    return replace(config, training=replace(config.training, placing="jit", **training))


def outcome(folder):
    """All that must be equal bit for bit: the last state, the metrics but for the speed, the pictures."""
    experiment = Experiment(toy(), folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    like = jax.tree.map(
        lambda leaf: leaf.update(sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])), experiment.state_shapes
    )
    state = checkpoints.restore(like)
    checkpoints.close()
    state = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
    rows = [line.rpartition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]
    return jax.tree.leaves(state), rows, {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}


def assert_same(outcome, other):
    (leaves, rows, pictures), (other_leaves, other_rows, other_pictures) = outcome, other
    assert rows == other_rows
    for leaf, other_leaf in zip(leaves, other_leaves, strict=True):
        np.testing.assert_array_equal(leaf, other_leaf)
    assert pictures == other_pictures


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that nothing befell."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert Experiment(toy(), folder).train() is None
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def command(monkeypatch, called):
    """train.py's exit code and what it wrote to stderr, but in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)

    def of(*arguments):
        code, _, err = called(train.main, *arguments)
        return code, err

    return of


# --- killed, and gone on --------------------------------------------------------------------------------------------


def start(folder, ended, **streams):
    environment = {**os.environ, "JAXDIFF_CACHE": str(folder.parent)}
    arguments = [sys.executable, "train.py", *TOY, "--workdir", str(folder), "training.placing=jit"]
    process = ended.enter_context(subprocess.Popen(arguments, cwd=ROOT, env=environment, **streams))
    ended.callback(process.kill)
    return process


def wait_for(process, seen, seconds=100):
    end = time.monotonic() + seconds
    while process.poll() is None and not seen():
        assert time.monotonic() < end
        time.sleep(0.001)


def rows(folder):
    path = folder / "metrics.csv"
    return len(path.read_text().splitlines()) if path.exists() else 0


def is_saving(folder):
    return any((folder / "checkpoints").glob("*-tmp"))


@pytest.fixture(scope="module")
def survivor(tmp_path_factory, finished):
    """A run killed while saving, and after a row or two; then stopped by SIGTERM, and by Ctrl-C at a terminal."""
    folder, said = tmp_path_factory.mktemp("killed") / "run", {}
    with contextlib.ExitStack() as ended:
        kill_and_stop(folder, said, lambda **streams: start(folder, ended, **streams))
    return folder, said


def kill_and_stop(folder, said, begin):
    for seen in (lambda: rows(folder) > 1 and is_saving(folder), lambda: rows(folder) > 3):
        process = begin(stderr=subprocess.DEVNULL)
        wait_for(process, seen)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    process = begin(stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        said.setdefault("plain", []).append(line)
        if line.startswith("step "):
            process.send_signal(signal.SIGTERM)
            break
    said["SIGTERM"] = process.communicate()[1], process.returncode
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
    process = begin(stdin=side, stdout=side, stderr=side, start_new_session=True)
    shown, before = b"", rows(folder)
    while process.poll() is None or select.select([main], [], [], 0)[0]:
        shown += os.read(main, 1000) if select.select([main], [], [], 0.01)[0] else b""
        if before and rows(folder) > before:
            process.send_signal(signal.SIGINT)
            before = None
    said["SIGINT"] = shown.decode(), process.returncode
    os.close(main)
    os.close(side)


def test_a_run_killed_again_and_again_is_the_run_never_killed(survivor, finished):
    folder, _ = survivor
    assert 4 < rows(folder) < 9, "it was to be killed before its end"
    assert Experiment(toy(), folder).train() is None
    assert_same(outcome(folder), outcome(finished))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["70", "75", "80"]


def test_a_stop_that_is_asked_for_saves_and_says_how_to_go_on(survivor):
    folder, said = survivor
    for name, code in (("SIGTERM", 143), ("SIGINT", 130)):
        text, returned = said[name]
        assert returned == code
        assert f"stopped by {name}, and saved. To resume:" in text
        assert f"python train.py --config tests/toy.py --workdir {folder} training.placing=jit" in text


def test_plain_lines_without_a_terminal_and_a_bar_with_one(survivor):
    folder, said = survivor
    assert all(line.endswith("\n") and "\r" not in line for line in said["plain"])
    assert f"{folder} resumes at step" in said["plain"][0]
    assert "step " in said["plain"][-1]
    assert " left\n" in said["plain"][-1]
    bar = said["SIGINT"][0]
    assert "\r" in bar
    assert "%|" in bar
    assert "images/s" in bar
    assert "Traceback" not in "".join(map(str, said.values()))


# --- gone on after other things -------------------------------------------------------------------------------------


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_set_aside_and_the_result_is_the_same(run, finished, command):
    for path in (run / "checkpoints" / "80").rglob("d/*"):
        flip_a_bit(path)
    code, said = command(*TOY, "--workdir", run, "training.placing=jit")
    assert code == 0
    assert "it is now damaged_80, and the run goes on from step 75" in said.splitlines()[0]
    assert_same(outcome(run), outcome(finished))


def test_when_all_checkpoints_are_damaged(run, command):
    for path in (run / "checkpoints").rglob("d/*"):
        path.write_bytes(b"")
    before = sorted(run.rglob("*"))
    refused(command(*TOY, "--workdir", run), "no checkpoint can be gone on from: .* --restart starts over")
    assert sorted(run.rglob("*")) == before


def test_half_written_files_do_no_harm(run, finished, command):
    shutil.rmtree(run / "checkpoints" / "80")
    with open(run / "metrics.csv", "a") as file:
        file.write("90,1.0,0.5")  # a line cut short
    left = [run / f".{name}.{'7' * 16}.part" for name in ("metrics.csv", "config.json", "latents-1.npy")]
    left.append(run / "samples" / f".step_000080.png.{'7' * 16}.part")
    for path in left:
        path.write_bytes(b"\0")
    (run / "loss.png").unlink()
    assert command(*TOY, "--workdir", run, "training.placing=jit")[0] == 0
    assert_same(outcome(run), outcome(finished))
    assert (run / "loss.png").stat().st_size > 1000
    assert not any(path.exists() for path in left)


def test_a_checkpoint_under_the_name_of_another_step_is_not_the_newest_for_ever(run, finished, command):
    shutil.copytree(run / "checkpoints" / "75", run / "checkpoints" / "777")
    code, said = command(*TOY, "--workdir", run)
    assert code == 0
    assert "777 is not finite, or of another step; it is now damaged_777" in said
    assert "is trained to its end, step 80" in said


def test_what_is_free_may_change(run, command):
    more = ("training.steps=90", "training.log_every=5", "training.patience=7", "system.guidance_scale=3.0")
    code, said = command(*TOY, "--workdir", run, *more)  # and on eight devices instead of one
    assert code == 0
    assert "resumes at step 80" in said
    assert "8 cpu devices, pmap" in said
    assert rows(run) == 1 + 8 + 2
    assert '"patience": 7' in (run / "config.json").read_text()


def test_what_cannot_change(run, command):
    before = (run / "config.json").read_bytes()
    wanted = (
        r"cannot be resumed with another config \(batch_size was 16, is 32, training.optimiser.rate was 0.002, is 0.1\)"
    )
    refused(command(*TOY, "--workdir", run, "batch_size=32", "training.optimiser.rate=0.1"), f"{wanted}: .*--restart")
    assert (run / "config.json").read_bytes() == before
    more = ("training.steps=144", "training.log_every=12", "training.show_every=12", "training.save_every=12")
    refused(command(*TOY, "--workdir", run, *more, "training.steps_per_call=12"), "steps_per_call must divide 80")


def test_a_finished_run_says_so(run, command):
    code, said = command(*TOY, "--workdir", run)
    assert code == 0
    end = "is trained to its end, step 80; more training.steps would go on at the learning rate 0\n"
    assert said == f"{run} {end}"


def rates(folder):
    return [row["learning_rate"] for row in read_metrics(folder / "metrics.csv")]


def test_the_schedule_keeps_the_length_it_began_with(run, command):
    assert '"schedule_steps": 80' in (run / "config.json").read_text()
    code, said = command(*TOY, "--workdir", run, "training.placing=jit", "training.steps=90")
    assert code == 0
    line = "the learning rate was 1.01e-06, is 0 and will be 0 at step 90, by training.schedule_steps=80"
    assert line in said.splitlines()
    assert rates(run)[-1] == 0
    assert '"schedule_steps": 80' in (run / "config.json").read_text()
    longer = "training.steps=100", "training.schedule_steps=160"
    code, said = command(*TOY, "--workdir", run, "training.placing=jit", *longer)
    assert code == 0
    is_, last = (float(config.training.optimiser.learning_rate(step, 160)) for step in (90, 99))
    assert f"the learning rate was 0, is {is_:.3g} and will be {last:.3g} at step 100" in said
    assert rates(run)[-1] == pytest.approx(last)


def test_seeds_of_32_bits_train_and_differ(tmp_path):
    of = lambda seed: Experiment(replace(toy(), seed=seed), tmp_path / "none")  # noqa: E731
    nothing = SimpleNamespace(restore_newest=lambda *given: None)
    seeds = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
    kernels = [np.asarray(jax.tree.leaves(of(seed)._begin(nothing).params)[-1]).tobytes() for seed in seeds]
    orders = [of(seed).batches()[0]["image"].tobytes() for seed in seeds]
    assert len(set(kernels)) == len(set(orders)) == len(seeds)


# --- the data -------------------------------------------------------------------------------------------------------


def picture_at(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(path, np.random.default_rng(seed).integers(256, size=(8, 8, 3)).astype(np.uint8))


@pytest.fixture
def folder_run(tmp_path, monkeypatch):
    """A run, as if begun, on a folder of two classes; and how to check it."""
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))
    for name in ("b/0.png", "b/1.png", "d/0.png", "d/1.png"):
        picture_at(tmp_path / "data" / name, len(name))

    def of(accept_data=False, path="data", labelled=True):
        system = config.system if labelled else replace(config.system, network=MLP((16,)), condition=None)
        made = replace(toy(), data=Folder(str(tmp_path / path), 8), system=system)
        return Experiment(made, tmp_path / "run", accept_data=accept_data)

    (tmp_path / "run").mkdir()
    about.write(of(), of().trainer, None)
    return of


def test_a_run_moves_with_its_data(folder_run, tmp_path):
    folder_run().check()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*.png"):
        os.utime(path, (10**9, 10**9))
    folder_run(path="elsewhere").check()
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted((tmp_path / "elsewhere").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "elsewhere"))
    folder_run(path="data.zip").check()


def added(data):
    picture_at(data / "b/2.png", 9)


def replaced(data):
    (data / "b/1.png").write_bytes((data / "d/1.png").read_bytes() + b"more")


def of_the_same_size(data):
    content = bytearray((data / "b/1.png").read_bytes())
    content[-1] ^= 1  # of the checksum of a chunk that has nothing in it: the picture is read as it was
    (data / "b/1.png").write_bytes(content)


def removed(data):
    (data / "d/1.png").unlink()


def renamed(data):
    (data / "b/1.png").rename(data / "b/9.png")


def class_added_last(data):
    picture_at(data / "e/0.png", 9)


def class_added_first(data):
    picture_at(data / "a/0.png", 9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (added, "the number of images was 4, is now 5"),
        (removed, "the number of images was 4, is now 3"),
        (replaced, "other files, or in another order: their names, contents or labels differ"),
        (of_the_same_size, "other files, or in another order: their names, contents or labels differ"),
        (renamed, "other files, or in another order"),
        (class_added_last, "the number of images was 4, is now 5; classes came: e"),
    ],
)
def test_other_data_are_refused_until_they_are_accepted(folder_run, tmp_path, capsys, change, says):
    before = contents(tmp_path / "run")
    change(tmp_path / "data")
    with pytest.raises(ValueError, match=f"are not those it began with: {says}.*--accept_data to go on with these"):
        folder_run().check()
    assert contents(tmp_path / "run") == before
    folder_run(accept_data=True).check()
    assert says in capsys.readouterr().err
    about.write(folder_run(accept_data=True), folder_run().trainer, None)
    folder_run().check()


def test_labels_that_mean_something_else_are_never_accepted(folder_run, tmp_path):
    class_added_first(tmp_path / "data")
    with pytest.raises(ValueError, match=r"now 5; classes came: a\. Its model knows no others"):
        folder_run(accept_data=True).check()
    unlabelled = folder_run(accept_data=True, labelled=False)
    (tmp_path / "run" / "config.json").write_text(written(unlabelled.config))
    unlabelled.check()


def test_the_flag_of_other_data(command, tmp_path):
    picture_at(tmp_path / "data" / "0.png", 0)
    new = ("--workdir", tmp_path / "run", "training.steps=2", "training.placing=jit", "training.log_every=2")
    more = ("system.condition=None", "system.network.classes=None", f'data=Folder(path="{tmp_path / "data"}", size=8)')
    assert command(*TOY, *new, *more)[0] == 0
    picture_at(tmp_path / "data" / "1.png", 1)
    refused(command(*TOY, *new, *more), "the number of images was 1, is now 2.*--accept_data")
    assert command(*TOY, *new, *more, "--accept_data")[0] == 0
    assert command(*TOY, *new, *more)[0] == 0


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_restart_moves_the_old_run_aside(run, command):
    before = contents(run)
    changed = ("--restart", "batch_size=8", "training.steps=10")
    refused(command(*TOY, "--workdir", run, *changed, "batch_size=9"), "8 devices do not divide a batch of 9")
    assert not (run.parent / "run_old").exists()
    code, said = command(*TOY, "--workdir", run, *changed)
    assert code == 0
    assert f"the old run is now {run.parent / 'run_old'}" in said
    assert "begins" in said
    assert contents(run.parent / "run_old") == before
    assert rows(run) == 2
    assert command(*TOY, "--workdir", run, *changed)[0] == 0
    assert (run.parent / "run_old_2").is_dir()


def test_a_folder_belongs_to_one_process(run, command):
    with locked(run):
        said = refused(command(*TOY, "--workdir", run, "training.steps=90"), "is being trained in by process")
        assert f"process {os.getpid()}" in said
    assert command(*TOY, "--workdir", run)[0] == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "config.json is damaged"),
        (lambda path: path.write_text('{"is": "os.system"}'), "has the form None"),
        (
            lambda path: path.write_text('{"form": 1, "config": {"is": "os:system"}}'),
            "os:system is code, which runs only",
        ),
        (lambda path: path.write_text('{"form": 1, "config": {"is": "os.system"}}'), 'unknown "os.system"'),
        (lambda path: path.unlink(), "has checkpoints and no config.json: give another --workdir, or --restart to set"),
    ],
)
def test_a_spoilt_config(run, command, spoil, says):
    spoil(run / "config.json")
    refused(command(*TOY, "--workdir", run), says)


# --- refused --------------------------------------------------------------------------------------------------------


def refused(result, says):
    code, said = result
    assert code == 2, said
    lines = said.splitlines()
    assert len(lines) == 1, said
    assert re.search(says, said), said
    assert said.startswith("train.py: ")
    return said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("training.stps=3",), 'no field "stps".*did you mean "steps"'),
        (("batch_size=many",), "batch_size must be an int, got 'many'"),
        (("training.optimiser.rate=-1.0",), "training.optimiser.rate.* rate > 0"),
        (("training.optimiser.rate=inf",), "training.optimiser.rate.* finite rate > 0"),
        (("batch_size=12",), "8 devices do not divide a batch of 12: 8 or 16 would do"),
        (("training.accumulate=3",), "batch_size that accumulate=3 divides"),
        (("training.accumulate=4",), "8 devices and accumulate=4 do not divide a batch of 16: 32 would do"),
        (("training.placing=jitt",), "training.placing must be one of 'auto', 'jit', 'pmap', 'sharded'"),
        (("training.steps_per_call=3",), "steps_per_call=3 divides"),
        (("data.split=tset",), "data.split must be one of"),
        (("data.size=9999",), "data.size.* 8 to 256"),
        (("system.condition.classes=5",), "network.classes is 10, condition.classes 5: make them equal"),
        (("system.network.classes=5", "system.condition.classes=5"), "labels up to 9, the model knows classes=5"),
        (("system.network.classes=12", "system.condition.classes=12"), "classes 0, 1, 2, 3, 4, ..., .*must be 10"),
        (("system.guidance_scale=2.0", "system.condition.drop=0.0"), "guidance_scale=2.0 needs a model .*drop=0.1"),
        (("system.steps=0",), "steps must be a whole number, at least 1"),
        (("training.wandb=project",), "needs Weights & Biases: pip install wandb"),
        (("training",), "has the form field.subfield=value"),
        (("--distributed", "--dry_run"), "--distributed and --dry_run contradict each other"),
        (("--bogus",), "unrecognized arguments: --bogus; --help tells more"),
        (("--work", "x"), 'unrecognized arguments: --work; did you mean "--workdir"?'),
        (("--config", "tests/tyo.py"), 'no config file tests/tyo.py; did you mean "toy"'),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(command, monkeypatch, tmp_path, arguments, says):
    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(command(*TOY, "--workdir", tmp_path / "new", *arguments), says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("config = (", r"bad.py, line 1: SyntaxError: '\(' was never closed"),
        ("import numpy\n1 / 0", "bad.py, line 2: ZeroDivisionError"),
        ("network = 3", "bad.py must define `config`"),
        ("config = 3", "bad.py must define `config`"),
        (
            "from toy import *\nfrom dataclasses import replace\nconfig = replace(config, batch_size='x')",
            "bad.py, line 3",
        ),
        (
            "from toy import *\nfrom dataclasses import replace\nfrom jaxdiff.data import Folder\n"
            "config = replace(config, data=Folder('/nowhere/at/all', 8))",
            "/nowhere/at/all",
        ),
        (
            "from toy import *\nfrom dataclasses import replace\nfrom jaxdiff.data import Arrays\n"
            "config = replace(config, data=Arrays('/nowhere.npz'))",
            "/nowhere.npz",
        ),
    ],
)
def test_bad_config_files_are_one_line_and_leave_nothing(command, tmp_path, text, says):
    (tmp_path / "bad.py").write_text(text)
    refused(command("--config", tmp_path / "bad.py", "--workdir", tmp_path / "new"), says)
    assert not (tmp_path / "new").exists()


def test_folders_that_cannot_be(command, tmp_path):
    (tmp_path / "file").write_text("a file")
    refused(command(*TOY, "--workdir", tmp_path / "file" / "run"), r"cannot be made \(Not a directory\)")
    refused(command(*TOY, "--workdir", tmp_path / "file"), r"cannot be made \(File exists\)")
    refused(command(*TOY, "--workdir", tmp_path / "r\udcff"), r"cannot be made \(its name is not UTF-8\)")
    (tmp_path / "run" / "lock").mkdir(parents=True)
    refused(command(*TOY, "--workdir", tmp_path / "run"), r"run cannot be written \(Is a directory\)")


def test_no_space(command, monkeypatch, tmp_path):
    monkeypatch.setattr("jaxdiff.base.files.free_bytes", lambda folder: 10**6)
    refused(command(*TOY, "--workdir", tmp_path / "new"), "has 1 MB of space left, the run needs 19.9 MB")
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_already_is_not_needed_again(run, monkeypatch):
    for free, legal in ((2**24 + 10**6, True), (2**24, False)):  # a state takes 0.8 MB, a new run keeps 4 of them
        monkeypatch.setattr("jaxdiff.base.files.free_bytes", lambda folder, free=free: free)
        with contextlib.nullcontext() if legal else pytest.raises(ValueError, match="of space left, the run needs"):
            Experiment(toy(), run)._check_space()
        with pytest.raises(ValueError, match="of space left, the run needs"):
            Experiment(toy(), run.with_name("new"))._check_space()


def test_no_space_later(command, monkeypatch, tmp_path):
    first = iter([10**12])  # when the run begins
    monkeypatch.setattr("jaxdiff.base.files.free_bytes", lambda folder: next(first, 10**6))
    code, said = command(*TOY, "--workdir", tmp_path / "new", "training.placing=jit")
    assert code == 2
    assert re.search("disk full: .* has 1 MB of space left, a checkpoint needs 773 kB", said.splitlines()[-1])
    assert "Traceback" not in said


@pytest.mark.parametrize(("patience", "says"), [(3, "not been finite for 10 steps"), (100, "the last 10 steps were")])
def test_a_run_that_diverges(command, tmp_path, patience, says):
    call = (
        *(*TOY, "--workdir", tmp_path / "new", "training.placing=jit", "training.steps=10", "training.save_every=10"),
        *("training.optimiser.rate=1e30", "training.optimiser.schedule.warmup=0", f"training.patience={patience}"),
        *("training.schedule_steps=80",),
    )
    for _ in range(2):  # and is not taken for one that has learned, the second time
        code, said = command(*call)
        assert code == 2
        assert says in said.splitlines()[-1]
        assert "Traceback" not in said


# --- said -----------------------------------------------------------------------------------------------------------


def test_help_is_quick_and_says_how():
    begin = time.monotonic()
    shown = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.monotonic() - begin < 1
    for word in ("--restart", "--dry_run", "field.subfield=value", "metrics.csv", "JAX_NUM_PROCESSES", "digits"):
        assert word in shown.stdout


def test_a_dry_run_writes_nothing(command, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train.py", *TOY, "--workdir", str(tmp_path / "new"), "--dry_run"])
    assert train.main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("models.Config(")
    for fact in ("    batch_size=16,\n", "b2=0.999", "1,797 of 8x8x1", "8 cpu devices, pmap", "new, new"):
        assert fact in shown
    assert re.search(r"\nparameters  [\d,]+; a checkpoint takes \d+ kB\n", shown)
    assert re.search(r"\na step      \d\.\d+ MFLOP for a batch of 16\n", shown)
    assert "\nthe run     80 steps, 0.712 epochs\n" in shown
    assert re.search(r"\nfits this machine \(needs [\d.]+ MB of [\d.]+ [GT]B\)\n$", shown)
    assert list(tmp_path.iterdir()) == []
    said = command(*TOY, "--workdir", tmp_path / "new", "training.steps=2", "training.log_every=2")[1]
    assert re.search(r"([\d,]+) parameters", said)[1] == re.search(r"parameters  ([\d,]+);", shown)[1]
    assert command(*TOY, "--workdir", tmp_path / "new", "--dry_run", "batch_size=9")[0] == 2


def test_what_a_run_leaves(finished):
    assert {path.name for path in finished.iterdir()} == {
        *("config.json", "data.json", "about.json", "metrics.csv", "loss.png", "report.html"),
        *("samples", "checkpoints", "events", "lock"),
    }
    assert sorted(path.name for path in (finished / "samples").iterdir()) == ["step_000040.png", "step_000080.png"]
    assert (finished / "metrics.csv").read_text().startswith("step,epoch,loss,gradient_norm,learning_rate,skipped,")
    assert rows(finished) == 9
