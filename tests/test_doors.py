"""A config may hold the user's own classes and functions: they train, resume, and are read if their code is named."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import config

import jaxdiff
import sample
import train
from jaxdiff.base import code, environment
from jaxdiff.base.overrides import overrides
from jaxdiff.base.plain import CodeNeededError
from jaxdiff.core import samplers
from jaxdiff.core.process import VE
from jaxdiff.core.samplers import Sampler
from jaxdiff.data.examples import Examples, opened
from jaxdiff.models.config import FORM, read_config
from jaxdiff.nets import MLP

ROOT = Path(__file__).parent.parent

SHAPES = '''
"""One of everything that can stand in a config."""
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxdiff.core.process import Process
from jaxdiff.core.samplers import Sampler
from jaxdiff.data.examples import Examples
from jaxdiff.models import Diffusion


class Net(nn.Module):  # a bare flax module
    width: int = 8

    @nn.compact
    def __call__(self, x, c_noise, condition=None):
        h = nn.Dense(self.width)(x.reshape(*x.shape[:-3], -1)) + nn.Dense(self.width)(c_noise[..., None])
        h = h if condition is None else h + nn.Embed(3, self.width)(condition)
        return nn.Dense(int(np.prod(x.shape[-3:])))(nn.silu(h)).reshape(x.shape)


@dataclass(frozen=True)
class Line(Process):
    power: float = 1.0

    def alpha(self, t):
        return jnp.asarray(1 - t**self.power)

    def sigma(self, t):
        return jnp.asarray(t, float)


@dataclass(frozen=True)
class EulerAncestral(Sampler):
    eta: float = 0.0

    def step(self, denoise, key, x, t, s):
        x_0 = denoise(x, t.t)
        return s.perturb(x_0, t.noise(x, x_0))


@dataclass(frozen=True)
class Even:
    def __call__(self, process, steps):
        return jnp.linspace(1, 0, steps + 1)


def own_prediction(alpha, sigma):
    return jnp.zeros_like(alpha), jnp.ones_like(alpha)


def half(process, t):
    return t / 2


def flat(point):
    return jnp.ones_like(point.log_snr)


def late(process, u):
    return 0.1 + 0.8 * u


@dataclass(frozen=True)
class Parity:
    drop: float = 0.0

    @property
    def null(self):
        return np.int32(2)

    def fields(self, examples):
        return {"parity": (examples.labels % 2).astype(np.int32)}

    def pick(self, key, example):
        return example["parity"]

    def choices(self, names=()):
        return np.arange(2, dtype=np.int32), ["even", "odd"]


@dataclass(frozen=True)
class Circles:
    count: int = 32

    def open(self, cache="auto"):
        y, x = np.mgrid[:8, :8] - 3.5
        radii = np.linspace(1, 4, self.count)[:, None, None]
        images = np.where(np.hypot(y, x) < radii, 255, 0).astype(np.uint8)[..., None]
        return Examples(images, np.arange(self.count, dtype=np.int32))


@dataclass(frozen=True)
class Descent:
    rate: float = 0.1

    def transform(self, steps):
        return optax.sgd(self.rate)


@dataclass(frozen=True)
class Doubled(Diffusion):
    def loss(self, *inputs):
        return 2 * super().loss(*inputs)
'''
CONFIG = """
from shapes import *
from jaxdiff.models import Config
from jaxdiff.training import Training

config = Config(
    system=Doubled(
        Net(), Line(), own_prediction, c_noise=half, weighting=flat, times=late, condition=Parity(),
        sampler=EulerAncestral(), grid=Even(), steps=2, shown=4,
    ),
    data=Circles(),
    batch_size=8,
    training=Training(steps=4, optimiser=Descent(), log_every=1, show_every=4, save_every=2, placing="jit"),
)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a user's own file, a config made of it, and the run that it trained, in a process of its own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "shapes.py").write_text(SHAPES)
    (folder / "mine.py").write_text(CONFIG)
    (folder / "again.py").write_text("from mine import config\n")
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--config", "mine.py"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    for name in ("shapes", "mine", "again"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return home


