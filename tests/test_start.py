"""Models of few steps as runs: started from another run, taught by it, stopped, resumed, and drawn from."""

import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from toy import config as toy

import sample
import train
from jaxdiff import load
from jaxdiff.base.overrides import overrides
from jaxdiff.core import few_steps, grids, predictions, samplers, times
from jaxdiff.core.c_noise import quarter_log_sigma
from jaxdiff.core.inputs import UnitVariance
from jaxdiff.core.process import Flow, LinearVE
from jaxdiff.models import Diffusion, Labels
from jaxdiff.models import experiment as experiments
from jaxdiff.models.editing import inpaint, vary
from jaxdiff.models.experiment import Experiment
from jaxdiff.nets import MLP, DiT, GaussianFourier, SmallUNet, UNet, machine
from jaxdiff.nets.machine import Kind
from jaxdiff.training import Adam, Ema
from jaxdiff.training.metrics import read_metrics
from jaxdiff.training.placing import Trainer
from jaxdiff.training.state import bytes_of

EDM = {
    "process": LinearVE(),
    "prediction": predictions.EDMPreconditioning(),
    "input_scale": UnitVariance(),
    "c_noise": quarter_log_sigma,
}
SHORT = replace(
    toy.training, steps=8, log_every=2, show_every=8, save_every=4, optimiser=Adam(1e-3), averages=(Ema(0.9),)
)
TEACHER = replace(
    toy,
    system=Diffusion(
        MLP((16,), GaussianFourier(1.0), classes=10), condition=Labels(10, drop=0.1), times=times.LogNormal(),
        sampler=samplers.DPMpp2M(), grid=grids.Karras(), steps=4, shown=10, **EDM,
    ),
    training=SHORT,
)  # fmt: skip
FEW = {"sampler": samplers.Consistency(), "grid": grids.Karras(last=0.02), "steps": 2, "times": times.UniformTimes()}
WALKS = few_steps.TrajectoryEnd(steps=3, count=20)
OBJECTIVES = {
    "tuned": few_steps.ConsistencyTuning(stage=3),
    "guided": few_steps.ConsistencyTuning(stage=3, stage_steps=3),
    "walks": WALKS,
    "warm": few_steps.WarmStart(WALKS, 3, few_steps.ConsistencyTuning(stage=3)),
}
SMALL = 3000  # bytes
SCALES = {"tuned": None, "guided": 2.0, "walks": (1.0, 3.0), "warm": (1.0, 3.0)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    Experiment(TEACHER, folder).train()
    return folder


def student(teacher, kind, **training):
    system = replace(TEACHER.system, objective=OBJECTIVES[kind], trained_scale=SCALES[kind], **FEW)
    held_out = replace(TEACHER.data, split="test") if hasattr(TEACHER.data, "split") else TEACHER.data
    return replace(TEACHER, system=system, start=str(teacher), held_out=held_out, training=replace(SHORT, **training))


def rows(folder):
    return [row["loss"] for row in read_metrics(folder / "metrics.csv")]


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_run_starts_from_another_learns_and_draws_though_the_other_vanishes(teacher, kind, tmp_path):
    """And one that is stopped on the way and goes on ends with the same parameters, bit for bit."""
    source = shutil.copytree(teacher, tmp_path / "gone")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Experiment(student(source, kind), whole).train()
    assert np.all(np.isfinite(rows(whole)))
    Experiment(student(source, kind, steps=4, schedule_steps=8), parts).train()
    shutil.rmtree(source)
    Experiment(student(source, kind, schedule_steps=8), parts).train()
    ends = [load(folder) for folder in (whole, parts)]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *(model.params for model in ends))))
    assert rows(whole) == rows(parts)
    told = SCALES[kind] == (1.0, 3.0)
    images = ends[0].sample(4, steps=1, **({"guidance_scale": 1.7} if told else {}))
    assert np.isfinite(images).all()
    assert np.abs(images).max() <= 1  # clipped where it ends
    assert (np.abs(ends[0].sample(4, guidance_scale=3.0, steps=1) - images).max() > 0) if told else True


def test_it_starts_where_the_other_stood(teacher, tmp_path):
    """What is new, the embedding of a further number, changes nothing at first."""
    config = student(teacher, "warm", steps=2, save_every=2, optimiser=Adam(1e-30))
    Experiment(config, tmp_path / "run").train()
    model, other = load(tmp_path / "run"), load(teacher)
    own, given = (traverse_util.flatten_dict(each.params, sep=".") for each in (model, other))
    assert {name for name in own if name not in given} == {
        f"embedding.number_1_{i}.{part}" for i in (0, 1) for part in ("kernel", "bias")
    }
    x, t = jax.random.normal(jax.random.key(0), (8, 8, 1)), jnp.float32(0.3)
    ends = [each.system.network_denoiser(each.params)(x, t, jnp.int32(3)) for each in (model, other)]
    np.testing.assert_allclose(*ends, atol=1e-6)


