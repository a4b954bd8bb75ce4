"""benchmarks/accelerator.py at toy size: all it finds is in its JSON, and what goes wrong is a row of it."""

import dataclasses
import json
import os
import subprocess
import sys
import time
import zipfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import accelerator
import accelerator_facts as facts
import accelerator_speed as speed
import accelerator_training as training
import numpy as np
import pytest
from accelerator import Clock, Desk, Stage, conduct
from accelerator_report import BY, Report
from contenders import told

from jaxdiff.base import code, environment
from jaxdiff.base.overrides import overrides
from jaxdiff.cli.options import parsed
from jaxdiff.data import Digits, Tfds

ROOT = Path(__file__).parent.parent
STEP, EVALUATION = "DiT-B, train step", "DiT-B, network evaluation"
METRICS = """\
step,epoch,loss,gradient_norm,learning_rate,skipped,images_per_second
10,0,0.9,1,1,0,70
20,0,0.5,1,1,0,80
"""
COMMAND = """
import pathlib, signal, sys, time

def value(name):
    return pathlib.Path(sys.argv[sys.argv.index(name) + 1])

"""
TRAIN = f"""
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
value("--workdir").mkdir()
(value("--workdir") / "metrics.csv").write_text({METRICS!r})
time.sleep(60)
"""


class Inline:
    """A contender in this process."""

    def __init__(self, prepare):
        self._cases = prepare()

    def ask(self, case, seconds=None):
        return self._cases[case]()

    def kill(self):
        pass


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(accelerator, "Contender", Inline)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """train.py and sample.py that only do as if."""
    (tmp_path / "train.py").write_text(COMMAND + TRAIN)
    (tmp_path / "sample.py").write_text(COMMAND + "value('--out').write_text('a picture')\n")
    monkeypatch.setattr(training, "ROOT", tmp_path)


def written(folder):
    return json.loads((folder / "accelerator.json").read_text())


def test_all_that_is_found_is_in_the_json(here, commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "NETWORKS", ("DiT-B",))
    monkeypatch.setattr(accelerator, "train_and_draw", lambda *given: training.train_and_draw(*given[:-1], 4.0))
    made = accelerator.measure(5.0, True, None, tmp_path / "out")
    assert made.right
    content = written(tmp_path / "out")
    rows = {row["name"]: row for row in content["rows"]}
    compared = [f"{name}, {by}" for by in BY for name in (STEP, EVALUATION)]
    assert list(rows) == ["machine", *facts.facts(True), "product", STEP, EVALUATION, *compared, "cifar10, trained"]
    assert (content["toy"], content["machine"]["backend"]) == (True, "cpu")
    assert [rows[name]["result"] for name in facts.facts(True)] == ["pass", "absent", "pass", "pass", "pass"]
    assert 0 < rows["bfloat16 is float32"]["number"] < rows["bfloat16 is float32"]["limit"] == 2e-2
    assert all(rows[name]["images_per_second"] > 0 for name in (STEP, EVALUATION))
    assert rows[STEP]["flops_an_image"] == 3 * rows[EVALUATION]["flops_an_image"]
    counted = rows[STEP]["xla_flops_a_call"] / (8 * rows[STEP]["flops_an_image"])
    assert 0.9 < counted < 3  # XLA also counts what is no product, the older ones more of it
    there = "measured" if find_spec("diffusers") and find_spec("torch") else "absent"
    assert [rows[name]["result"] for name in compared] == [there] * 4
    assert rows["cifar10, trained"]["losses"] == [0.9, 0.5]
    assert (tmp_path / "out" / "accelerator.png").read_text() == "a picture"
    table = capsys.readouterr().out
    assert all(f"| {name} | {row['result']} | " in table for name, row in rows.items())


class ByPlace:
    """A model whose image i is another one in another batch."""

    def sample(self, indices, batch_size=None):
        count = indices if isinstance(indices, int) else len(indices)
        return np.linspace(-1, 1, count * 12).reshape(count, 2, 2, 3)


class Changed:
    """A file that draws all images one level too light, and two at one place."""

    def call(self, seed, indices, labels):
        return np.clip(facts.to_uint8(ByPlace().sample(len(indices))).astype(int) + 2, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "broken", "instead", "number"),
    [
        ("bfloat16 is float32", "_rounding", lambda net: 0.03, 0.03),
        ("bfloat16 is float32", "_rounding", lambda net: float("nan"), "nan"),
        ("pmap is jit", "losses", lambda placing, toy: [1.0, 1.0 + 2e-5 * (placing == "pmap")], 2e-5),
        ("image i is image i", "model", lambda toy: ByPlace(), 96),
    ],
)
def test_a_fact_that_does_not_hold_fails(tmp_path, monkeypatch, name, broken, instead, number):
    monkeypatch.setattr(facts, broken, instead)
    made = Report(tmp_path / "accelerator.json")
    conduct(Stage(name, lambda seconds: facts.cases(True)[name](), 0, 1.0, fact=True), made, Clock(1))
    (row,) = written(tmp_path)["rows"]
    assert row["result"] == "FAIL"
    assert row["number"] == (number if isinstance(number, str) else pytest.approx(number, rel=0.05))
    assert not made.right
    assert f"| {name} | FAIL | " in made.markdown()


def test_a_file_that_draws_otherwise_fails(tmp_path, monkeypatch):
    def child(command, **_):
        (Path(command[2]) / "sampler").write_bytes(b"")
        np.save(Path(command[2]) / "images.npy", ByPlace().sample(8))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", child)
    monkeypatch.setattr(facts.jax.export, "deserialize", lambda content: Changed())
    found = facts.exported_draws_the_same(True)
    assert found["number"] == 2 > found["limit"]


