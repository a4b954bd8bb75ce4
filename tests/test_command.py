"""What the commands tell while they are at work: compiling, Ctrl-C, what a run would cost, and words for numbers."""

import functools
import io
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax._src import monitoring
from jax.experimental.compilation_cache import compilation_cache
from toy import config

from jaxdiff.base import compiling, devices, notebook, words
from jaxdiff.cli.command import run, undisturbed
from jaxdiff.models.config import written
from jaxdiff.models.dry_run import dry_run
from jaxdiff.models.experiment import Experiment
from jaxdiff.training.logbook import Logbook

ROOT = Path(__file__).parent.parent
TOY = replace(config, training=replace(config.training, placing="jit"))

# --- Ctrl-C ---------------------------------------------------------------------------------------------------------

BUSY = """
import ctypes, signal
from jaxdiff.cli.command import run

def busy():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a main thread that hears nothing, as when it compiles
    print("busy", flush=True)
    ctypes.CDLL(None).sleep(60)

run("train.py", busy, without_memory="", stopped="stopped at once")
"""


def test_ctrl_c_is_answered_at_once_and_again_ends_a_busy_process():
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        time.sleep(0.5)  # until it sleeps
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "stopping when what is under way is done; Ctrl-C again stops at once\n"
        assert time.monotonic() - begin < 2
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "train.py: stopped at once\n"
        assert process.wait(10) == 130


def test_ctrl_c_that_is_obeyed_at_once_gets_one_line():
    script = BUSY.replace("ctypes.CDLL(None).sleep(60)", "raise KeyboardInterrupt")
    unblocked = "\nsignal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})"
    again = f"{unblocked}\nimport atexit\natexit.register(signal.raise_signal, signal.SIGINT)"  # while Python clears up
    for more, code in (("", 0), (again, -signal.SIGINT)):
        done = subprocess.run([sys.executable, "-c", script + more], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, "train.py: stopped at once\n")


def test_ctrl_c_waits_for_imports():
    done = []

    def importing(*signals):
        with undisturbed():
            for number in signals:
                signal.raise_signal(number)
            done.append("imported")

    importing()
    with pytest.raises(KeyboardInterrupt):
        importing(signal.SIGINT)
    assert done == ["imported", "imported"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("in_notebook", "heard"), [(True, signal.default_int_handler), (False, signal.SIG_DFL)])
def test_the_next_ctrl_c_ends_what_is_left_of_a_command_but_no_notebook(in_notebook, heard, monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(notebook, "is_here", lambda: in_notebook)
    assert run("x.py", interrupted, "", "stopped") == 130
    assert signal.getsignal(signal.SIGINT) is heard
    assert capsys.readouterr().err == "x.py: stopped\n"


STREAMS = """
import os, sys
from jaxdiff.cli.command import run

def action():
    print("\xe4", file=sys.stderr)
    print("\xe4", open(os.devnull).fileno() > 2)
    return 0

sys.exit(run("x.py", action, "", ""))
"""


@pytest.mark.parametrize(
    ("streams", "code", "out", "err"),
    [
        ("", 0, "\\xe4 True\n", "\\xe4\n"),
        ("<&- 2>&-", 0, "\\xe4 True\n", ""),
        (">&-", 0, "", "\\xe4\n"),
        ("2>&- | true", 0, "", ""),
        (">/dev/full", 2, "", "\\xe4\nx.py: [Errno 28] No space left on device\n"),
    ],
)
def test_streams_that_are_closed_narrow_or_full(streams, code, out, err):
    """No file that is opened takes the place of one of them, and no message is lost for a letter."""
    shell = ["sh", "-c", f'"$0" -u -c "$1" {streams}', sys.executable, STREAMS]
    own = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, env=own)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_who_has_read_enough_hears_nothing_more():
    action = "lambda: [print('more', flush=True) for _ in range(10**6)]"
    script = f"import sys, jaxdiff.cli.command as c; sys.exit(c.run('x.py', {action}, '', ''))"
    shell = ["bash", "-c", '"$0" -c "$1" | head -1; exit ${PIPESTATUS[0]}', sys.executable, script]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (141, "more\n", "")


def test_xla_is_told_to_be_quiet_before_it_is_imported():
    seen = "lambda: print(os.environ['TF_CPP_MIN_LOG_LEVEL'], 'jax' in sys.modules)"
    script = f"import os, sys, jaxdiff.cli.command as c; c.run('', {seen}, '', '')"
    own = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # which JAX sets
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, env=own)
    assert done.stdout == "3 False\n"


# --- compiling ------------------------------------------------------------------------------------------------------