@pytest.mark.parametrize("kind", ["guided", "warm"])
def test_the_same_losses_on_any_devices(teacher, kind, tmp_path):
    losses = []
    for placing in ("jit", "pmap", "sharded"):
        Experiment(student(teacher, kind, placing=placing), tmp_path / placing).train()
        losses.append(rows(tmp_path / placing))
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=2e-5)


def test_walks_are_made_once_and_are_those_of_the_teacher(teacher, tmp_path):
    experiment = Experiment(student(teacher, "walks"), tmp_path / "run")
    experiment.train()
    path = tmp_path / "run" / "trajectories.npz"
    before, walks = path.stat().st_mtime_ns, experiment.start.walks(experiment.examples, experiment.shape)
    again = Experiment(student(teacher, "walks"), tmp_path / "run").start.walks(experiment.examples, experiment.shape)
    assert path.stat().st_mtime_ns == before
    np.testing.assert_array_equal(walks.trained.end, again.trained.end)
    assert len(walks.trained.end) == 20
    assert len(walks.held_out.end) == 128
    model = load(teacher)
    one = model.sample(
        [7], labels=int(walks.trained.condition[7]), guidance_scale=float(walks.trained.scale[7]), steps=3
    )
    np.testing.assert_allclose(one[0], walks.trained.end[7], atol=2e-5)
    path.write_bytes(path.read_bytes()[:-200])  # damaged: made anew
    mended = Experiment(student(teacher, "walks"), tmp_path / "run").start.walks(experiment.examples, experiment.shape)
    np.testing.assert_array_equal(mended.trained.end, again.trained.end)


def test_the_teacher_and_its_walks_are_counted_in_memory_and_on_the_disk(teacher, tmp_path, monkeypatch):
    held, run = [], Experiment(student(teacher, "walks", placing="jit"), tmp_path / "run")
    monkeypatch.setattr(experiments, "Trainer", lambda how, held_now, *rest: held.append(held_now) or Trainer("jit"))
    needs = run.compiled().memory_analysis().argument_size_in_bytes
    model, walks = load(teacher), run.start.walk_shapes(run.examples, run.shape)
    assert held == [bytes_of((run.state_shapes, model.params, walks))]
    assert needs == pytest.approx(held[0], abs=SMALL)  # and a batch
    wanted = run.start.to_write(run.examples, run.shape)
    monkeypatch.setattr(
        "jaxdiff.base.files.free_bytes", lambda folder: 2**24 + 4 * bytes_of(run.state_shapes) + wanted - 1
    )
    with pytest.raises(ValueError, match="of space left, the run needs"):
        run.check()
    monkeypatch.undo()
    run.train()
    kept = [*(tmp_path / "run" / "teacher").rglob("*"), tmp_path / "run" / "trajectories.npz"]
    assert wanted == pytest.approx(sum(path.stat().st_size for path in kept if path.is_file()), abs=SMALL)  # headers
    assert run.start.to_write(run.examples, run.shape) == 0


def meanflow(**fields):
    system = Diffusion(
        MLP((16,), GaussianFourier(1.0), classes=10),
        Flow(),
        predictions.flow,
        c_noise=toy.system.c_noise,
        condition=Labels(10, drop=0.1),
        objective=few_steps.MeanFlowLoss(),
        sampler=samplers.Jump(),
        grid=grids.Uniform(),
        steps=1,
        shown=10,
        **fields,
    )
    return replace(toy, system=system, training=SHORT)


@pytest.mark.parametrize("scale", [None, 2.0, (1.0, 3.0)])
def test_a_mean_flow_is_trained_from_nothing(scale, tmp_path):
    losses = []
    for placing in ("jit", "pmap", "sharded"):
        config = meanflow(trained_scale=scale)
        config = replace(config, training=replace(SHORT, placing=placing))
        Experiment(config, tmp_path / placing).train()
        losses.append(rows(tmp_path / placing))
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
    np.testing.assert_allclose(losses[2], losses[0], rtol=2e-5)
    model = load(tmp_path / "jit")
    drawn = [model.sample(4, steps=steps) for steps in (1, 2, 3)]
    assert all(np.isfinite(images).all() for images in drawn)
    assert np.abs(drawn[0] - drawn[1]).max() > 0
    varied = model.sample(4, steps=3, edit=vary(model, np.clip(drawn[0], -1, 1), 0.6))
    assert np.isfinite(varied).all()


