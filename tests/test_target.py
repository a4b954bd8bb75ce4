"""Programs compiled for machines that are not here: what is said of them, against what is known by hand."""

import importlib.metadata
import re
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from targets import STAND_INS
from toy import config

import sample
import train
from jaxdiff.base import accelerators, code, environment
from jaxdiff.base.overrides import overrides
from jaxdiff.cli import train as cli_train
from jaxdiff.cli.dry_run import dry_run as drawn_dry
from jaxdiff.cli.options import parsed
from jaxdiff.cli.plan import planned
from jaxdiff.models import target
from jaxdiff.models.dry_run import dry_run
from jaxdiff.models.experiment import Experiment
from jaxdiff.nets import MLP, DiT, UNet, layers
from jaxdiff.nets.machine import Kind, compiled_for

ROOT = Path(__file__).parent.parent
SQUARE = 256 * 256 * 4  # bytes


@dataclass(frozen=True)
class Cpus(target.Target):
    """So many of this machine's, as if they were elsewhere."""

    count: int = 1

    @property
    def devices(self):
        return jax.devices()[: self.count]

    @property
    def kind(self):
        return Kind("cpu")


def cpus(count=1, memory=1e9, bandwidth=1e9):
    return Cpus("a heap of CPUs", memory, bandwidth, 2e12, 1e12, count=count)


# --- what a program says --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    text: str

    def as_text(self):
        return self.text


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


@pytest.mark.parametrize(
    ("function", "squares"),
    [
        (lambda a, b: a @ b, 3),  # two are read, one is written
        (lambda a, b: jnp.sin(a) + jnp.cos(b), 3),  # fused
        (lambda a, b: jnp.tanh(a @ b) @ b, 3 + 2 + 3),
        (lambda a, b: (a @ b, b @ a), 6),
    ],
    ids=["product", "fused", "three", "two"],
)
def test_bytes_of_a_program_without_an_analysis_are_counted_in_it(function, squares):
    square = jnp.ones((256, 256))
    counted = target.bytes_moved(compiled(function, square, square))
    assert counted == squares * SQUARE


@pytest.mark.parametrize(
    ("line", "moved"),
    [
        ("  %a = bf16[8,128]{1,0} fusion(%p), kind=kLoop, calls=%c", 2048 + 64),
        ('  ROOT a.1 = (f32[8]{0}, u8[4]{0:T(256)}) custom-call(%p, %p), custom_call_target="x"', 32 + 4 + 2 * 64),
        ("  %a = pred[] compare(%p, %p), direction=LT", 1 + 2 * 64),
        ("  %a = f32[16]{0} bitcast(%p)", 0),
        ("  %a = f32[4]{0} slice(%p), slice={[0:4]}", 2 * 16),
        ("  %a = f32[16]{0:T(128)S(1)} fusion(%p), kind=kLoop, calls=%c", 64),  # stays on the chip
        ("  %a = (f32[16]{0:T(128)S(1)}, f32[16]{0}, u32[]{:S(2)}) copy-start(%p)", 64),  # goes there
        ("  %a = ((f32[16]{0}), f32[4]{0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:4]}", 16),
        ("  %a = f32[16]{0:T(128)S(1)} copy-done(%p)", 0),
    ],
)
def test_an_instruction_reads_its_operands_and_writes_its_result(line, moved):
    program = f"HloModule m\n\nENTRY %main (p: f32[16]) -> f32[] {{\n  %p = f32[16]{{0}} parameter(0)\n{line}\n}}\n"
    assert target.bytes_moved(Program(program)) == moved


RUNS = """HloModule m

%small (q: f32[16]) -> f32[16] {
  %q = f32[16]{0} parameter(0)
  ROOT %y = f32[16]{0} negate(%q)
}

%large (q: f32[16]) -> f32[16] {
  %q = f32[16]{0} parameter(0)
  %x = f32[16]{0} negate(%q)
  ROOT %y = f32[16]{0} negate(%x)
}

%counts (arg_tuple.3: (s32[], f32[16])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(10)
  %arg_tuple.3 = (s32[]{:T(128)}, f32[16]{0}) parameter(0)
  %get-tuple-element.15 = s32[]{:T(128)} get-tuple-element(%arg_tuple.3), index=0
  ROOT %lt.0 = pred[]{:T(512)} compare(%get-tuple-element.15, %constant.3), direction=LT, metadata={op_name="a"}
}

%looks (arg_tuple.4: (s32[], s32[])) -> pred[] {
  %arg_tuple.4 = (s32[], s32[]) parameter(0)
  %get-tuple-element.16 = s32[] get-tuple-element(%arg_tuple.4), index=0
  %get-tuple-element.17 = s32[] get-tuple-element(%arg_tuple.4), index=1
  ROOT %lt.1 = pred[] compare(%get-tuple-element.16, %get-tuple-element.17), direction=LT
}

%cutting (a: f32[16], b: s32[]) -> f32[16] {
  %a = f32[16]{0} parameter(0)
  %b = s32[] parameter(1)
  %cut = f32[2]{0} dynamic-slice(%a, %b), dynamic_slice_sizes={2}
  ROOT %y = f32[16]{0} broadcast(%cut), dimensions={}
}

ENTRY %main (p: f32[16], i: s32[]) -> f32[16] {
  %p = f32[16]{0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %w = f32[16]{0} OPERATION
}
"""


