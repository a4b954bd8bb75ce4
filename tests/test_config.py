"""Configs: what is kept is what is read back, what is wrong is said in one line, and data never run anything."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jaxtyping import Array, Float
from systems import PROCESSES, SAMPLERS

from jaxdiff import config, denoise, grids, losses, process, samplers
from jaxdiff.nets import autoencoder, classifier, dit, layers, small, text, unet
from jaxdiff.process import Process

MODULES = (process, denoise, samplers, grids, losses, unet, dit, autoencoder, classifier, small, text, layers)
FUNCTIONS = (
    *(denoise.data, denoise.noise, denoise.velocity, denoise.unscaled, denoise.index, denoise.time),
    *(losses.simple, losses.uniform, losses.steps, losses.absolute, losses.squared),
)
VOCABULARY = config.Vocabulary(MODULES, FUNCTIONS)


class Source(Protocol):
    def read(self) -> int: ...


@dataclass(frozen=True)
class Digits:
    size: int = 28

    def read(self) -> int:
        return self.size


@dataclass(frozen=True)
class Model:
    network: nn.Module = unet.DIGITS
    process: Process = process.Discrete()
    prediction: denoise.Prediction = denoise.noise
    weighting: losses.Weighting = losses.simple
    sampler: samplers.Sampler = samplers.DDIM()
    grid: grids.Grid | None = grids.Trailing()


@dataclass(frozen=True)
class Average:
    rate: float = 0.9999


@dataclass(frozen=True)
class Config:
    model: Model = Model()
    data: Source = Digits()
    ema: tuple[Average, ...] = (Average(), Average(0.99))
    size: tuple[int, float] = (28, 1.0)
    scales: tuple[float, ...] | None = (1.0, 2.0)
    words: tuple[str, ...] = ()
    batch_size: int = 128
    rate: float = 2e-4
    clip: float | None = None
    count: float | int = 1
    flip: bool = True
    kind: Literal["small", "large", 3] = "small"
    folder: str = "runs"
    label: str | None = None
    anything: Any = None
    per: Sequence[str] = ()
    fixed: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"needs batch_size >= 1,\ngot {self.batch_size}")


OURS = config.Vocabulary((*MODULES, sys.modules[__name__]), FUNCTIONS)

VALUES = (
    *PROCESSES,
    process.Discrete((0.1, 1e-300, 0.5)),
    process.Discrete(process.CosineBetas()),
    *SAMPLERS,
    samplers.EDM(1.0, 0.1, 50.0),
    *(grids.Uniform(power=3.0), grids.Quadratic(), grids.LogSNR(first=0.5), grids.Karras(), grids.Linspace(False)),
    *(grids.Leading(offset=1), grids.Trailing()),
    *(denoise.EDM(), denoise.UnitVariance(1.0), denoise.ScaledTime(), denoise.velocity),
    *(losses.MinSNR(), losses.P2(), losses.EDM(), losses.Sigmoid(-0.0), losses.Uniform(0.1), losses.LogitNormal()),
    *(losses.LogNormal(), losses.DenoisingLoss(), losses.DenoisingLoss(losses.P2(), losses.steps, 0.1, 10)),
    *(losses.AutoencoderLoss(), losses.AutoencoderLoss(losses.squared, terms=((0.5, losses.absolute),))),
    *(value for module in (unet, dit, autoencoder) for value in vars(module).values() if isinstance(value, nn.Module)),
    *(classifier.Classifier(), small.MLP(), small.SmallUNet(), text.TextEncoder(256), text.Bytes(), text.Words(("a",))),
    text.Prompted(unet.UNet(text=True), text.TextEncoder(256)),
    Config(),
    Config(model=Model(grid=None), words=("a", 'b"\n\u2028é'), clip=math.inf, count=1.0, anything=(1, True, 1.0, None)),
)


def kept(value, vocabulary=OURS):
    return config.from_data(json.loads(json.dumps(config.to_data(value, vocabulary), allow_nan=False)), vocabulary)


def leaves(value):
    """Every part of a config with its type, floats by their bits."""
    if isinstance(value, tuple):
        return tuple(map(leaves, value))
    if isinstance(value, float):
        return value.hex()
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.name not in ("parent", "name")]
        return type(value), *(leaves(getattr(value, name)) for name in names)
    return type(value), value


# --- kept and read back ---------------------------------------------------------------------------------------------


def names_of_all_classes():
    return {
        f"{module.__name__.removeprefix('jaxdiff.')}.{each}"
        for module in (process, denoise, samplers, grids, losses)
        for each, value in vars(module).items()
        if dataclasses.is_dataclass(value) and value.__module__ == module.__name__ and not each.startswith("_")
    }


def test_the_values_here_are_of_every_class():
    def classes(value):
        found = {VOCABULARY.name_of(value)} if type(value) in VOCABULARY.named.values() else set()
        parts = value if isinstance(value, tuple) else vars(value).values() if dataclasses.is_dataclass(value) else ()
        return found.union(*map(classes, parts))

    hold_arrays = {"process.Point", "denoise.NetworkDenoiser", "denoise.Moved"}
    assert names_of_all_classes() - set().union(*map(classes, VALUES)) == hold_arrays


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_kept_is_read_back(value):
    assert kept(value) == value
    checked = config.check(value)
    assert checked == value
    assert leaves(kept(checked)) == leaves(checked)
    assert leaves(kept(value)) == leaves(checked)
    assert hash(checked) == hash(kept(checked))


def test_plain_data_name_every_field():
    data = config.to_data(samplers.EDM(churn=1.0), VOCABULARY)
    assert data == {"is": "samplers.EDM", "churn": 1.0, "s_min": 0.0, "s_max": {"is": "inf"}, "s_noise": 1.0}
    assert config.to_data(denoise.noise, VOCABULARY) == {"is": "denoise.noise"}
    data = config.to_data(unet.UNet(name="inner"), VOCABULARY)
    assert data["multipliers"] == [1, 2, 2, 2]
    assert not {"name", "parent"} & data.keys()
    assert "fixed" not in config.to_data(Config(), OURS)


@pytest.mark.parametrize(
    "number", [math.inf, -math.inf, math.nan, 5e-324, -0.0, 0.1 + 0.2, 1e22, 1, 2**70, True, np.float64(0.1)]
)
def test_numbers_come_back_as_they_were(number):
    back = kept((number,))[0]
    assert float(back).hex() == float(number).hex()
    assert isinstance(number, type(back))


def test_what_the_data_lack_has_its_default():
    assert config.from_data({"is": "samplers.DDPM", "noise": 0.5}, VOCABULARY) == samplers.DDPM(noise=0.5)
    assert isinstance(config.from_data({"is": "process.VP", "beta_max": 5}, VOCABULARY).beta_max, float)


DEEP = {"is": "process.Discrete", "betas": {"is": "process.LinearBetas"}}
for _ in range(100):
    DEEP = {"is": "process.Discrete", "betas": {"is": "process.ZeroTerminalSNR", "betas": DEEP}}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"is": "samplers.DDPN"}, 'unknown "samplers.DDPN"; did you mean "samplers.DDPM"?'),
        ({"is": "samplers.PredictorCorrector", "predictor": {"is": "x.Y"}}, 'predictor: unknown "x.Y"'),
        ({"is": "process.Process"}, 'unknown "process.Process"'),
        ({"is": "os.system"}, 'unknown "os.system"'),
        ({"is": "os.system", "command": "true"}, 'unknown "os.system"'),
        ({"is": "process.Discrete.__init__"}, 'unknown "process.Discrete.__init__"'),
        ({"is": "process.__builtins__"}, 'unknown "process.__builtins__"'),
        ({"is": "process.math"}, 'unknown "process.math"'),
        ({"is": "process.betas_of"}, 'unknown "process.betas_of"'),
        ({"is": "__import__"}, 'unknown "__import__"'),
        ({"is": "samplers._History"}, 'unknown "samplers._History"'),
        ({"is": ["samplers.DDPM"]}, "unknown \"['samplers.DDPM']\""),
        ({"is": "x" * 10**6}, 'unknown "xxx'),
        ({"is": None}, 'unknown "None"'),
        ({}, 'unknown "None"'),
        ({"is": "a\nb"}, 'unknown "a b"'),
        ({"is": "inf", "of": 3}, 'unknown "inf"'),
        ({"is": math.inf}, 'unknown "inf"'),
        ({"is": "samplers.PredictorCorrector", "predictor": {"is": "denoise.noise"}}, "a Sampler, got denoise.noise"),
        ({"is": "samplers.DDIM", "etta": 1.0}, 'no field "etta", only eta; did you mean "eta"?'),
        ({"is": "samplers.DDIM", "__class__": 1.0}, 'no field "__class__"'),
        ({"is": "samplers.DDIM", "__init__": {"is": "os.system"}}, 'no field "__init__"'),
        ({"is": "small.MLP"}, 'unknown "small.MLP"; did you mean "nets.small.MLP"?'),
        ({"is": "nets.small.MLP", "name": "x"}, 'no field "name"'),
        ({"is": "nets.small.MLP", "parent": None}, 'no field "parent"'),
        ({"is": "denoise.noise", "alpha": 1.0}, 'has no fields, so no "alpha"'),
        ({"is": "process.ZeroTerminalSNR"}, "process.ZeroTerminalSNR needs the field betas"),
        ({"is": "samplers.DDIM", "eta": "1"}, "eta must be a float, got '1'"),
        ({"is": "samplers.DDIM", "eta": True}, "eta must be a float, got True"),
        ({"is": "samplers.DDIM", "eta": 10**400}, "eta must be a float, got 10000"),
        ({"is": "samplers.DDIM", "eta": {"is": "samplers.DDIM"}}, "eta must be a float, got DDIM"),
        ({"is": "samplers.UniPC", "order": 2.0}, "order must be an int, got 2.0"),
        ({"is": "samplers.DDIM", "eta": 7.0}, "needs 0 <= eta <= 1"),
        ([{"is": "samplers.DDIM", "eta": 7.0}], "0: needs 0 <= eta <= 1"),
        ({"is": "nets.unet.UNet", "dtype": "float8"}, "dtype must be one of 'float32', 'bfloat16'"),
        ({"is": "process.Discrete", "betas": [0.1, "x"]}, "betas must be a function or a tuple (a float, ...), got"),
        ({"is": "process.Point"}, "process.Point needs the field t"),
        (DEEP, "at most 32 levels deep"),
    ],
)
def test_bad_data_are_refused(data, says):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        config.from_data(data, VOCABULARY)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_reading_imports_nothing():
    before = set(sys.modules)
    for known in ("antigravity.x", "this.s", "jaxdiff.nets.dit.os"):
        with pytest.raises(ValueError, match="unknown"):
            config.from_data({"is": known}, VOCABULARY)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "value", [samplers.DDIM, {"a": 1}, jnp.ones(2), np.float32(1), lambda x: x, len, denoise.promoted, b"x", Path("x")]
)
def test_what_has_no_name_cannot_be_kept(value):
    with pytest.raises(ValueError, match=r"^anything: cannot keep .*neither plain data nor in the vocabulary$"):
        config.to_data(Config(anything=value), OURS)


def test_a_vocabulary_holds_what_the_modules_define():
    assert {"process.VP", "nets.unet.UNet", "denoise.noise", "nets.layers.Positional"} <= VOCABULARY.named.keys()
    for absent in ("nets.unet.Positional", "process.Process", "process.transition", "grids._NoiseLevels", "process.np"):
        assert absent not in VOCABULARY.named
    assert "nets.layers.Positional" not in config.Vocabulary([unet]).named  # imported there
    assert VOCABULARY.name_of(samplers.DDIM()) == "samplers.DDIM"
    assert VOCABULARY.name_of(denoise.velocity) == "denoise.velocity"


def test_a_vocabulary_holds_frozen_classes_only():
    module = ModuleType("module")
    for each, frozen in (("Frozen", True), ("Loose", False)):
        setattr(module, each, dataclass(frozen=frozen)(type(each, (), {"__module__": "module"})))
    assert config.Vocabulary([module]).named == {"module.Frozen": module.Frozen}


def test_a_vocabulary_refuses_two_of_one_name():
    other = ModuleType("process")  # as jaxdiff.process is called, too
    other.VP = dataclass(frozen=True)(type("VP", (), {"__module__": "process"}))
    with pytest.raises(ValueError, match=r"two things are named process\.VP"):
        config.Vocabulary([process, other])
    with pytest.raises(ValueError, match="what a module names"):
        config.Vocabulary([], [lambda x: x])


# --- types ----------------------------------------------------------------------------------------------------------


def test_checking_makes_floats_and_tuples():
    checked = config.check(Config(rate=1, size=[28, 1], scales=[1, 2.5], clip=3, count=1, ema=[Average(1)]))
    changed = (checked.rate, checked.size, checked.scales, checked.clip, checked.count, checked.ema)
    assert leaves(changed) == leaves((1.0, (28, 1.0), (1.0, 2.5), 3.0, 1, (Average(1.0),)))
    assert type(config.check(Config(rate=np.float64(0.5))).rate) is float
    assert leaves(config.check((Average(1),))) == leaves((Average(1.0),))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": "128"}, "batch_size must be an int, got '128'"),
        ({"batch_size": 128.0}, "batch_size must be an int, got 128.0"),
        ({"batch_size": True}, "batch_size must be an int, got True"),
        ({"rate": True}, "rate must be a float, got True"),
        ({"rate": None}, "rate must be a float, got None"),
        ({"rate": 10**400}, "rate must be a float, got 1000"),
        ({"clip": "x"}, "clip must be a float or None, got 'x'"),
        ({"flip": 1}, "flip must be True or False, got 1"),
        ({"kind": "huge"}, "kind must be one of 'small', 'large', 3, got 'huge'"),
        ({"kind": 3.0}, "kind must be one of 'small', 'large', 3, got 3.0"),
        ({"folder": Path("x")}, "folder must be a string, got "),
        ({"folder": None}, "folder must be a string, got None"),
        ({"label": 3}, "label must be a string or None, got 3"),
        ({"size": (28, 1.0, 2.0)}, "size must be a tuple (an int, a float), got (28, 1.0, 2.0)"),
        ({"size": (28.5, 1.0)}, "size must be a tuple (an int, a float), got (28.5, 1.0)"),
        ({"size": 28}, "size must be a tuple (an int, a float), got 28"),
        ({"scales": (1.0, "x")}, "scales must be a tuple (a float, ...) or None, got (1.0, 'x')"),
        ({"words": "abc"}, "words must be a tuple (a string, ...), got 'abc'"),
        ({"ema": (0.5,)}, "ema must be a tuple (a Average, ...), got (0.5,)"),
        ({"ema": (Average(), Average("x"))}, "ema.1.rate must be a float, got 'x'"),
        (
            {"model": Model(sampler=samplers.DDIM)},
            "model.sampler must be a Sampler, got class samplers.DDIM",
        ),
        ({"model": Model(sampler=process.VP())}, "model.sampler must be a Sampler, got VP"),
        ({"model": Model(prediction=denoise.EDM)}, "model.prediction must be a function, got class denoise.EDM"),
        ({"model": Model(prediction="noise")}, "model.prediction must be a function, got 'noise'"),
        ({"model": Model(grid=grids.Trailing)}, "model.grid must be a Grid or None, got class grids.Trailing"),
        ({"model": Model(grid=3)}, "model.grid must be a Grid or None, got 3"),
        ({"data": "mnist"}, "data must be a Source, got 'mnist'"),
        ({"per": 3}, "per must be a Sequence, got 3"),
        ({"batch_size": "x" * 1000}, "batch_size must be an int, got 'xxx"),
    ],
)
def test_types_are_checked(changes, says):
    bad = Config(**{name: value for name, value in changes.items() if name != "batch_size"})
    object.__setattr__(bad, "batch_size", changes.get("batch_size", 1))  # the constructor would compare it with 1
    with pytest.raises(ValueError) as error:  # noqa: PT011
        config.check(bad)
    assert str(error.value).startswith(says)
    assert len(str(error.value)) < 300


def test_any_function_may_stand_beside_one_that_is_not_described():
    @dataclass(frozen=True)
    class Loose:
        function: Callable = denoise.noise
        result: Callable[..., Any] | None = denoise.noise

    assert config.override(Loose(), "function=unscaled").function is denoise.unscaled
    assert config.override(Loose(), "result=log_sigma").result is denoise.log_sigma
    assert config.override(Loose(), "result=none").result is None
    for bad in ("function=EDM", "function=normal", "function=_check_sigma_data", "function=os.system"):
        with pytest.raises(ValueError, match="function must be one of promoted, data, noise"):
            config.override(Loose(), bad)


def test_what_cannot_be_told_is_accepted():
    @dataclass(frozen=True)
    class Loose:
        array: Float[Array, "n"] = 1.0  # type: ignore[assignment]
        unknown: "Nowhere" = 2  # type: ignore[name-defined]
        whole: int = 3

    assert config.check(Loose()) == Loose()
    with pytest.raises(ValueError, match=r"whole must be an int, got 3\.5"):
        config.check(Loose(whole=3.5))


@pytest.mark.parametrize(
    ("hint", "value", "accepted"),
    [
        (Callable[[int], int], len, True),
        (Callable, int, False),
        (Any, int, True),
        (object, 3, True),
        (None, None, True),
        (None, 0, False),
        (tuple, (1, "x"), True),
        (tuple, [1], False),
        (tuple[()], (), True),
        (tuple[()], (1,), False),
        (tuple[tuple[int, ...], ...], ((1, 2), ()), True),
        (tuple[tuple[int, ...], ...], ((1, 2), ("x",)), False),
        (int | tuple[float, ...], (1, 2.0), True),
        (float, 2**53 + 1, False),
        (Literal[1], True, False),
        (nn.Module, small.MLP(), True),
        (type, int, True),
    ],
)
def test_accepts(hint, value, accepted):
    assert config.accepts(hint, value) is accepted


# --- from the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("batch_size=64", 64),
        (" batch_size = 1_000 ", 1000),
        ("rate=1e-4", 1e-4),
        ("rate=1", 1.0),
        ("rate=inf", math.inf),
        ("clip=None", None),
        ("clip=none", None),
        ("clip=-2", -2.0),
        ("count=1", 1),
        ("count=1.0", 1.0),
        ("flip=false", False),
        ("flip=TRUE", True),
        ("kind=large", "large"),
        ("kind='large'", "large"),
        ("kind=3", 3),
        ("folder=1e4", "1e4"),
        ("folder=/data/a=b, c", "/data/a=b, c"),
        ("folder='a b'", "a b"),
        ("folder=", ""),
        ("folder=none", "none"),
        ("folder=1if", "1if"),
        (r"folder=C:\data", r"C:\data"),
        (r"folder='\d'", r"\d"),
        ("label=none", None),
        ("label='none'", "none"),
        ("size=(32, 2)", (32, 2.0)),
        ("size=32,2", (32, 2.0)),
        ("size.1=2", (28, 2.0)),
        ("scales.0=3", (3.0, 2.0)),
        ("scales=[1]", (1.0,)),
        ("scales=()", ()),
        ("words=('a','b')", ("a", "b")),
        ("ema.0.rate=1", (Average(1.0), Average(0.99))),
        ("anything=(1, [2, 'x'])", (1, (2, "x"))),
        ("model.sampler.eta=1", samplers.DDIM(1.0)),
        ("model.grid=none", None),
        ("model.prediction=velocity", denoise.velocity),
        ("model.weighting=likelihood", losses.likelihood),
        ("model.process.betas.steps=20", process.Discrete(process.LinearBetas(20))),
        ("model.network.multipliers=1,2,4", unet.DIGITS.clone(multipliers=(1.0, 2.0, 4.0))),
        ("model.network.embedding.period=100", unet.DIGITS.clone(embedding=layers.Positional(100.0))),
        ("model.network.embedding=None", unet.DIGITS.clone(embedding=None)),
    ],
)
def test_override(assignment, value):
    path = assignment.partition("=")[0].strip().split(".")
    before, after = Config(), config.override(Config(), assignment)
    assert {where.split(".")[0] for where, _, _ in config.differences(before, after)} <= {path[0]}
    for each in path[:2] if path[0] == "model" else path[:1]:
        after = getattr(after, each)
    assert leaves(after) == leaves(config.check(value))


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("batch_size", "an override has the form field.subfield=value, got 'batch_size'"),
        ("=3", "an override has the form field.subfield=value"),
        ("model..x=3", "an override has the form field.subfield=value"),
        ("batchsize=3", 'the config has no field "batchsize", only model, data, '),
        ("batchsize=3", 'did you mean "batch_size"?'),
        ("fixed=3", 'the config has no field "fixed"'),
        ("__class__=3", 'the config has no field "__class__"'),
        ("model.sampler.etta=1", 'model.sampler has no field "etta", only eta; did you mean "eta"?'),
        ("model.network.name=x", 'model.network has no field "name"'),
        ("batch_size.x=1", 'batch_size has no fields, so no "x"'),
        ("ema.2.rate=1", 'ema has no field "2", only 0, 1'),
        ("ema.-1.rate=1", 'ema has no field "-1"'),
        ("batch_size=10k", "batch_size must be an int, got '10k'"),
        ("batch_size=1e3", "batch_size must be an int, got 1000.0"),
        ("batch_size=true", "batch_size must be an int, got True"),
        ("batch_size=__import__('os').getcwd()", "batch_size must be an int, got \"__import__('os').getcwd()\""),
        ("batch_size=" + "(" * 300, "batch_size must be an int, got '((("),
        ("batch_size={1}", "batch_size must be an int, got {1}"),
        ("rate=fast", "rate must be a float, got 'fast'"),
        ("flip=1", "flip must be True or False, got 1"),
        ("kind=huge", "kind must be one of 'small', 'large', 3, got 'huge'"),
        ("scales.0=x", "scales.0 must be a float, got 'x'"),
        ("batch_size=0", "batch_size: needs batch_size >= 1, got 0"),
        ("model.sampler.eta=2", "model.sampler.eta: needs 0 <= eta <= 1, got DDIM(eta=2.0)"),
        ("model.sampler=DDPM", "model.sampler is a samplers.DDIM, and another class is another config file"),
        ("data=mnist", "data is a test_config.Digits, and another class"),
        ("model.sampler=DDPM", "what can be set here is model.sampler.eta"),
        ("model.data=x", 'model has no field "data"'),
        ("model.network=3", "what can be set here is model.network.channels, model.network.multipliers"),
        ("ema=0.5", "ema must be a tuple (a Average, ...), got 0.5"),
        (
            "model.prediction=velocty",
            'model.prediction must be one of data, noise, velocity, score, flow, got "velocty"',
        ),
        ("model.prediction=velocty", 'did you mean "velocity"?'),
        ("model.prediction=unscaled", "model.prediction must be one of data, noise"),
        ("model.prediction=EDM", "model.prediction must be one of data, noise"),
        ("model.prediction=none", "model.prediction must be one of data, noise"),
    ],
)
def test_bad_overrides_are_refused(assignment, says):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        config.override(Config(), assignment)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_object_where_anything_may_be_is_not_replaced():
    with pytest.raises(ValueError, match=r"what can be set here is anything\.rate"):
        config.override(Config(anything=Average()), "anything=3")
    with pytest.raises(
        ValueError, match=r"what can be set here is simple, uniform, flow, likelihood, weighting\.gamma"
    ):
        config.override(Model(weighting=losses.MinSNR()), "weighting=P2")
    assert config.override(Model(weighting=losses.MinSNR()), "weighting=uniform").weighting is losses.uniform


# --- for people -----------------------------------------------------------------------------------------------------


def test_differences():
    old = Config(anything=math.nan, model=Model(sampler=samplers.DDIM(0.5)))
    assert config.differences(old, kept(old)) == []
    assert config.differences(Config(rate=1), Config(rate=1.0)) == []
    assert config.differences(old, dataclasses.replace(old, batch_size=64)) == [("batch_size", 128, 64)]
    assert config.differences(old.model, Model()) == [("sampler.eta", 0.5, 0.0)]
    assert config.differences(Model(), Model(sampler=samplers.DDPM())) == [
        ("sampler", samplers.DDIM(), samplers.DDPM())
    ]
    assert config.differences(Config(), Config(ema=(Average(), Average(0.5)))) == [("ema.1.rate", 0.99, 0.5)]
    assert config.differences(Config(words=("a",)), Config()) == [("words", ("a",), ())]
    assert config.differences(Config(anything=1), Config(anything=True)) == [("anything", 1, True)]
    net = unet.DIGITS
    assert config.differences(net, net.clone(multipliers=(1, 2, 3))) == [("multipliers.2", 2, 3)]
    both = config.differences(Config(), Config(model=Model(prediction=denoise.velocity), rate=1.0))
    assert [path for path, _, _ in both] == ["model.prediction", "rate"]


SHOWN = """\
test_config.Config(
    model=test_config.Model(
        network=nets.unet.UNet(
            channels=32,
            multipliers=(1, 2, 2),
            attention=(),
            embedding=nets.layers.GaussianFourier(scale=30.0),
            groups=8,
            classes=10,
        ),
        prediction=denoise.velocity,
        sampler=samplers.DDIM(eta=0.5),
    ),
    ema=(test_config.Average(rate=0.5),),
    folder='there',
)"""


def test_show():
    net = unet.DIGITS.clone(attention=(), embedding=layers.GaussianFourier(30.0))
    model = Model(network=net, prediction=denoise.velocity, sampler=samplers.DDIM(0.5))
    assert config.show(Config(model=model, ema=(Average(0.5),), folder="there")) == SHOWN
    assert config.show(Config()) == "test_config.Config()"
    assert config.show(Config(rate=1, clip=None, scales=(1, 2))) == "test_config.Config(rate=1)"
    assert config.show((1, "a")) == "(1, 'a')"
    assert config.show(denoise.noise) == "denoise.noise"


def test_lines_have_at_most_100_columns():
    for length in range(30, 83):
        text = config.show((Config(folder="a" * length),))
        lines = text.splitlines()
        assert max(map(len, lines)) <= 100
        assert (len(lines) > 1) == (len(f"(test_config.Config(folder='{'a' * length}'),)") > 99)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_shown_can_be_read(value):
    text = config.show(value)
    assert max(map(len, text.splitlines())) <= 100
    names = {"test_config": sys.modules[__name__]} | {m.__name__.split(".")[1]: m for m in MODULES[:5]}
    nets = sys.modules["jaxdiff.nets"]
    assert eval(text, {**names, "nets": nets, "inf": math.inf}) == value


# --- from a file ----------------------------------------------------------------------------------------------------

FILE = "from jaxdiff import samplers\n\nconfig = samplers.DDIM(eta=1)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a few config files."""
    monkeypatch.chdir(tmp_path)
    files = {
        "mnist": FILE,
        "cifar10": FILE,
        "none": "x = 1\n",
        "kind": "from jaxdiff import samplers\nconfig = samplers.DDIM\n",
        "syntax": "x = 1\n\nconfig = (\n",
        "raises": "from jaxdiff import samplers\n\n\nconfig = samplers.DDIM(eta=3.0)\n",
        "typed": "from jaxdiff import samplers\nconfig = samplers.UniPC(2)\nobject.__setattr__(config, 'order', 'x')\n",
        "calls": "from jaxdiff import samplers\n\ndef make(eta):\n    return samplers.DDIM(eta)\n\nconfig = make(3)\n",
        "imports": "\nimport no_such_module\n",
        "encoded": "# coding: latin-1\nfrom jaxdiff import samplers\nassert len('é') == 1\nconfig = samplers.DDIM()\n",
    }
    (tmp_path / "configs").mkdir()
    for each, source in files.items():
        (tmp_path / "configs" / f"{each}.py").write_bytes(source.encode("latin-1"))
    return tmp_path