def test_every_part_of_a_config_may_be_ones_own(home):
    data = json.loads((home / "runs/mine/config.json").read_text())
    assert data["form"] == FORM
    system, file = data["config"]["system"], str(home / "shapes.py")
    own = {name: system[name] for name in ("network", "process", "prediction", "c_noise", "weighting", "times")}
    own |= {name: system[name] for name in ("condition", "sampler", "grid")}
    own |= {"system": system, "data": data["config"]["data"], "optimiser": data["config"]["training"]["optimiser"]}
    for name, value in own.items():
        assert value["is"].startswith("shapes:"), name
        assert value["from"] == file, name
    rows = np.genfromtxt(home / "runs/mine/metrics.csv", delimiter=",", names=True)
    assert rows["loss"][-1] < rows["loss"][0]
    assert np.isnan(rows["learning_rate"]).all()  # the optimiser says none


def test_it_resumes_also_by_a_config_that_imports_it(here, called):
    code_, _, err = called(train.main, "--config", "mine.py", "training.steps=6")
    assert code_ == 0, err
    assert "resumes at step 4" in err
    code_, _, err = called(train.main, "--config", "again.py", "--workdir", "runs/mine", "training.steps=8")
    assert code_ == 0, err
    assert "resumes at step 6" in err
    code_, _, err = called(train.main, "--config", "again.py", "--workdir", "runs/mine", "training.optimiser.rate=1")
    assert (code_, err.count("\n")) == (2, 1)
    assert "training.optimiser.rate was 0.1, is 1.0" in err


def test_a_run_that_names_code_is_read_only_if_the_code_is_named(here, called):
    for flags in (("--workdir", "runs/mine"), ()):  # also if it is the newest
        code_, _, err = called(sample.main, *flags, "--num", 2)
        assert (code_, err.count("\n")) == (2, 1), err
        assert f"is code, which runs only if you name it: add --code {here}/shapes.py" in err
        assert "shapes" not in sys.modules
    code_, _, err = called(sample.main, "--num", 2, "--code", "shapes.py")
    assert code_ == 0, err
    assert "2 images of runs/mine" in err
    assert "EulerAncestral(eta=0.0), 2 steps" in err


def test_from_python_too(here):
    with pytest.raises(CodeNeededError, match=r"code=\[shapes\]"):
        jaxdiff.load("runs/mine")
    shapes = code.module("shapes.py")
    model = jaxdiff.load("runs/mine", code=[shapes])
    assert isinstance(model.system, shapes.Doubled)
    assert model.sample(2).shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("field", "is_"),
    [
        *(("sampler=DDIM", samplers.DDIM()), ("process=VE", VE()), ("sampler=ddpm", samplers.DDPM())),
        ("network=mlp(widths=(4,))", MLP((4,))),
    ],
)
def test_beside_ones_own_stand_the_librarys(field, is_, here):
    own = code.load("mine.py")
    name = field.partition("=")[0]
    assert getattr(overrides(own, [f"system.{field}"]).system, name) == is_


def test_training_from_python_gives_the_model_of_ones_own_classes(here, monkeypatch):
    monkeypatch.setattr("jaxdiff.models.from_python._prepare", lambda: None)
    model = jaxdiff.train("mine.py", "runs/mine")  # which is at its end
    assert model.name.startswith("runs/mine at step ")
    with pytest.raises(ValueError, match=r"the folder of the run comes before changes: jaxdiff\.train\(config, folder"):
        jaxdiff.train("mine.py", "training.steps=3")