@pytest.mark.parametrize(
    ("operation", "moved"),
    [
        ("while(%p), condition=%c, body=%small", 128),
        ('while(%p), condition=%c, body=%small, backend_config={"known_trip_count":{"n":"10"}}', 1280),
        ("while(%p), condition=%counts, body=%small", 1280),  # as a TPU's compiler says it
        ("while(%p), condition=%looks, body=%small", 128),
        ("call(%p), to_apply=%small", 128),
        ("conditional(%i, %p, %p), branch_computations={%small, %large}", 256),
        ("conditional(%i, %p, %p), true_computation=%large, false_computation=%small", 256),
        ("fusion(%p, %i), kind=kLoop, calls=%cutting", 64 + 8 + 4),  # of %p only what is cut out of it
        ("fusion(%i, %p), kind=kLoop, calls=%cutting", 64 + 4 + 64),
    ],
)
def test_what_an_instruction_runs(operation, moved):
    program = RUNS.replace("OPERATION", operation)
    assert target.bytes_moved(Program(program)) == moved


def test_a_loop_that_calls_is_followed():
    program = """HloModule m

%inner (p: f32[16]) -> f32[16] {
  %p = f32[16]{0} parameter(0)
  ROOT %y = f32[16]{0} fusion(%p), kind=kLoop, calls=%f
}

%body (q: (f32[16])) -> (f32[16]) {
  %q = (f32[16]{0}) parameter(0)
  %x = f32[16]{0} get-tuple-element(%q), index=0
  %z = f32[16]{0} call(%x), to_apply=%inner
  ROOT %t = (f32[16]{0}) tuple(%z)
}

ENTRY %main (p: f32[16]) -> (f32[16]) {
  %p = f32[16]{0} parameter(0)
  %t = (f32[16]{0}) tuple(%p)
  ROOT %w = (f32[16]{0}) while(%t), condition=%c, body=%body
}
"""
    assert target.bytes_moved(Program(program)) == 128


def test_the_bound_is_the_slower_of_computing_and_memory():
    wide, narrow = cpus(bandwidth=1e12), cpus(count=2, bandwidth=1e9)
    bound = target.Bound(wide, images=10, flops=1e12, moved=1e11, dtype="float32")
    assert bound.rate == pytest.approx(10)
    assert "an image    100 GFLOP in float32, 10 GB to and from memory" in str(bound)
    assert "bound by    computing: computing takes 1e+03 ms a batch, memory 100 ms" in str(bound)
    assert replace(bound, dtype="bfloat16").rate == pytest.approx(20)
    bound = target.Bound(narrow, images=10, flops=1e12, moved=5e10, dtype="float32")  # by each of two
    assert bound.rate == pytest.approx(10 / 50)
    assert "100 GFLOP in float32, 10 GB to and from memory" in str(bound)
    assert "bound by    memory" in str(bound)


# --- a training step ------------------------------------------------------------------------------------------------


def said(where, tmp_path, **changes):
    return "\n".join(dry_run(Experiment(replace(config, **changes), tmp_path / "new"), where))


@pytest.mark.parametrize(("count", "placing"), [(1, "jit"), (4, "pmap")])
def test_a_step_for_another_machine(count, placing, tmp_path):
    whole = said(cpus(count), tmp_path)
    many = "device" if count == 1 else "devices"
    assert f"\ndevices     {count} cpu {many}, {placing} of a heap of CPUs, which are not here\n" in whole
    assert re.search(r"\nan image    [\d.]+ kFLOP in float32, [\d.]+ [kM]B to and from memory\n", whole)
    assert re.search(r"\nbound by    memory: computing takes [\d.e-]+ ms a batch, memory [\d.]+ ms\n", whole)
    assert re.search(r"\nat best     [\d,]+ images/s, [\d.]+ s for the run\n", whole)
    assert re.search(r"\nfits a heap of CPUs \(needs .* of 1 GB\); batch_size=\d+ would too, by what an image", whole)
    assert not (tmp_path / "new").exists()


