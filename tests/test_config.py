"""Configs: what is kept is what is read back, what is wrong is said in one line, and data never run anything."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jaxtyping import Array, Float
from systems import PROCESSES, SAMPLERS

from jaxdiff import data, models
from jaxdiff.base import annotations, calls, code, overrides, plain, tree
from jaxdiff.base.calls import choices_of
from jaxdiff.core import (
    c_noise,
    denoise,
    few_steps,
    grids,
    inputs,
    losses,
    predictions,
    process,
    samplers,
    tables,
    times,
    weightings,
)
from jaxdiff.core.process import Process
from jaxdiff.nets import autoencoder, classifier, dit, layers, small, text, unet

OURS = (sys.modules[__name__],)
MODULES = (
    process,
    tables,
    predictions,
    inputs,
    c_noise,
    few_steps,
    denoise,
    samplers,
    grids,
    weightings,
    times,
    losses,
)


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
    process: Process = tables.Discrete()
    prediction: predictions.Prediction = predictions.noise
    weighting: weightings.Weighting = weightings.simple
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


PC = samplers.PredictorCorrector(corrector=samplers.Langevin(0.1))
VALUES = (
    *PROCESSES,
    tables.Discrete((0.1, 1e-300, 0.5)),
    tables.Discrete(tables.CosineBetas()),
    *SAMPLERS,
    samplers.EDM(1.0, 0.1, 50.0),
    *(grids.Uniform(power=3.0), grids.Quadratic(), grids.LogSNR(first=0.5), grids.Karras(), grids.Linspace(False)),
    *(grids.Leading(offset=1), grids.Trailing()),
    *(predictions.EDMPreconditioning(), inputs.UnitVariance(1.0), c_noise.ScaledTime(), predictions.velocity),
    *(
        weightings.MinSNR(),
        weightings.P2(),
        weightings.EDMWeighting(),
        weightings.Sigmoid(-0.0),
        times.UniformTimes(0.1),
        times.LogitNormal(),
    ),
    *(times.LogNormal(), losses.DenoisingLoss(), losses.DenoisingLoss(weightings.P2(), times.steps)),
    *(few_steps.ConsistencyTuning(), few_steps.TrajectoryEnd(), few_steps.WarmStart(), few_steps.MeanFlowLoss()),
    *(samplers.Jump(), samplers.Consistency()),
    *(losses.AutoencoderLoss(), losses.AutoencoderLoss(losses.squared, terms=((0.5, losses.absolute),))),
    *(value for module in (unet, dit, autoencoder) for value in vars(module).values() if isinstance(value, nn.Module)),
    *(
        classifier.EncoderUNet(),
        small.MLP(),
        small.SmallUNet(),
        text.TextEncoder(256),
        text.Bytes(),
        text.Words(("a",)),
    ),
    text.Prompted(unet.UNet(text=True), text.TextEncoder(256)),
    Config(),
    Config(model=Model(grid=None), words=("a", 'b"\n\u2028é'), clip=math.inf, count=1.0, anything=(1, True, 1.0, None)),
)


def kept(value, code=OURS):
    return plain.from_data(json.loads(json.dumps(plain.to_data(value), allow_nan=False)), code)


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


def classes_of(module):
    """The config classes that a module, or a package, offers."""
    return {value for value in choices_of(module).values() if isinstance(value, type)}


def test_the_values_here_are_of_every_class():
    def classes(value):
        parts = value if isinstance(value, tuple) else vars(value).values() if dataclasses.is_dataclass(value) else ()
        return {type(value)}.union(*map(classes, parts))

    every = set().union(*map(classes_of, MODULES))
    hold_arrays = {process.Point, denoise.NetworkDenoiser, denoise.Moved}
    assert {tables.Discrete, samplers.UniPC, samplers.EDM, grids.Karras, weightings.P2, times.LogNormal} <= every
    assert every - set().union(*map(classes, VALUES)) == hold_arrays


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_kept_is_read_back(value):
    assert kept(value) == value
    checked = tree.check(value)
    assert checked == value
    assert leaves(kept(checked)) == leaves(checked)
    assert leaves(kept(value)) == leaves(checked)
    assert hash(checked) == hash(kept(checked))


def test_plain_data_name_every_field():
    data = plain.to_data(samplers.EDM(churn=1.0))
    fields = {"churn": 1.0, "s_min": 0.0, "s_max": {"is": "inf"}, "s_noise": 1.0, "churn_steps": None}
    assert data == {"is": "jaxdiff.core.samplers:EDM", **fields}
    assert plain.to_data(predictions.noise) == {"is": "jaxdiff.core.predictions:noise"}
    data = plain.to_data(unet.UNet(name="inner"))
    assert data["is"] == "jaxdiff.nets:UNet"
    assert data["multipliers"] == [1, 2, 2, 2]
    assert not {"name", "parent"} & data.keys()
    assert "fixed" not in plain.to_data(Config())
    assert plain.to_data(Average(0.5)) == {"is": "test_config:Average", "from": str(Path(__file__)), "rate": 0.5}


@pytest.mark.parametrize(
    "number", [math.inf, -math.inf, math.nan, 5e-324, -0.0, 0.1 + 0.2, 1e22, 1, 2**70, True, np.float64(0.1)]
)
def test_numbers_come_back_as_they_were(number):
    back = kept((number,))[0]
    assert float(back).hex() == float(number).hex()
    assert isinstance(number, type(back))


def test_what_the_data_lack_has_its_default():
    assert plain.from_data({"is": "jaxdiff.core.samplers:DDPM", "noise": 0.5}) == samplers.DDPM(noise=0.5)
    assert isinstance(plain.from_data({"is": "jaxdiff.core.process:VP", "beta_max": 5}).beta_max, float)


DEEP = {"is": "jaxdiff.core.tables:Discrete", "betas": {"is": "jaxdiff.core.tables:LinearBetas"}}
for _ in range(100):
    DEEP = {"is": "jaxdiff.core.tables:Discrete", "betas": {"is": "jaxdiff.core.tables:ZeroTerminalSNR", "betas": DEEP}}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"is": "jaxdiff.core.samplers:DDPN"}, 'unknown "jaxdiff.core.samplers:DDPN"; did you mean "DDPM"?'),
        ({"is": "jaxdiff.core.process:Process"}, 'unknown "jaxdiff.core.process:Process"'),
        ({"is": "jaxdiff.core.tables:Discrete.__init__"}, 'unknown "jaxdiff.core.tables:Discrete.__init__"'),
        ({"is": "jaxdiff.core.process:__builtins__"}, 'unknown "jaxdiff.core.process:__builtins__"'),
        ({"is": "jaxdiff.core.process:math"}, 'unknown "jaxdiff.core.process:math"'),
        ({"is": "jaxdiff.core.samplers.ancestral:normal"}, 'unknown "jaxdiff.core.samplers.ancestral:normal"'),
        ({"is": "jaxdiff.core.samplers.ancestral:DDIM"}, "unknown"),  # one name for one thing
        ({"is": "jaxdiff.data.prepare:main"}, 'unknown "jaxdiff.data.prepare:main"'),  # functions of core only
        ({"is": "jaxdiff.base.files:write"}, 'unknown "jaxdiff.base.files:write"'),
        ({"is": "jaxdiff.cli.drawing:Drawing"}, 'unknown "jaxdiff.cli.drawing:Drawing"'),
        ({"is": "jaxdiff:load"}, "jaxdiff:load is code"),
        ({"is": "jaxdiff.:load"}, 'unknown "jaxdiff.:load"'),
        ({"is": "jaxdiff.core..:load"}, 'unknown "jaxdiff.core..:load"'),
        ({"is": "jaxdiff.core.nowhere:Net"}, 'unknown "jaxdiff.core.nowhere:Net"'),
        ({"is": "jaxdiff.core.samplers:_History"}, 'unknown "jaxdiff.core.samplers:_History"'),
        ({"is": "x.Y"}, 'unknown "x.Y"'),
        ({"is": ["jaxdiff.core.samplers:DDPM"]}, "unknown \"['jaxdiff.core.samplers:DDPM']\""),
        ({"is": "x" * 10**6}, 'unknown "xxx'),
        ({"is": None}, 'unknown "None"'),
        ({}, 'unknown "None"'),
        ({"is": "a\nb"}, 'unknown "a b"'),
        ({"is": "inf", "of": 3}, 'unknown "inf"'),
        ({"is": math.inf}, 'unknown "inf"'),
        (
            {"is": "jaxdiff.core.samplers:PredictorCorrector", "predictor": {"is": "jaxdiff.core.predictions:noise"}},
            "a Sampler, got predictions.noise",
        ),
        ({"is": "jaxdiff.core.samplers:DDIM", "etta": 1.0}, 'no field "etta", only eta; did you mean "eta"?'),
        ({"is": "jaxdiff.core.samplers:DDIM", "__class__": 1.0}, 'no field "__class__"'),
        ({"is": "jaxdiff.core.samplers:DDIM", "__init__": {"is": "os.system"}}, 'no field "__init__"'),
        ({"is": "jaxdiff.nets:MPL"}, 'unknown "jaxdiff.nets:MPL"; did you mean "MLP"?'),
        ({"is": "jaxdiff.nets:MLP", "name": "x"}, 'no field "name"'),
        ({"is": "jaxdiff.nets:MLP", "parent": None}, 'no field "parent"'),
        ({"is": "jaxdiff.core.predictions:noise", "alpha": 1.0}, 'has no fields, so no "alpha"'),
        ({"is": "jaxdiff.core.tables:ZeroTerminalSNR"}, "tables:ZeroTerminalSNR needs the field betas"),
        ({"is": "jaxdiff.core.samplers:DDIM", "eta": "1"}, "eta must be a float, got '1'"),
        ({"is": "jaxdiff.core.samplers:DDIM", "eta": True}, "eta must be a float, got True"),
        ({"is": "jaxdiff.core.samplers:DDIM", "eta": 10**400}, "eta must be a float, got 10000"),
        (
            {"is": "jaxdiff.core.samplers:DDIM", "eta": {"is": "jaxdiff.core.samplers:DDIM"}},
            "eta must be a float, got DDIM",
        ),
        ({"is": "jaxdiff.core.samplers:UniPC", "order": 2.0}, "order must be an int, got 2.0"),
        ({"is": "jaxdiff.core.samplers:DDIM", "eta": 7.0}, "needs 0 <= eta <= 1"),
        ([{"is": "jaxdiff.core.samplers:DDIM", "eta": 7.0}], "0: needs 0 <= eta <= 1"),
        ({"is": "jaxdiff.nets:UNet", "dtype": "float8"}, "dtype must be one of 'auto', 'float32', 'bfloat16'"),
        (
            {"is": "jaxdiff.core.tables:Discrete", "betas": [0.1, "x"]},
            "betas must be a function or a tuple (a float, ..",
        ),
        ({"is": "jaxdiff.core.process:Point"}, "process:Point needs the field t"),
        (DEEP, "at most 32 levels deep"),
    ],
)
def test_bad_data_are_refused(data, says):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        plain.from_data(data)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("data", "needs"),
    [
        ({"is": "os:system", "from": "/usr/lib/python3/os.py"}, "add --code /usr/lib/python3/os.py "),
        ({"is": "os.path:join", "from": "/usr/lib/python3/posixpath.py"}, "add --code os.path "),
        ({"is": "builtins:exec"}, "add --code builtins "),
        ({"is": "__main__:Net", "from": None}, "add --code __main__ "),
        ({"is": "shapes:Net", "from": "/home/me/shapes.py", "width": 3}, "add --code /home/me/shapes.py "),
        ({"is": "antigravity:x", "from": "x" * 10**6}, "add --code xxx"),
        ({"is": "this:s", "from": "/this.py"}, "from Python, code=[this]"),
        ({"is": "jax.numpy:save", "from": "jax"}, "jax.numpy:save of jax is code, which runs only if you name it"),
    ],
)
def test_code_that_is_not_named_is_not_run(data, needs):
    before = set(sys.modules)
    for value, where in ((data, ""), ({"is": "jaxdiff.core.samplers:DDIM", "eta": data}, "eta: ")):
        with pytest.raises(plain.CodeNeededError) as error:
            plain.from_data(value)
        assert str(error.value).startswith(where)
        assert needs in str(error.value)
        assert len(str(error.value)) < 1000
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "name", ["json", "Path", "VALUES", "test_show", "no_such", "Source", "Loose", "__builtins__", "_private"]
)
def test_a_named_module_gives_what_it_defines_alone(name):
    module = ModuleType("theirs")
    exec(
        "import json\nfrom pathlib import Path\nfrom dataclasses import dataclass\nVALUES = 3\n"
        "class Source: pass\n@dataclass\nclass Loose:\n    x: int = 0\n"
        "@dataclass(frozen=True)\nclass Frozen:\n    x: int = 0\ndef function(x): return x\n",
        vars(module),
    )
    assert plain.from_data({"is": "theirs:Frozen", "x": 2}, [module]) == module.Frozen(2)
    assert plain.from_data({"is": "theirs:function"}, [module]) is module.function
    with pytest.raises(ValueError, match=f'unknown "theirs:{name}"'):
        plain.from_data({"is": f"theirs:{name}"}, [module])


@pytest.mark.parametrize("value", [{"a": 1}, jnp.ones(2), np.float32(1), lambda x: x, b"x", Path("x"), partial(len)])
def test_what_has_no_name_cannot_be_kept(value):
    with pytest.raises(ValueError, match=r"^anything: cannot keep .*stands by its name at the top of a file$"):
        plain.to_data(Config(anything=value))


def test_a_class_for_a_value_is_told_what_to_write():
    with pytest.raises(ValueError, match=r"^anything: DDIM is a class: write DDIM\(\), with its fields"):
        plain.to_data(Config(anything=samplers.DDIM))


def test_a_class_that_can_change_is_refused():
    @dataclass
    class Loose:
        x: int = 0

    with pytest.raises(
        ValueError, match=r"^anything: test_config.*Loose can change: make it a @dataclass\(frozen=True\)"
    ):
        tree.check(Config(anything=Loose()))


# --- types ----------------------------------------------------------------------------------------------------------


def test_checking_makes_floats_and_tuples():
    checked = tree.check(Config(rate=1, size=[28, 1], scales=[1, 2.5], clip=3, count=1, ema=[Average(1)]))
    changed = (checked.rate, checked.size, checked.scales, checked.clip, checked.count, checked.ema)
    assert leaves(changed) == leaves((1.0, (28, 1.0), (1.0, 2.5), 3.0, 1, (Average(1.0),)))
    assert type(tree.check(Config(rate=np.float64(0.5))).rate) is float
    assert leaves(tree.check((Average(1),))) == leaves((Average(1.0),))


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
        (
            {"model": Model(prediction=predictions.EDMPreconditioning)},
            "model.prediction must be a function, got class predictions.EDMPreconditioning",
        ),
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
        tree.check(bad)
    assert str(error.value).startswith(says)
    assert len(str(error.value)) < 300


def test_any_function_may_stand_beside_one_that_is_not_described():
    @dataclass(frozen=True)
    class Loose:
        function: Callable = predictions.noise
        result: Callable[..., Any] | None = c_noise.index

    assert overrides.override(Loose(), "function=flow").function is predictions.flow
    assert overrides.override(Loose(), "result=log_sigma").result is c_noise.log_sigma
    assert overrides.override(Loose(), "result=none").result is None
    for bad in ("function=unscaled", "function=require", "function=jnp", "function=os.system"):
        with pytest.raises(ValueError, match=r"function must be one of .*data, noise"):
            overrides.override(Loose(), bad)


def test_what_cannot_be_checked_is_accepted():
    @dataclass(frozen=True)
    class Loose:
        array: Float[Array, "n"] = 1.0  # type: ignore[assignment]
        unknown: "Nowhere" = 2  # type: ignore[name-defined]
        whole: int = 3

    assert tree.check(Loose()) == Loose()
    with pytest.raises(ValueError, match=r"whole must be an int, got 3\.5"):
        tree.check(Loose(whole=3.5))


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
    assert annotations.accepts(hint, value) is accepted


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
        ("model.prediction=velocity", predictions.velocity),
        ("model.prediction=EDMPreconditioning(sigma_data=1)", predictions.EDMPreconditioning(1.0)),
        ("model.sampler=DDPM", samplers.DDPM()),
        ("model.sampler=DPMpp2M( eta = .5 )", samplers.DPMpp2M(0.5)),
        ("model.sampler=dpmpp2m(.5)", samplers.DPMpp2M(0.5)),
        ("model.sampler=PredictorCorrector(corrector=Langevin(snr=0.1))", PC),
        ("model.sampler=PredictorCorrector(ReverseDiffusion, Langevin(0.1))", PC),
        ("model.grid=Karras(rho=5, first=None)", grids.Karras(rho=5.0)),
        ("model.grid=Karras(first=None, rho=5)", grids.Karras(rho=5.0)),
        ("model.network=MLP(widths=[16, 16])", small.MLP((16, 16))),
        ("data=Digits(size=8)", Digits(8)),
        ("model.weighting=likelihood", weightings.likelihood),
        ("model.process.betas.steps=20", tables.Discrete(tables.LinearBetas(20))),
        ("model.network.multipliers=1,2,4", unet.DIGITS.clone(multipliers=(1.0, 2.0, 4.0))),
        ("model.network.noise_embedding.period=100", unet.DIGITS.clone(noise_embedding=layers.Positional(100.0))),
        ("model.network.noise_embedding=None", unet.DIGITS.clone(noise_embedding=None)),
    ],
)
def test_override(assignment, value):
    path = assignment.partition("=")[0].strip().split(".")
    before, after = Config(), overrides.override(Config(), assignment)
    assert {where.split(".")[0] for where, _, _ in tree.differences(before, after)} <= {path[0]}
    for each in path[:2] if path[0] == "model" else path[:1]:
        after = getattr(after, each)
    assert leaves(after) == leaves(tree.check(value))


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
        ("model.sampler=DDPN", "model.sampler must be one of "),
        ("model.sampler=DDPN", 'got "DDPN"; did you mean "DDPM"?; or set model.sampler.eta'),
        ("model.sampler=DDIM(eta=2)", "model.sampler: needs 0 <= eta <= 1, got DDIM(eta=2.0)"),
        ("model.sampler=DDIM(etta=1)", 'DDIM has no field "etta", only eta; did you mean "eta"?'),
        ("model.sampler=DDIM(2)", "model.sampler: needs 0 <= eta <= 1, got DDIM(eta=2.0)"),
        ("model.sampler=DDIM(0.5, 1)", "model.sampler: DDIM takes eta, got DDIM(0.5, 1)"),
        ("model.sampler=DDIM(0.5, eta=1)", "eta is given twice, got DDIM(0.5, eta=1)"),
        ("model.sampler=DDIM(eta=0.5, eta=1)", "eta is given twice, got DDIM(eta=0.5, eta=1)"),
        ("model.sampler=DDIM(eta=0.5, 1)", "DDIM(eta=0.5, 1) is not Python, positional argument follows keyword"),
        ("model.sampler=DDIM(0.5", "DDIM(0.5 is not Python, '(' was never closed"),
        ("model.sampler=Heun(1)", "Heun takes nothing, got Heun(1)"),
        (
            "model.sampler=PredictorCorrector(ReverseDiffusion, Langevin('x'))",
            "model.sampler.corrector.snr must be a float",
        ),
        ("model.grid=Karras(first)", "model.grid.first must be one of "),
        ("model.grid=Karras(first)", 'got "first"; a string needs quotes'),
        ("model.sampler=DDIM(*x)", "DDIM takes its fields one by one, got DDIM(*x)"),
        ("model.sampler=DDIM(**x)", "DDIM takes its fields one by one, got DDIM(**x)"),
        ("model.prediction=velocity()", "velocity is a function, which is not called here"),
        ("model.sampler=DDIM(eta=1+1)", "1 + 1 is neither a number, a string, a tuple nor a name"),
        ("model.sampler=__import__('os').system('x')", "model.sampler must be one of "),
        ("model.sampler=nowhere.py:Mine", "no file nowhere.py"),
        ("model.sampler=no_such_module:Mine", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("data=mnist", "data must be one of "),
        ("model.data=x", 'model has no field "data"'),
        ("model.network=3", "or set model.network.channels, model.network.multipliers"),
        ("ema=0.5", "ema must be a tuple (a Average, ...), got 0.5"),
        (
            "model.prediction=velocty",
            'model.prediction must be one of data, noise, velocity, score, flow, EDMPreconditioning, got "velocty"',
        ),
        ("model.prediction=velocty", 'did you mean "velocity"?'),
        ("model.prediction=unscaled", "model.prediction must be one of data, noise"),
        ("model.prediction=EDM", "model.prediction must be one of data, noise"),
        ("model.prediction=none", "model.prediction must be one of data, noise"),
    ],
)
def test_bad_overrides_are_refused(assignment, says):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        overrides.override(Config(), assignment)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Ordered:
    apart: float = dataclasses.field(default=9.0, kw_only=True)
    last: float = 2.0


def ordered(last):
    return last


def test_fields_are_given_as_in_python():
    choices = {"Ordered": Ordered, "ordered": ordered}  # a name as it is written comes first
    assert calls.construct("Ordered(7)", choices, "field") == Ordered(7.0)
    assert calls.construct("Ordered(7, apart=1)", choices, "field") == Ordered(7.0, apart=1.0)
    with pytest.raises(ValueError, match=r"^field: Ordered takes last, got Ordered\(7, 1\)$"):
        calls.construct("Ordered(7, 1)", choices, "field")
    with pytest.raises(ValueError, match=r"^field: ordered is a function, which is not called here$"):
        calls.construct("ordered(7)", choices, "field")


def test_an_object_where_anything_may_be_is_not_replaced():
    with pytest.raises(ValueError, match=r"; or set anything\.rate$"):
        overrides.override(Config(anything=Average()), "anything=3")
    with pytest.raises(
        ValueError, match="weighting must be one of simple, uniform, velocity, flow, likelihood, MinSNR"
    ):
        overrides.override(Model(weighting=weightings.MinSNR()), "weighting=P3")
    assert overrides.override(Model(weighting=weightings.MinSNR()), "weighting=uniform").weighting is weightings.uniform
    assert overrides.override(Model(), "weighting=P2(k=2)").weighting == weightings.P2(k=2.0)


# --- for people -----------------------------------------------------------------------------------------------------


def test_differences():
    old = Config(anything=math.nan, model=Model(sampler=samplers.DDIM(0.5)))
    assert tree.differences(old, kept(old)) == []
    assert tree.differences(Config(rate=1), Config(rate=1.0)) == []
    assert tree.differences(old, dataclasses.replace(old, batch_size=64)) == [("batch_size", 128, 64)]
    assert tree.differences(old.model, Model()) == [("sampler.eta", 0.5, 0.0)]
    assert tree.differences(Model(), Model(sampler=samplers.DDPM())) == [("sampler", samplers.DDIM(), samplers.DDPM())]
    assert tree.differences(Config(), Config(ema=(Average(), Average(0.5)))) == [("ema.1.rate", 0.99, 0.5)]
    assert tree.differences(Config(words=("a",)), Config()) == [("words", ("a",), ())]
    assert tree.differences(Config(anything=1), Config(anything=True)) == [("anything", 1, True)]
    net = unet.DIGITS
    assert tree.differences(net, net.clone(multipliers=(1, 2, 3))) == [("multipliers.2", 2, 3)]
    both = tree.differences(Config(), Config(model=Model(prediction=predictions.velocity), rate=1.0))
    assert [path for path, _, _ in both] == ["model.prediction", "rate"]


SHOWN = """\
test_config.Config(
    model=test_config.Model(
        network=nets.UNet(
            channels=32,
            multipliers=(1, 2, 2),
            attention=(),
            noise_embedding=nets.GaussianFourier(scale=30.0),
            groups=8,
            classes=10,
        ),
        prediction=predictions.velocity,
        sampler=samplers.DDIM(eta=0.5),
    ),
    ema=(test_config.Average(rate=0.5),),
    folder='there',
)"""


def test_show():
    net = unet.DIGITS.clone(attention=(), noise_embedding=layers.GaussianFourier(30.0))
    model = Model(network=net, prediction=predictions.velocity, sampler=samplers.DDIM(0.5))
    assert tree.show(Config(model=model, ema=(Average(0.5),), folder="there")) == SHOWN
    assert tree.show(Config()) == "test_config.Config()"
    assert tree.show(Config(rate=1, clip=None, scales=(1, 2))) == "test_config.Config(rate=1)"
    assert tree.show((1, "a")) == "(1, 'a')"
    assert tree.show(predictions.noise) == "predictions.noise"


def test_lines_have_at_most_100_columns():
    for length in range(30, 83):
        text = tree.show((Config(folder="a" * length),))
        lines = text.splitlines()
        assert max(map(len, lines)) <= 100
        assert (len(lines) > 1) == (len(f"(test_config.Config(folder='{'a' * length}'),)") > 99)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_shown_can_be_read(value):
    text = tree.show(value)
    assert max(map(len, text.splitlines())) <= 100
    names = {"test_config": sys.modules[__name__]} | {m.__name__.split(".")[-1]: m for m in MODULES}
    nets = sys.modules["jaxdiff.nets"]
    assert eval(text, {**names, "nets": nets, "inf": math.inf}) == value


# --- from a file ----------------------------------------------------------------------------------------------------

FILE = "from jaxdiff.core import samplers\n\nconfig = samplers.DDIM(eta=1)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a few config files."""
    monkeypatch.chdir(tmp_path)
    files = {
        "mnist": FILE,
        "cifar10": FILE,
        "none": "x = 1\n",
        "kind": "from jaxdiff.core import samplers\nconfig = samplers.DDIM\n",
        "syntax": "x = 1\n\nconfig = (\n",
        "raises": "from jaxdiff.core import samplers\n\n\nconfig = samplers.DDIM(eta=3.0)\n",
        "typed": "from jaxdiff.core.samplers import DDIM\nconfig = DDIM()\nobject.__setattr__(config, 'eta', 'x')\n",
        "calls": "from jaxdiff.core.samplers import DDIM\n\ndef make(eta):\n    return DDIM(eta)\n\nconfig = make(3)\n",
        "imports": "\nimport no_such_module\n",
        "encoded": "# coding: latin-1\nfrom jaxdiff.core.samplers import DDIM\nassert len('é') == 1\nconfig = DDIM()\n",
    }
    (tmp_path / "configs").mkdir()
    for each, source in files.items():
        (tmp_path / "configs" / f"{each}.py").write_bytes(source.encode("latin-1"))
    return tmp_path