def test_a_run_goes_on_after_a_class_was_renamed_only_if_its_old_code_is_named(here, called):
    (here / "renamed.py").write_text(SHAPES.replace("Descent", "Falling"))
    (here / "other.py").write_text(CONFIG.replace("Descent", "Falling").replace("shapes", "renamed"))
    code_, _, err = called(train.main, "--config", "other.py", "--workdir", "runs/mine")
    assert (code_, err.count("\n")) == (2, 1)
    assert f"add --code {here}/shapes.py" in err
    code_, _, err = called(train.main, "--config", "other.py", "--workdir", "runs/mine", "--code", "shapes.py")
    assert (code_, err.count("\n")) == (2, 1)
    assert "cannot be resumed with another config (system was" in err
    assert len(err) < 800


def test_a_sampler_and_a_grid_of_ones_own_file(here, called, capsys):
    common = ("--num", 2, "--code", "shapes.py", "--workdir", "runs/mine")
    code_, _, err = called(
        sample.main, *common, "--sampler", "shapes.py:EulerAncestral(eta=0.5)", "--grid", "shapes.py:Even"
    )
    assert code_ == 0, err
    assert "EulerAncestral(eta=0.5), 2 steps" in err
    code_, _, err = called(sample.main, *common, "--sampler", "shapes.py:euler_ancestral", "--eta", 0.25)
    assert code_ == 0, err
    assert "EulerAncestral(eta=0.25), 2 steps" in err
    for bad, says in (
        ("shapes.py:Even", "is no sampler: make it a subclass of jaxdiff.core.samplers.Sampler"),
        ("shapes.py:Nothing", 'got "Nothing"'),
        ("shapes.py:", "--sampler must be one of"),
        ("shapes.py:EulerAncestral(etta=1)", 'EulerAncestral has no field "etta", only eta'),
    ):
        code_, _, err = called(sample.main, *common, "--sampler", bad)
        assert (code_, err.count("\n")) == (2, 1), err
        assert says in err


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = (\n", "line 1: SyntaxError: '(' was never closed"),
        ("\n1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
    ],
)
def test_code_that_fails_says_where(here, called, source, says):
    (here / "bad.py").write_text(source)
    code_, _, err = called(sample.main, "--workdir", "runs/mine", "--code", "bad.py")
    assert (code_, err.count("\n")) == (2, 1)
    assert f"bad.py, {says}" in err
    assert "bad" not in sys.modules


@pytest.mark.parametrize("bug", ["jnp.ones(3) + jnp.ones(4)", "x.reshape(7)", "nothing", "jnp.broadcast_to(x, (3, 3))"])
def test_a_bug_in_ones_own_network_says_where(here, called, bug):
    own = f"{SHAPES}\n\nclass Buggy(Net):\n    def __call__(self, x, *more):\n        {bug}\n"
    (here / "buggy.py").write_text(own + CONFIG.replace("from shapes import *", "").replace("Net()", "Buggy()"))
    code_, _, err = called(train.main, "--config", "buggy.py")
    assert (code_, err.count("\n")) == (2, 1), err
    assert err.endswith(f"(buggy.py, line {own.count(chr(10))})\n")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "x, c_noise, condition=None",
            "x, c_noise",
            r"must take \(self, x, c_noise, condition\), it takes \(self, x, c_noise\)",
        ),
        (
            "x.reshape(*x.shape[:-3], -1)",
            "x[:, :, :, 0]",
            r"Net fails on one image, of shape \(8, 8, 1\), IndexError: Too many",
        ),
        ("linspace(1, 0,", "linspace(0, 1,", "a grid must fall strictly"),
        ("ones_like(point.log_snr)", "ones(3)", "a weighting must give one number"),
        ("transform(self, steps)", "transform(self)", r"Descent.transform must take \(steps\), it takes \(\)"),
        ("return optax.sgd(self.rate)", "return self.rate", "an optimiser that gives an optax transformation, got 0.1"),
        ("def own_prediction(alpha, sigma)", "def own_prediction(alpha)", r"own_prediction must take \(alpha, sigma\)"),
        ("def half(process, t)", "def half(t)", r"half must take \(process, t\), it takes \(t\)"),
        ("def __call__(self, process, steps)", "def __call__(self, steps)", r"Even must take \(process, steps\)"),
        ("def flat(point)", "def flat()", r"flat must take \(point\), it takes \(\)"),
        ("grid=Even()", "grid=Even", r"system.grid.*: write Even\(\), with its fields"),
        ("Net(), Line()", "Net, Line()", r"system.network must be a Module, got class wrong.Net: write Net\(\), with"),
    ],
)
def test_a_mistake_in_ones_own_part_is_told_before_the_training(here, called, old, new, says):
    own = f"{SHAPES}{CONFIG.replace('from shapes import *', '')}"
    assert own.count(old) >= 1
    (here / "wrong.py").write_text(own.replace(old, new))
    code_, _, err = called(train.main, "--config", "wrong.py")
    assert (code_, err.count("\n")) == (2, 1), err
    assert re.search(says, err), err
    assert not (here / "runs/wrong/checkpoints").exists()