@pytest.fixture
def announced(monkeypatch, tmp_path):
    """While whatever is compiled is announced, into a folder where nothing is yet."""
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    monkeypatch.setattr(monitoring, "_event_listeners", [])
    monkeypatch.setattr(monitoring, "_event_duration_secs_listeners", [])
    announce = functools.cache(compiling.announce.__wrapped__)
    announce()
    announce()  # as a second command in a notebook does
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("announced")
def test_compiling_is_two_lines_in_a_log(capsys):
    jax.jit(lambda x: jnp.sin(x) * 3.25)(1.0)
    assert capsys.readouterr().err == "compiling, once\ncompiled in 0 s\n"
    compiling.named("the sampler")(jax.jit(lambda x: jnp.sin(x) * 3.5))(1.0)
    assert capsys.readouterr().err == "compiling the sampler, once\ncompiled in 0 s\n"


@pytest.mark.usefixtures("announced")
def test_training_says_what_is_compiled(tmp_path, capsys):
    jax.clear_caches()  # of other tests of the same run
    short = replace(TOY.training, steps=10, show_every=10, save_every=10, evaluate_every=10)
    Experiment(replace(TOY, held_out=TOY.data, training=short), tmp_path / "run").train()
    told = set(re.findall("^compiling(.*), once$", capsys.readouterr().err, re.MULTILINE))
    assert {" the first parameters", " the training step", " what draws pictures", " the evaluation"} <= told


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.usefixtures("announced")
def test_compiling_is_a_running_clock_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    jax.jit(lambda x: jnp.sin(x) * 3.75)(1.0)
    assert sys.stderr.getvalue() == "\rcompiling, once: 0 s\rcompiled in 0 s     \n"


def test_what_is_found_quickly_is_not_announced(capsys):
    clock = compiling._Clock()
    clock.stop()
    assert capsys.readouterr().err == ""


def test_time_left_counts_from_the_first_step(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    book = Logbook(tmp_path, 100, 300)
    now[0] = 500.0  # it was compiled
    book.begin()
    book.advance(150, 300)
    now[0] = 550.0
    assert book._screen._left() == "0:02:30 left"
    book.close()


# --- a dry run ------------------------------------------------------------------------------------------------------


def test_a_dry_run_begins_with_the_whole_config_before_anything_is_opened(tmp_path):
    experiment = Experiment(TOY, tmp_path / "new")
    first = next(dry_run(experiment))
    assert "batch_size=16" in first
    assert "    held_out=None,\n" in first
    assert {"examples", "state_shapes"}.isdisjoint(vars(experiment))


def test_a_dry_run_that_does_not_fit_says_what_would(tmp_path, monkeypatch):
    needs = compiled_bytes(Experiment(TOY, tmp_path))
    for has, says in ((needs, "fits"), (needs - 1, "training.accumulate=2, or batch_size=8"), (9, "a smaller network")):
        monkeypatch.setattr(devices, "memory", lambda has=has: has)
        conclusion = list(dry_run(Experiment(TOY, tmp_path)))[-1]
        assert says in conclusion
        assert f"(needs {words.amount(needs, 'B')} of {words.amount(has, 'B')})" in conclusion
        assert conclusion.startswith("fits" if has == needs else "does not fit")


def compiled_bytes(experiment):
    memory = experiment.compiled().memory_analysis()
    made = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + made


def test_a_dry_run_tells_the_time_by_the_speed_that_was_seen(tmp_path):
    row = {"epoch": 1, "loss": 1, "gradient_norm": 1, "learning_rate": 1, "skipped": 0}
    book = Logbook(tmp_path, 0, 80)
    book.begin()
    for step, speed in ((10, 1.0), (20, 4.0), (30, 4.0)):
        book.write({"step": step, **row, "images_per_second": speed})
    book.close()
    (tmp_path / "config.json").write_text(written(TOY))
    said = "\n".join(dry_run(Experiment(TOY, tmp_path)))
    assert "80 steps, 0.712 epochs; 3.3 min from step 30 on, at 4 images/s as in metrics.csv" in said  # 50 * 16 / 4


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (24_123_456, "24.1 MB"), (385e6, "385 MB"), (61.9e12, "61.9 TB")],
)
def test_amounts(count, said):
    assert words.amount(count, "B") == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.21, "0.21 s"),
        (21.7, "22 s"),
        (119, "119 s"),
        (200, "3.3 min"),
        (3600, "60 min"),
        (9000, "2.5 h"),
        (2e5, "2.3 days"),
    ],
)
def test_durations(seconds, said):
    assert words.duration(seconds) == said


def test_plurals():
    assert [words.plural(count, "image") for count in (0, 1, 2, 1797)] == [
        *("0 images", "1 image", "2 images", "1,797 images")
    ]


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (0.0461, "22 s an image"),
        (1, "1 images/s"),
        (23.08, "23.1 images/s"),
        (1738.2, "1,738 images/s"),
        (0, "0 images/s"),
    ],
)
def test_speeds(rate, said):
    assert words.speed(rate) == said