@pytest.mark.parametrize(
    "path", ["configs/mnist.py", "configs/mnist", "mnist", "mnist.py", Path("configs") / "mnist.py"]
)
def test_load(folder, path):
    loaded = code.load(path)
    assert leaves(loaded) == leaves(samplers.DDIM(eta=1.0))
    assert not list(folder.rglob("*.pyc"))


def test_a_file_says_its_own_encoding(folder):
    assert code.load("encoded") == samplers.DDIM()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("mnits", 'no config file mnits; did you mean "mnist"?'),
        ("configs/mnits.py", 'no config file configs/mnits.py; did you mean "mnist"?'),
        ("elsewhere/cifar", 'no config file elsewhere/cifar; did you mean "cifar10"?'),
        ("zzzzzzzz", "no config file zzzzzzzz"),
        ("configs", "no config file configs"),
        ("none", "configs/none.py must define `config`, such as config = Config(...)"),
        ("kind", "configs/kind.py must define `config`, such as config = Config(...)"),
        ("syntax", "configs/syntax.py, line 3: SyntaxError: '(' was never closed"),
        ("raises", "configs/raises.py, line 4: ValueError: needs 0 <= eta <= 1, got DDIM(eta=3.0)"),
        ("calls", "configs/calls.py, line 4: ValueError: needs 0 <= eta <= 1, got DDIM(eta=3)"),
        ("imports", "configs/imports.py, line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("typed", "configs/typed.py: eta must be a float, got 'x'"),
    ],
)
def test_bad_files_are_refused(folder, path, says):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        code.load(path)
    assert str(error.value) == says


