"""Windows and macOS, as far as one can do as if: what they lack stops no start."""

import os
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.figure  # noqa: F401  before the system seems another: what it would import there is not here
import pytest
from toy import config

import sample
import train
from jaxdiff.base import environment
from jaxdiff.models.experiment import Experiment
from jaxdiff.training import Training, events  # noqa: F401

TOY = ("--config", "tests/toy.py", "training.placing=jit", "training.steps=2", "training.log_every=2")
LACKS = {
    "win32": ("sysconf", "sched_getaffinity", "O_NONBLOCK", "O_NOFOLLOW"),
    "darwin": ("sched_getaffinity",),
}


def of_the_process(name):
    """What `ctypes.CDLL(None)` is on Windows."""
    raise TypeError("LoadLibrary() argument 1 must be str, not None")


@pytest.mark.parametrize("system", LACKS)
def test_a_run_begins_resumes_and_draws(system, called, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", system)
    for name in LACKS[system]:
        monkeypatch.delattr(os, name)
    if system == "win32":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(environment, "ctypes", SimpleNamespace(CDLL=of_the_process))
    run = ("--workdir", str(tmp_path / "run"))
    code, out, err = called(train.main, *TOY, *run, "--dry_run")
    assert code == 0, err
    assert ("whether it fits is not known" in out) == (system == "win32")
    for more in ((), ("training.steps=4",)):
        code, _, err = called(train.main, *TOY, *run, "training.save_every=2", "training.show_every=2", *more)
        assert code == 0, err
    assert "resumes at step 2" in err
    code, _, err = called(sample.main, *run, "--num", 2)
    assert code == 0, err


def test_a_run_may_train_in_a_thread(tmp_path):
    """Where Python lets nobody listen to signals."""
    short, failed = Training(steps=2, log_every=2, save_every=2, show_every=2, placing="jit"), []

    def work():
        try:
            Experiment(replace(config, training=short), tmp_path / "run").train()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