def test_a_model_of_few_steps_paints_between_what_is_known(teacher, tmp_path):
    Experiment(student(teacher, "tuned"), tmp_path / "run").train()
    model = load(tmp_path / "run")
    images = np.clip(np.random.default_rng(0).normal(0, 0.5, (1, 8, 8, 1)), -1, 1).astype(np.float32)
    mask = np.zeros((1, 8, 8))
    mask[:, 2:5] = 1
    painted = model.sample(2, edit=inpaint(model, images, mask), steps=2)
    np.testing.assert_array_equal(painted[:, 5:], np.repeat(images, 2, 0)[:, 5:])
    assert np.abs(painted[0, 2:5] - painted[1, 2:5]).max() > 0


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: replace(c, start="runs/nowhere"), "start=runs/nowhere is not there: train it first, or name"),
        (lambda c: replace(c, system=replace(c.system, process=LinearVE(sigma_max=50.0))), "has process=LinearVE"),
        (lambda c: replace(c, system=replace(c.system, prediction=predictions.velocity)), "has prediction="),
        (
            lambda c: replace(c, system=replace(c.system, condition=None, network=MLP((16,), GaussianFourier(1.0)))),
            "has condition=Labels",
        ),
        (
            lambda c: replace(c, system=replace(c.system, network=MLP((24,), GaussianFourier(1.0), classes=10))),
            "has embedding_0.bias of shape (16,), system.network has embedding_0.bias of shape (24,): give it the same",
        ),
        (
            lambda c: replace(c, system=replace(c.system, network=DiT(width=16, depth=1, heads=2, classes=10))),
            "give it the same fields",
        ),
    ],
)  # fmt: skip
def test_a_start_that_does_not_fit_is_refused(teacher, change, says, tmp_path):
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        Experiment(change(student(teacher, "tuned")), tmp_path / "run").train()
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_other_images_a_student_as_teacher_and_other_systems_are_refused(teacher, tmp_path):
    Experiment(student(teacher, "tuned"), tmp_path / "student").train()
    with pytest.raises(ValueError, match="is a model of few steps itself: start from the one that taught it"):
        Experiment(student(tmp_path / "student", "walks"), tmp_path / "run").train()
    undropped = replace(TEACHER, system=replace(TEACHER.system, condition=Labels(10)))
    Experiment(undropped, tmp_path / "undropped").train()
    with pytest.raises(ValueError, match=r"cannot teach guidance: it was trained without condition\.drop"):
        Experiment(student(tmp_path / "undropped", "guided"), tmp_path / "run").train()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: replace(student("x", "walks"), start=None), "learns of a teacher: start must name one"),
        (lambda: replace(student("x", "guided"), start=None), "learns of a teacher: start must name one"),
        (lambda: meanflow(times=times.LogNormal()), "neither weighting nor times beside an objective"),
        (lambda: meanflow(trained_scale=(3.0, 1.0)), "a scale, or two that rise"),
        (
            lambda: meanflow(trained_scale=(1.0, 3.0), guidance_scale=4.0),
            r"guidance_scale that trained_scale=\(1.0, 3.0\) has",
        ),
        (lambda: replace(meanflow(trained_scale=2.0).system, condition=Labels(10)), "a condition that is dropped"),
        (lambda: replace(TEACHER.system, trained_scale=2.0), "an objective of few steps that learns it"),
    ],
)
def test_a_config_that_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.fixture(scope="module")
def students(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    for kind in ("guided", "warm"):
        Experiment(student(teacher, kind), folder / kind).train()
    Experiment(meanflow(), folder / "meanflow").train()
    return folder


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("guided", "--sampler ddim", "takes a denoiser, and this model is a ConsistencyModel: Consistency() or Jump()"),
        ("guided", "--sampler jump --steps 3", "jumps to clean data only: Jump() is for one step of it"),
        ("guided", "--guidance_scale 3", "knows the guidance_scale 2, which it has built in; got 3"),
        ("warm", "--guidance_scale 4", "knows the guidance_scale from 1 to 3; got 4"),
        ("warm", "--guidance_scale 2 --guidance_rescale 0.5", "is not guided further"),
        ("meanflow", "--guidance_scale 2", "needs a model of few steps that has learnt it"),
        ("meanflow", "--sampler heun", "takes a denoiser, and this model is a MeanFlow: Consistency() or Jump()"),
        ("guided", "--interpolate 1,2", "adds noise of its own on the way: interpolate with --steps 1"),
        ("meanflow", "--threshold 0.9", "has no expected clean image to cut off"),
    ],
)
def test_what_a_model_of_few_steps_cannot_do_is_one_line(students, kind, options, says, called):
    code, out, err = called(sample.main, "--workdir", students / kind, *options.split())
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("guided", "--steps 1 --interpolate 1,2 --labels 3"),
        ("warm", "--guidance_scale 2.5 --steps 1 --trajectory --num 4"),
        ("meanflow", "--steps 2 --sampler consistency"),
        ("meanflow", "--steps 3 --interpolate 1,2 --per_label 4 --labels 5"),
    ],
)
def test_what_it_can_do(students, kind, options, called, tmp_path):
    code, _, err = called(sample.main, "--workdir", students / kind, "--out", tmp_path / "a.png", *options.split())
    assert code == 0, err
    assert (tmp_path / "a.png").is_file()