def test_what_a_smaller_machine_would_do(tmp_path):
    assert "does not fit a heap of CPUs" in said(cpus(memory=100), tmp_path)
    assert said(cpus(memory=100), tmp_path).endswith("try a smaller network")


def test_an_image_costs_the_same_computing_however_steps_are_cut(tmp_path):
    flops = {
        re.search(r"\nan image    (.*) in float32", said(cpus(), tmp_path, training=replace(config.training, **how)))[1]
        for how in ({}, {"accumulate": 4}, {"steps_per_call": 5})
    }
    assert len(flops) == 1


# --- drawing --------------------------------------------------------------------------------------------------------


def test_drawing_on_another_machine(tmp_path):
    Experiment(replace(config, training=replace(config.training, steps=1)), tmp_path / "run").train()
    twenty, forty = (
        list(drawn_dry(planned(parsed(["--workdir", str(tmp_path / "run"), "--steps", steps, "--num", "9"])), cpus(4)))
        for steps in ("20", "40")
    )
    assert twenty[2] == "devices     4 of a heap of CPUs, not here, for 12 images at a time"
    a, b = (float(re.match(r"a batch     ([\d.]+) MFLOP", lines[3])[1]) for lines in (twenty, forty))
    assert b == pytest.approx(2 * a, rel=0.01)
    assert twenty[-1].startswith("fits a heap of CPUs (needs ")
    assert "would too, by what an image takes" in twenty[-1]


# --- what is chosen -------------------------------------------------------------------------------------------------


KINDS = {name: one.kind for name, one in target.TARGETS.items()} | {"any": Kind("any")}


def test_attention_is_what_runs_there():
    q = jnp.ones((1, 64, 4, 16), jnp.bfloat16)
    for name, kind in KINDS.items():
        with compiled_for(kind):
            assert layers._fused(q, q) == (name in ("h100", "a100")), name
    assert not layers._fused(q, q)


@pytest.mark.parametrize("width", [4, 8, 12, 128, 136])
@pytest.mark.parametrize("masked", [False, True])
def test_no_attention_is_left_to_cudnn_that_it_refuses_in_training(width, masked, monkeypatch):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 90800)
    left = []
    for queries, keys in product(range(1, 8), range(1, 8)):  # a UNet of 28x28 pixels has 7x7 tokens
        q, k = (jnp.ones((3, n, 2 * width), jnp.bfloat16) for n in (queries, keys))
        mask = jnp.ones((3, keys), bool) if masked else None
        gradient = jax.grad(lambda q, k, mask: (layers.attend(q, k, k, 2, mask) ** 2).sum())
        with compiled_for(KINDS["h100"]):
            traced = jax.make_jaxpr(jax.vmap(gradient))(q, k, mask)
        left.append("_fwd" in str(traced))
    assert sum(left) == (9 if width in (8, 128) and not masked else 0), "three even numbers of queries, and of keys"


@pytest.mark.parametrize("axes", [axes for axes in product((0, None), repeat=3) if axes != (None,) * 3])
def test_attention_for_a_gpu_may_be_mapped_over_some_of_its_inputs(axes, monkeypatch):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 90800)
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = [
        jax.random.normal(key, (4, 32) if axis is None else (3, 4, 32), jnp.bfloat16)
        for key, axis in zip(keys, axes, strict=True)
    ]
    gradients = jax.vmap(jax.grad(lambda q, k, v: (layers.attend(q, k, v, 2) ** 2).sum(), (0, 1, 2)), axes)
    plain = gradients(*inputs)
    with compiled_for(KINDS["h100"]):
        assert "_fwd" in str(jax.make_jaxpr(gradients)(*inputs))
        found = gradients(*inputs)  # on this CPU, which has the plain one
    for one, other in zip(found, plain, strict=True):
        assert bool((one == other).all())