def test_images_that_are_all_alike_show_nothing():
    for images in (np.zeros((8, 2, 2, 3)), np.full((8, 2, 2, 3), np.nan)):
        with pytest.raises(RuntimeError, match="not finite, or all alike"):
            facts._checked(images)


def awkward():
    """What a process may do: tell its number, hang, die, raise what cannot be told to another."""

    def raises():
        raise type("Local", (Exception,), {})("one line\nanother")

    return {
        "pid": os.getpid,
        "hangs": partial(time.sleep, 60),
        "dies": partial(os._exit, 3),
        "raises": partial(told, raises),
    }


def test_what_hangs_dies_or_raises_is_a_row_and_the_rest_goes_on(tmp_path):
    desk, made, clock = Desk(), Report(tmp_path / "accelerator.json"), Clock(1)
    try:
        first = desk.ask(awkward, "pid", 30)
        for name in ("raises", "dies", "hangs"):
            conduct(Stage(name, partial(desk.ask, awkward, name), 0, 1.0, 5.0), made, clock)
        conduct(Stage("late", partial(desk.ask, awkward, "pid"), 90, 1.0), made, clock)
        assert desk.ask(awkward, "pid", 30) != first
    finally:
        desk.clear()
    rows = written(tmp_path)["rows"]
    assert [row["result"] for row in rows] == ["error", "error", "error", "skipped"]
    assert rows[0]["error"] == "Local: one line"
    assert "the process ended" in rows[1]["error"]
    assert rows[2]["error"] == "TimeoutError: not done after 5 s"
    assert "it needs 90 s" in rows[3]["skipped"]


def test_shares_and_goals_follow_from_the_rows(tmp_path):
    made = Report(tmp_path / "accelerator.json")
    made.about({"known_TFLOPs": 100.0}, False)
    speeds = {"DDPM, train step": 3000.0, "DDPM, train step, torch.compile": 2000.0, "DiT-B, train step": 3000.0}
    made.add("product", {"TFLOPs": 80.0}, 1.0)
    for name, rate in speeds.items():
        flops = {} if "torch" in name else {"flops_an_image": 10**10}
        made.add(name, {"images_per_second": rate, "batch": 8, "compile_seconds": 1.0, **flops}, 1.0)
    product, ours, theirs, dit = written(tmp_path)["rows"]
    assert product["share_of_known_peak"] == pytest.approx(0.8)
    assert (ours["share_of_peak"], theirs["share_of_peak"]) == (pytest.approx(0.3), pytest.approx(0.2))
    assert ours["times_torch_compile"] == pytest.approx(1.5)
    assert ours["goal"] == "25% of peak: met; 1.2 x torch.compile: met"
    assert dit["goal"] == "40% of peak: missed; 1.2 x torch.compile: not known"
    made.about({"known_TFLOPs": None}, False)  # then the product is the peak
    assert written(tmp_path)["rows"][1]["share_of_peak"] == pytest.approx(0.375)


def test_what_is_known_of_cards():
    kinds = {"NVIDIA H200": 989, "NVIDIA H100 PCIe": 756, "NVIDIA A100-SXM4-40GB": 312, "NVIDIA L40S": None}
    assert {kind: speed.known_peak(kind) for kind in kinds} == kinds
    assert [speed.known_peak(kind) for kind in ("TPU v5 lite", "TPU v5", "cpu")] == [197, 459, None]


def test_the_commands_of_the_training_are_legal():
    config = code.load("cifar10")
    real, other, toy = (
        overrides(config, training.fields_of(toy, 8, data))
        for toy, data in ((False, "cifar10"), (False, "digits"), (True, "digits"))
    )
    assert (real.data, other.data, toy.data) == (Tfds("cifar10"), Digits(32), Digits(8))
    assert real.system.network == config.system.network.clone(dtype="bfloat16")
    assert toy.system.network == speed.config_of("DDPM++", toy=True).system.network
    measured = speed.config_of("DDPM++", toy=False)  # the step that is measured is the one that is trained
    assert measured.system == real.system
    assert dataclasses.replace(measured.training, log_every=10) == real.training
    assert parsed(["--sampler", training.SAMPLER, "--num", "80", "--steps", "3"]) is not None


def test_a_run_that_never_begins_is_said(commands, tmp_path):
    (tmp_path / "train.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(RuntimeError, match="did not come to its tenth step in 1 s"):
        training.train_and_draw(True, 8, tmp_path / "it.png", 1.5)
    (tmp_path / "train.py").write_text("raise ValueError('no such thing')\n")
    with pytest.raises(RuntimeError, match=r"train\.py: ValueError: no such thing"):
        training.train_and_draw(True, 8, tmp_path / "it.png", 30)


def test_wheels_are_taken_along(tmp_path):
    with zipfile.ZipFile(tmp_path / "taken_along-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("taken_along.py", "here = True\n")
    with accelerator.taken_along(tmp_path):
        import taken_along

        assert taken_along.here
        assert sys.path[-1] == str(Path(taken_along.__file__).parent)
    with accelerator.taken_along(None):
        pass
    with pytest.raises(SystemExit, match="no wheels in"), accelerator.taken_along(tmp_path / "elsewhere"):
        pass


def test_the_card_is_left_to_the_processes_that_measure():
    program = (
        "import sys; sys.path.insert(0, 'benchmarks'); import accelerator as a; from pathlib import Path\n"
        "a.without_accelerator(); a.stages(a.Desk(), dict, False, 8, Path())\n"
        "from jax._src import xla_bridge; assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