def own_times(process, u):
    return 0.5 + 0.5 * u


def velocity(alpha, sigma):
    return alpha, -sigma


def test_a_name_of_ones_own_file_comes_before_that_of_jaxdiff():
    mine = models.Diffusion(small.MLP(), prediction=velocity)
    assert overrides.override(mine, "prediction=velocity").prediction is velocity
    assert overrides.override(mine, "prediction=score").prediction is predictions.score


@dataclass(frozen=True)
class Discs:
    def open(self, cache="auto"):
        raise NotImplementedError


def test_what_is_none_or_ones_own_may_become_what_jaxdiff_has():
    mine = models.Config(models.Diffusion(small.MLP(), times=own_times))
    change = partial(overrides.override, mine)
    assert change("held_out=Digits(size=8)").held_out == data.Digits(8)
    assert change("system.condition=labels(classes=3)").system.condition == models.Labels(3)
    assert change("system.times=UniformTimes(low=0.1)").system.times == times.UniformTimes(0.1)
    assert change("system.weighting=min_snr(gamma=3)").system.weighting == weightings.MinSNR(3.0)
    assert change("system.weighting=jaxdiff.core.weightings:P2").system.weighting == weightings.P2()
    with pytest.raises(ValueError, match=r'weighting must be one of .*simple, .*, got "MinSNT"; did you mean "MinSNR"'):
        change("system.weighting=MinSNT")
    own = models.Config(models.Diffusion(small.MLP()), held_out=Discs())
    assert overrides.override(own, 'held_out=Tfds(name="mnist")').held_out == data.Tfds("mnist")
    with pytest.raises(ValueError, match='condition must be one of Labels, Prompts, got "nonsense"'):
        change("system.condition=nonsense")
    with pytest.raises(ValueError, match=r'held_out must be one of Arrays, .*Tfds, got "digts"; did you mean "Digits"'):
        change("held_out=digts")


def test_overrides_may_stand_in_any_order():
    loss = times.UniformTimes(low=0.1, high=0.5)
    assert overrides.overrides(loss, ["low=0.6", "high=0.9"]) == times.UniformTimes(0.6, 0.9)
    assert overrides.overrides(loss, ["low=0.2", "low=0.3"]).low == 0.3
    with pytest.raises(ValueError, match="low: needs 0 < low < high <= 1"):
        overrides.overrides(loss, ["low=0.6", "low=0.7"])
