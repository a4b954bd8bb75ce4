"""Seeded nonsense: command lines and configs made at random are refused in one line, or are legal; nothing else."""

import contextlib
import copy
import json
import random
from dataclasses import replace

import pytest
from toy import config

import sample
import train
from jaxdiff.base import environment
from jaxdiff.base.tree import below, parts_of
from jaxdiff.cli import options
from jaxdiff.cli import sample as sampling_command
from jaxdiff.models import about, editing
from jaxdiff.models.config import written
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.run import opened
from jaxdiff.training.checkpoint import Checkpoints

NUMBERS = ("", "0", "-1", "-1e6", "-.5", "inf", "-inf", "nan", "1e400", "1e20", "9" * 5000, "0x10", "٣", "²")
SIZES = tuple(str(2**power + more) for power in (20, 31, 32, 63) for more in (-1, 0, 1))
WORDS = (
    "--",
    "-",
    " ",
    "a\nb",
    "a\0b",
    "\x1b[31m",
    "\u202e",
    "(" * 300,
    "x" * 300,
    "None",
    "lambda: 1",
    "os:path",
    "sys",
)
PATHS = (".", "/", "/dev/null", "/dev/full/a.png", "/proc/a.png", "no.png", "x" * 300 + ".png", "a.npz", "no_such/")
CALLS = ("ddim(eta=", "ddim(0.5)", "ddim(eta=ddim)", "unipc(order=9)", "langevin(corrections=4294967295)", "euler()()")
CALLS += ("linear_betas(steps=1000000000)", "mlp((2000000000,))", "adam(rate=nan)", "folder('/')", "words((1,))")
LISTS = ("()", "(0,)", "(1048577,)", "('a',)", "(16,)*9", "(" + "16," * 300 + ")", "1,2", "0-65536", "9-0", "a,b")
VALUES = (*NUMBERS, *SIZES, *WORDS, *PATHS, *CALLS, *LISTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has not taken a step."""
    folder = tmp_path_factory.mktemp("fuzz")
    experiment = Experiment(replace(config, training=replace(config.training, placing="jit")), folder)
    with contextlib.closing(Checkpoints(folder / "checkpoints", keep=1)) as checkpoints:
        checkpoints.save(0, experiment._begin(checkpoints))
    about.write(experiment, experiment.trainer, None)
    return folder


@pytest.fixture
def one_line(monkeypatch, called, tmp_path):
    """Runs a command up to where it would begin to compute, and asserts that it is refused in one line or legal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    monkeypatch.setattr(Experiment, "train", lambda experiment, restart: experiment.check())
    for name in ("drawn", "outpainted", "exported"):
        monkeypatch.setattr(sampling_command, name, lambda *arguments: 0)
    monkeypatch.setattr(editing, "invert", lambda *arguments, **more: 1 / 0)

    def of(main, arguments):
        code, _, err = called(main, *arguments)
        assert code in (0, 2), arguments
        assert (err.count("\n"), err.rstrip("\n").isprintable()) == (code // 2, True), (arguments, err)

    return of


@pytest.mark.parametrize("seed", range(60))
def test_lines_for_sampling(seed, run, one_line):
    chance = random.Random(seed)
    flags = [action.option_strings[0] for action in options.parser()._actions if action.dest not in ("help", "invert")]
    arguments = ["--workdir", run]
    for flag in chance.choices(flags, k=chance.randint(1, 4)):
        value = chance.choice(VALUES)
        arguments += chance.choice(([flag, value], [f"{flag}={value}"], [flag], [flag, value, value]))
    one_line(sample.main, arguments)


@pytest.mark.parametrize("seed", range(60))
def test_lines_for_training(seed, one_line):
    chance = random.Random(seed)
    arguments = ["--config", TOY, "--workdir", "new"]
    for path in chance.choices(list(paths(config)), k=chance.choice((1, 1, 2))):
        arguments.append(f"{path}{chance.choice(('=', '=', '=', '.x=', ''))}{chance.choice(VALUES)}")
    one_line(train.main, arguments)


TOY = __file__.replace("test_fuzz", "toy")


def paths(value, at=""):
    for name, part in parts_of(value).items():
        yield below(at, name)
        yield from paths(part, below(at, name))


# --- config.json ------------------------------------------------------------------------------------------------------

ODD = (None, True, -1, 0, 2**20 + 1, 2**32, 2**63, 10**400, 1e308, float("inf"), float("nan"), "", "\x1b[31m", "\ud800")
ODD += ([], [[]], [[0], 5e8], ["a", 3_000_000_000], [16] * 20_000, {}, {"is": "inf"}, {"is": None}, {"is": "os:system"})
ODD += tuple(
    {"is": f"jaxdiff.{name}", **fields}
    for name, fields in (
        ("core.tables:LinearBetas", {"steps": 10**9}),
        ("core.samplers:Langevin", {"corrections": 2**32 - 1}),
        ("core.samplers:DDIM", {}),
        ("nets:MLP", {"widths": [16] * 20_000}),
        ("nets:UNet", {"noise_width": 2 * 10**9}),
        ("nets:DiT", {"depth": 10**6}),
        ("nets:UNet", {}),
        ("models:Labels", {"classes": 2 * 10**9}),
        ("data:Folder", {"path": "/", "size": 10**9}),
    )
)


def mutated(chance, data):
    """The text of a config.json with a few places changed."""
    data = copy.deepcopy(data)
    for _ in range(chance.choice((1, 1, 2))):
        place, name = chance.choice(list(places(data)))
        if name in place if isinstance(place, dict) else name < len(place):
            place[name] = copy.deepcopy(chance.choice((*ODD, data)))
    text = json.dumps(data)
    at = chance.randrange(len(text))
    return chance.choice((text, text, text, text[:at], text[:at] + '"{' + text[at:], '{"form": 1,' + text[1:]))


def places(data):
    for name, part in data.items() if isinstance(data, dict) else enumerate(data):
        yield data, name
        if isinstance(part, dict | list):
            yield from places(part)


@pytest.mark.parametrize("seed", range(8))
def test_configs_of_runs(seed, tmp_path):
    chance, data = random.Random(seed), json.loads(written(config))
    (tmp_path / "data.json").write_text('{"image": [8, 8, 1], "classes": null}')
    for _ in range(10):
        (tmp_path / "config.json").write_text(mutated(chance, data))
        with contextlib.suppress(ValueError):
            run = opened(tmp_path)
            run.state_shapes  # noqa: B018
            run.config.system.times_of()