def test_an_objective_is_named_where_there_was_none():
    with_one = overrides(toy, ["system.objective=consistency_tuning(stage=3)"])
    assert with_one.system.objective == few_steps.ConsistencyTuning(stage=3)
    with pytest.raises(ValueError, match=r"must be one of ConsistencyTuning, .*did you mean \"WarmStart"):
        overrides(toy, ["system.objective=WarmStrt"])


def test_a_model_without_the_teacher_is_refused_from_the_command_line(called, tmp_path):
    code, _, err = called(
        train.main,
        "--config",
        "configs/digits.py",
        "--workdir",
        tmp_path / "run",
        f"start={tmp_path / 'none'}",
    )
    assert code == 2
    assert "is not there: train it first" in err


# --- networks of several numbers --------------------------------------------------------------------------------------

NETWORKS = (
    UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.3, noise_embedding=GaussianFourier(0.2)),
    UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(), remat=True, scale_shift=True),
    DiT(width=16, depth=2, heads=2, dropout=0.3),
    MLP((16,), GaussianFourier(0.3)),
    SmallUNet((8, 16), GaussianFourier(0.3)),
)


def moved(params, size=0.1):
    """None of them zero, as some are at first."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + size * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    )


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_several_numbers_are_embedded_one_by_one(network):
    x, one = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.array([0.1, 0.5, 0.9])
    two = jnp.stack([one, jnp.array([0.3, 0.2, 0.7])], -1)
    params = network.init(jax.random.key(1), x[0], two[0])["params"]
    alone = network.init(jax.random.key(1), x[0], one[0])["params"]
    more = traverse_util.flatten_dict(params).keys() - traverse_util.flatten_dict(alone).keys()
    assert all("number_1" in "/".join(path) for path in more)
    given = traverse_util.unflatten_dict(
        {**traverse_util.flatten_dict(params), **traverse_util.flatten_dict(moved(alone))}
    )
    np.testing.assert_allclose(
        network.apply({"params": given}, x, two), network.apply({"params": moved(alone)}, x, one), atol=1e-5
    )
    both = network.apply({"params": moved(params)}, x, two)
    each = jnp.stack([network.apply({"params": moved(params)}, x[i], two[i]) for i in range(3)])
    np.testing.assert_allclose(both, each, atol=1e-4)
    other = network.apply({"params": moved(params)}, x, two.at[:, 1].add(0.3))
    assert np.abs(other - both).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_every_network_has_a_jvp(network, dtype):
    """That of finite differences, with dropout; in half precision as nearly as that allows."""
    jax.config.update("jax_enable_x64", True)
    try:
        network = network.clone(dtype=dtype)
        x, c = jax.random.normal(jax.random.key(0), (8, 8, 1), float), jnp.array([0.4, 0.2])
        params = moved(network.init(jax.random.key(1), x, c)["params"])
        params = jax.tree.map(lambda leaf: leaf.astype(float), params)
        along = jax.random.normal(jax.random.key(2), x.shape, float), jnp.array([1.0, 0.5])

        def at(x, c):
            return network.apply({"params": params}, x, c, rngs={"dropout": jax.random.key(3)}).astype(float)

        with machine.differentiable():
            value, slope = jax.jit(lambda: jax.jvp(at, (x, c), along))()
        if dtype == "float64":  # but for the waves of the embedding, which are of float32
            above, below = (jax.jit(at)(x + h * along[0], c + h * along[1]) for h in (2e-3, -2e-3))
            want = (above - below) / 4e-3
            assert np.linalg.norm(slope - want) < 1e-3 * np.linalg.norm(want)
        else:
            exact = network.clone(dtype="float64")
            at_full = lambda x, c: exact.apply({"params": params}, x, c, rngs={"dropout": jax.random.key(3)})  # noqa: E731
            _, want = jax.jvp(at_full, (x, c), along)
            assert np.linalg.norm(slope - want) < 0.1 * np.linalg.norm(want)
        assert np.isfinite(value).all()
    finally:
        jax.config.update("jax_enable_x64", False)


def test_attention_that_has_no_jvp_is_not_taken_where_one_is_wanted():
    with machine.compiled_for(Kind("gpu", True, True)):
        assert machine.kind().cudnn
        with machine.differentiable():
            assert machine.kind() == Kind("gpu", True, False)
        assert machine.kind().cudnn