@pytest.mark.parametrize("net", [UNet(8, (1, 1), 1), DiT(32, 1, 2), MLP((8,))], ids=lambda net: type(net).__name__)
def test_auto_is_half_precision_where_it_is_fast_and_parameters_stay_whole(net, monkeypatch):
    monkeypatch.setattr(layers, "_fused", lambda *_: False)  # cuDNN is asked for its version while it is traced
    x = jnp.ones((8, 8, 1))
    for name, kind in KINDS.items():
        half = name not in ("t4", "any")
        with compiled_for(kind):
            variables = jax.eval_shape(net.init, jax.random.key(0), x, 0.5)
            traced = jax.make_jaxpr(lambda v, net=net: net.apply(v, x, 0.5))(variables)
            assert layers.concrete("auto") == ("bfloat16" if half else "float32"), name
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        assert traced.out_avals[0].dtype == jnp.float32
        assert ("bf16" in str(traced)) == half, name
    assert layers.concrete("auto") == "float32"  # on the CPU of this test
    assert layers.concrete("float16") == "float16"


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--target", "h100"), "--target needs --dry_run"),
        (("--dry_run", "--target", "v7"), "--target must be one of v5e, v5e-4, v5e-8, v6e, v6e-4, h100, a100, t4"),
        (("--dry_run", "--target", ""), "--target must be one of"),
        (("--dry_run", "--target"), "expected one argument"),
    ],
)
@pytest.mark.parametrize("script", [train, sample], ids=["train", "sample"])
def test_a_wrong_target_gets_a_line(script, options, says, monkeypatch, called, tmp_path):
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    own = ["--config", ROOT / "configs/digits.py"] if script is train else ["--from_diffusers", tmp_path]
    code, _, error = called(script.main, *own, *options)
    assert code == 2
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("there", [None, accelerators.ACCELERATORS[1]], ids=["no GPU", "a GPU"])
@pytest.mark.parametrize("said", [["--target", "h100"], []], ids=["elsewhere", "here"])
def test_without_an_accelerator_no_plugin_looks_for_one_to_compile_elsewhere(said, there, monkeypatch, called):
    settings = {}
    monkeypatch.setattr(accelerators, "is_prepared", lambda: there)
    monkeypatch.setattr(accelerators, "check_used", lambda: None)
    for name in ("keep_memory", "_keep_programs", "_quieten"):  # of the process
        monkeypatch.setattr(environment, name, lambda: None)
    monkeypatch.setattr(environment.compiling, "announce", lambda: None)
    monkeypatch.setattr(type(jax.config), "update", lambda self, name, value: settings.update({name: value}))
    monkeypatch.setattr(cli_train, "train", lambda options: 0)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert called(train.main, "--config", "digits", "--dry_run", *said)[0] == 0
    assert settings.get("jax_platforms") == ("cpu" if said and there is None else None)


def test_a_compiler_that_is_not_installed_is_named(monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("JAX TPU support not installed;\ncannot generate TPU topology")

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    monkeypatch.setattr(target, "_check_libtpu", lambda: None)  # Colab's image has one
    says = rf'compiling for a TPU v5e takes jax\[tpu\]: pip install "jax\[tpu\]=={jax.__version__}" \(JAX TPU support'
    with pytest.raises(ValueError, match=says):
        replace(target.target("v5e")).devices  # noqa: B018


def test_a_libtpu_that_is_not_this_jaxs_own_is_named(monkeypatch):
    asked = ["jaxlib==0.7.2", 'libtpu==0.0.23.*; extra == "tpu"', 'jax-cuda12-plugin==0.7.2; extra == "cuda12"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    monkeypatch.setattr(topologies, "get_topology_desc", lambda *_, **__: pytest.fail("it was not looked at"))
    for version in ("0.0.21.1", "0.0.24"):  # the first is what Colab's image holds
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        with pytest.raises(ValueError, match=rf"jax\[tpu\].*libtpu ==0\.0\.23\.\*, and this is {version}"):
            replace(target.target("v5e")).devices  # noqa: B018
    for version in ("0.0.23", "0.0.23.1"):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        target._check_libtpu()


@pytest.mark.parametrize(("name", "changes"), STAND_INS.items(), ids=STAND_INS)
def test_the_benchmarks_stand_ins_have_the_size_of_what_they_stand_for(name, changes):
    shipped = code.load(name)
    assert overrides(shipped, changes).data.size == (shipped.data.size or 96)  # of STL-10


def test_cards_are_described_as_xla_reads_them():
    for name in ("h100", "a100", "t4"):
        text = target.target(name)._described()
        assert text.count("{") == text.count("}")
        assert f"device_memory_size: {target.TARGETS[name].memory:.0f} " in text