@pytest.mark.parametrize(
    "path", ["configs/mnist.py", "configs/mnist", "mnist", "mnist.py", Path("configs") / "mnist.py"]
)
def test_load(folder, path):
    before = set(sys.modules)
    loaded = config.load(path)
    assert leaves(loaded) == leaves(samplers.DDIM(eta=1.0))
    assert set(sys.modules) == before
    assert not list(folder.rglob("*.pyc"))


def test_a_file_says_its_own_encoding(folder):
    assert config.load("encoded") == samplers.DDIM()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("mnits", "no config file mnits; did you mean configs/mnist.py?"),
        ("configs/mnits.py", "no config file configs/mnits.py; did you mean configs/mnist.py?"),
        ("elsewhere/cifar", "no config file elsewhere/cifar; did you mean configs/cifar10.py?"),
        ("zzzzzzzz", "no config file zzzzzzzz"),
        ("configs", "no config file configs"),
        ("none", "configs/none.py must define `config`, such as config = Config(...)"),
        ("kind", "configs/kind.py must define `config`, such as config = Config(...)"),
        ("syntax", "configs/syntax.py, line 3: SyntaxError: '(' was never closed"),
        ("raises", "configs/raises.py, line 4: ValueError: needs 0 <= eta <= 1, got DDIM(eta=3.0)"),
        ("calls", "configs/calls.py, line 4: ValueError: needs 0 <= eta <= 1, got DDIM(eta=3)"),
        ("imports", "configs/imports.py, line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("typed", "configs/typed.py: order must be an int, got 'x'"),
    ],
)
def test_bad_files_are_refused(folder, path, says):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        config.load(path)
    assert str(error.value) == says


def test_overrides_may_stand_in_any_order():
    loss = losses.Uniform(low=0.1, high=0.5)
    assert config.overrides(loss, ["low=0.6", "high=0.9"]) == losses.Uniform(0.6, 0.9)
    assert config.overrides(loss, ["low=0.2", "low=0.3"]).low == 0.3
    with pytest.raises(ValueError, match="low: needs 0 <= low < high <= 1"):
        config.overrides(loss, ["low=0.6", "low=0.7"])