def test_a_config_may_be_called_as_a_module_is(here, tmp_path):
    """Python's own random must stay what it is, and two configs of one name are two."""
    import random

    source = (here / "mine.py").read_text().replace("from shapes import *", SHAPES)
    for name in ("random.py", "a/mine.py", "b/mine.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
        config = code.load(tmp_path / name)
        assert sys.modules["random"] is random
        written = jaxdiff.models.config.written(config)
        stem = Path(name).stem
        assert f'"is": "{stem}:Net",\n' in written
        (tmp_path / "config.json").write_text(written)
        with pytest.raises(CodeNeededError, match=f"add --code .*{name} "):
            read_config(tmp_path)
        assert read_config(tmp_path, [code.module(str(tmp_path / name))]) == config


def test_a_shipped_config_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert code.load("digits").data.size == 32
    (tmp_path / "digits.py").write_text("from dataclasses import replace\nfrom jaxdiff.base.code import load\n")
    with pytest.raises(ValueError, match=r"digits\.py must define `config`"):  # what lies here comes first
        code.load("digits")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"form": 0}, "has the form 0, this jaxdiff reads form 1"),
        ({"form": None}, "has the form None"),
        ({"form": "x" * 1000}, "has the form 'xxx"),
        ({"config": {"is": "jaxdiff.core.samplers:DDIM"}}, "is damaged: it holds no config of a run"),
        ({"config": None}, "is damaged: it holds no config of a run"),
    ],
)
def test_another_form_is_refused(home, tmp_path, change, says):
    data = json.loads((home / "runs/mine/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(data | change))
    with pytest.raises(ValueError, match=says) as error:
        read_config(tmp_path)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", '{"form": 1}', "[" * 100_000, '"' + "x" * 1000])
def test_a_damaged_config_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json (is damaged|has the form)") as error:
        read_config(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((5, 8, 8, 1), np.float32), "uint8 [n, height, width, channels], got float32 [5, 8, 8, 1]"),
        (np.zeros((5, 8, 8), np.uint8), "uint8 [n, height, width, channels], got uint8 [5, 8, 8]"),
    ],
)
def test_images_of_ones_own_are_looked_at_when_they_are_opened(images, says):
    def mine():
        return Examples(images)

    with pytest.raises(ValueError, match=re.escape(f"the images of mine must be {says}")):
        opened(mine)


def test_data_of_ones_own_are_examples():
    def mine():
        return None

    with pytest.raises(ValueError, match=re.escape("the data of mine must be Examples(images, ...), got NoneType")):
        opened(mine)


def test_a_sampler_without_a_step_is_refused_before_it_is_trained():
    class Mine(Sampler):
        def stp(self, denoise, key, x, t, s):
            return x

    with pytest.raises(ValueError, match=r"Mine needs step\(self, denoise, key, x, t, s\)$"):
        replace(config, system=replace(config.system, sampler=Mine())).system.check()
