"""sample.py: what it draws, where it goes, and what is said of options that cannot be."""

import dataclasses
import inspect
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy import config

import sample
from jaxdiff import interop
from jaxdiff.base import environment, pictures
from jaxdiff.base.calls import choices_of
from jaxdiff.cli import catalogue, drawing, how, options
from jaxdiff.cli import sample as sampling_command
from jaxdiff.core import grids, samplers, sampling
from jaxdiff.data.augment import Augment
from jaxdiff.models import Classification, editing
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.loading import load, load_diffusers
from jaxdiff.models.model import Model
from jaxdiff.nets import MLP, UNet
from jaxdiff.nets import EncoderUNet as Network

ROOT = Path(__file__).parent.parent
SHORT = replace(config.training, placing="jit", steps=4, log_every=4, show_every=4, save_every=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs: a labelled model, one without labels, a classifier."""
    folder = tmp_path_factory.mktemp("here")
    system, augment = config.system, Augment()
    labelled = replace(config, training=SHORT)
    Experiment(labelled, folder / "runs" / "labelled").train()
    plain = replace(system, network=MLP((16,)), condition=None)
    Experiment(replace(labelled, system=plain), folder / "runs" / "plain").train()
    network = Network(channels=8, multipliers=(1,), blocks=1, attention=(), groups=2, middle_attention=False)
    classifier = Classification(network, process=system.process, c_noise=system.c_noise, shown=8)
    Experiment(replace(labelled, system=classifier, augment=augment), folder / "runs" / "classifier").train()
    return folder


@pytest.fixture
def command(runs, tmp_path, monkeypatch, called):
    """sample.py's exit code and what it wrote, run in this process where the runs are."""
    for path in (runs / "runs").iterdir():
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)

    return partial(called, sample.main)


LABELLED = ("--workdir", "runs/labelled")


def pixels(path):
    return np.asarray(Image.open(path))


# --- what it draws --------------------------------------------------------------------------------------------------


def test_the_picture_is_that_of_the_model(command, tmp_path):
    code, out, err = command(*LABELLED, "--labels", "3,7", "--per_label", 3, "--guidance_scale", 2, "--out", "a.png")
    assert (code, out) == (0, "a.png\n")
    assert err.startswith("6 images of runs/labelled at step 4: Euler(), 2 steps, guidance_scale=2, seed 0\n")
    drawn = pictures.to_uint8(load("runs/labelled").sample(6, labels=[3, 7], guidance_scale=2.0))
    rows = drawn[[0, 2, 4, 1, 3, 5]]
    np.testing.assert_array_equal(pixels("a.png"), pictures.sheet(rows, columns=3, labels=["3", "7"]))


def test_without_a_workdir_it_is_the_run_trained_last(command, tmp_path):
    shutil.copytree("runs/plain", "runs/newer")
    (tmp_path / "runs/newer/checkpoints/4").touch()
    (tmp_path / "runs/newer/checkpoints").touch()
    code, _, err = command("--num", 2)
    assert code == 0
    assert "2 images of runs/newer at step 4" in err
    assert (tmp_path / "runs/newer/samples.png").exists()
    for name in ("classifier", "labelled"):  # newer still, but the one draws nothing, and the other has only begun
        shutil.copytree(f"runs/{name}", f"runs/newest_{name}")
    shutil.rmtree("runs/newest_labelled/checkpoints")
    (tmp_path / "runs/newest_labelled/checkpoints").mkdir()
    assert "2 images of runs/newer at step 4" in command("--num", 2)[2]


def test_first_continues_what_a_smaller_call_drew(command):
    for name, flags in {"all": ("--num", 9), "some": ("--num", 4, "--first", 5)}.items():
        assert command(*LABELLED, "--npz", f"{name}.npz", "--labels", "0-2", "--batch_size", 2, *flags)[0] == 0
    everything, some = np.load("all.npz"), np.load("some.npz")
    np.testing.assert_array_equal(some["arr_0"], everything["arr_0"][5:])
    np.testing.assert_array_equal(some["arr_1"], everything["arr_1"][5:])
    np.testing.assert_array_equal(everything["arr_1"], [0, 1, 2] * 3)
    assert everything["arr_0"].dtype == np.uint8


def test_a_checkpoint_and_an_average(command):
    for flags, says in {
        ("--checkpoint", 2): "at step 2:",
        ("--average", 1): "at step 4, average 1:",
        ("--average", "none"): "at step 4, its parameters:",
        ("--average", 0.12): "at step 4, average 0.12:",
    }.items():
        code, _, err = command(*LABELLED, "--num", 2, *flags)
        assert code == 0
        assert says in err


def drawn_by(command, *flags):
    """The images of a call, as uint8."""
    Path("drawn.npz").unlink(missing_ok=True)
    code, _, err = command(*LABELLED, *flags, "--npz", "drawn.npz")
    assert code == 0, err
    return np.load("drawn.npz")["arr_0"]


WALKERS = [e.name for e in catalogue.entries(catalogue.SAMPLERS) if not getattr(samplers, e.name).jumps]


@pytest.mark.parametrize("name", WALKERS)
def test_every_sampler_draws(name, command):
    sampler, grid = getattr(samplers, name)(), grids.LogSNR()
    flags = ("--num", 2, "--sampler", name.lower(), "--grid", "log_snr")
    if name == "AdaptiveODE":
        sampler, grid, flags = replace(sampler, max_steps=200), grids.Uniform(), (*flags[:4], "--max_steps", 200)
    steps = 1 if name == "AdaptiveODE" else None
    expected = load("runs/labelled").sample(2, sampler=sampler, grid=grid, steps=steps)
    np.testing.assert_array_equal(drawn_by(command, *flags), pictures.to_uint8(expected))


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (("--threshold", 0), {"threshold": 0.0}),
        (("--threshold", 0.99), {"threshold": 0.99}),
        (("--guidance_interval", 0.5, 2), {"interval": (0.5, 2.0)}),
        (("--guidance_rescale", 0.7), {"rescale": 0.7}),
        (("--grid", "log_snr", "--steps", 5), {"grid": grids.LogSNR(), "steps": 5}),
        (("--seed", 4), {"seed": 4}),
    ],
    ids=str,
)
def test_what_is_asked_reaches_the_model(flags, options, command):
    expected = load("runs/labelled").sample(3, guidance_scale=4.0, **options)
    drawn = drawn_by(command, "--num", 3, "--guidance_scale", 4, *flags)
    np.testing.assert_array_equal(drawn, pictures.to_uint8(expected))
    assert (drawn != drawn_by(command, "--num", 3, "--guidance_scale", 4)).any()


def test_images_that_are_not_finite_are_refused(command):
    code, _, err = command(*LABELLED, "--sampler", "adaptive_ode", "--max_steps", 1, "--npz", "a.npz")
    assert code == 2
    assert err.splitlines()[-1].startswith("sample.py: image 0 is not finite: take more --steps")
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]


def test_a_folder_of_diffusers_draws(command):
    unet = UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(), groups=4, middle_attention=False)
    interop.write("unet", unet, unet.init(jax.random.key(0), jnp.zeros((8, 8, 1)), 0.0), sample_size=8)
    code, _, err = command("--from_diffusers", "unet", "--num", 2, "--steps", 3, "--npz", "a.npz", "--out", "a.png")
    assert code == 0, err
    expected = load_diffusers("unet").sample(2, steps=3)
    np.testing.assert_array_equal(np.load("a.npz")["arr_0"], pictures.to_uint8(expected))


@pytest.mark.parametrize(("side", "size"), [(28, 64), (128, 64), (256, 16), (4096, 1)])
def test_of_larger_images_fewer_are_drawn_at_a_time(side, size):
    places = SimpleNamespace(trajectory=False)
    model = SimpleNamespace(image_shape=(side, side, 3))
    plan = SimpleNamespace(model=model, numbers=range(1000), count=1000, batch_size=None, places=places)
    made = drawing.Drawing(plan, [])
    assert made.size == size
    assert made.in_picture * side**2 <= 2**24


def test_a_classifier_guides(command):
    common = ("--num", 4, "--classifier", "runs/classifier", "--steps", 4)
    drawn = {}
    for workdir in ("plain", "labelled"):
        for scale in (1, 5):
            flags = ("--workdir", f"runs/{workdir}", "--guidance_scale", scale, "--npz", f"{workdir}{scale}.npz")
            code, _, err = command(*flags, *common)
            assert code == 0, err
            assert f"guidance_scale={scale} by runs/classifier" in err
            drawn[workdir, scale] = np.load(f"{workdir}{scale}.npz")
    np.testing.assert_array_equal(drawn["plain", 1]["arr_1"], [0, 1, 2, 3])
    assert (drawn["plain", 1]["arr_0"] != drawn["plain", 5]["arr_0"]).any()
    assert (drawn["labelled", 1]["arr_0"] != drawn["labelled", 5]["arr_0"]).any()


# --- the options ----------------------------------------------------------------------------------------------------


def classes(module, base=object):
    return {name: v for name, v in choices_of(module).items() if isinstance(v, type) and issubclass(v, base)}


@pytest.mark.parametrize(
    ("files", "module", "base"),
    [(catalogue.SAMPLERS, samplers, samplers.Sampler), (catalogue.GRIDS, grids, object)],
    ids=["samplers", "grids"],
)
def test_the_catalogue_is_what_there_is(files, module, base):
    """What is read from the source, without importing it, is what importing it gives."""
    known = {entry.name: entry for entry in catalogue.entries(files)}
    assert known.keys() == classes(module, base).keys()
    for name, cls in classes(module, base).items():
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        scope = {"math": math, **vars(samplers)}
        assert {field: eval(text, scope) for field, text in known[name].fields.items()} == defaults
        assert [field for field in defaults if not known[name].meanings[field]] == []
        assert known[name].about == " ".join(inspect.getdoc(cls).split("\n\n")[0].split())


def test_every_field_of_a_sampler_or_grid_is_an_option():
    parsed = vars(options.parsed([]))
    for kind, module, base in (("sampler", samplers, samplers.Sampler), ("grid", grids, object)):
        for cls in classes(module, base).values():
            for field in dataclasses.fields(cls):
                inner = isinstance(field.default, samplers.Sampler)
                assert (f"{kind}.{field.name}" in parsed) != (inner or field.name in parsed), field.name


def test_help_lists_every_option_and_every_sampler():
    said = subprocess.run([sys.executable, "sample.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for group in ("which model", "what", "how", "guidance", "editing", "out", "samplers", "grids"):
        assert f"\n{group}:" in said.stdout
    for name in (*classes(samplers, samplers.Sampler), *classes(grids)):
        assert f"\n  {name} " in said.stdout
    for name in vars(options.parsed([])):
        assert f" --{name.rpartition('.')[2]}" in said.stdout


def test_parameters_change_the_config_s_own_sampler():
    def sampler(*flags, default=samplers.DDIM()):
        return how.sampler_of(options.parsed([*map(str, flags)]), default)

    assert sampler("--eta", 0.5) == samplers.DDIM(eta=0.5)
    assert sampler("--sampler", "unipc", "--order", 3) == samplers.UniPC(3)
    assert sampler("--sampler", "adaptive_ode", "--rtol", 1e-3) == samplers.AdaptiveODE(rtol=1e-3)
    for spelling in ("ddim(eta=0.5)", "DDIM( eta=.5 )", " ddim(eta = 5e-1)"):
        assert sampler("--sampler", spelling) == samplers.DDIM(eta=0.5)
    assert sampler("--sampler", "ddim(eta=0.5)", "--eta", 1) == samplers.DDIM(eta=1.0)
    nested = sampler("--sampler", "predictor_corrector(predictor=euler_maruyama, corrector=Langevin(snr=0.1))")
    assert nested == samplers.PredictorCorrector(samplers.EulerMaruyama(), samplers.Langevin(snr=0.1))
    corrected = sampler("--snr", 0.2, default=samplers.PredictorCorrector())
    assert corrected == samplers.PredictorCorrector(corrector=samplers.Langevin(0.2))
    resampled = sampler("--init", "x", "--mask", "x", "--resample", 3, "--sampler", "ddpm", "--noise", 0)
    assert resampled == samplers.Resampling(samplers.DDPM(noise=0.0), 3)


def test_rho_is_of_the_grid_that_is_chosen_or_the_config_s_own():
    def grid(*flags, default=grids.Uniform()):
        return how.grid_of(options.parsed([*flags]), default)

    assert grid() is None
    assert grid("--grid", "karras", "--rho", "3") == grids.Karras(rho=3.0)
    assert grid("--grid", "karras(rho=3, first=0.9)") == grids.Karras(first=0.9, rho=3.0)
    assert grid("--grid", "uniform", "--power", "2", "--last", "0.1") == grids.Uniform(last=0.1, power=2.0)
    assert grid("--rho", "3", default=grids.Karras(to_data=False)) == grids.Karras(rho=3.0, to_data=False)
    with pytest.raises(ValueError, match=r"--rho does not apply to Uniform\("):
        grid("--rho", "3")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--num", "0"], "--num: must be a whole number, at least 1, got '0'"),
        (["--num", "-3"], "at least 1"),
        (["--num", "1e3"], "at least 1"),
        (["--seed", "-1"], "at least 0"),
        (["--guidance_scale", "nan"], "--guidance_scale: must be a number"),
        (["--guidance_scale", "inf"], "--guidance_scale: must be a number"),
        (["--nmu", "3"], "unrecognized arguments: --nmu"),
        (["--labels", "3", "--prompt", "a cat"], "--labels and --prompt contradict each other"),
        (["--num", "3", "--per_label", "3"], "contradict"),
        (["--workdir", "a", "--from_diffusers", "b"], "contradict"),
        (["--mask", "a.png"], "--mask needs --init"),
        (["--init", "a.png", "--mask", "a.png", "--strength", "0.5"], "--strength and --mask contradict"),
        (["--was", "3"], "--was needs --invert or --interpolate"),
        (["--init", "a.png", "--invert", "--per_label", "5"], "--invert and --per_label contradict"),
        (["--init", "a.png", "--invert", "--seed", "5"], "--invert and --seed contradict"),
        (["--interpolate", "1,2", "--num", "5"], "--interpolate and --num contradict"),
        (["--export", "a", "--seed", "0"], "--export and --seed contradict"),
        (["--resample", "3"], "--resample needs --mask or --outpaint"),
        (["--export", "a", "--npz", "b.npz"], "--export and --npz contradict"),
        (["--guidance_interval", "3", "1"], "--guidance_interval needs low < high, got 3 1"),
        (["--guidance_rescale", "0.5", "--guidance_scale", "1"], "no guidance to rescale"),
        (["--interpolate", "3"], "--interpolate takes two seeds"),
        (["--interpolate", "3,7", "--seed", "5"], "--interpolate 3,7 names its seeds: leave out --seed"),
        (["--interpolate", "1,2", "--sampler", "ddpm"], "adds noise of its own"),
        (["--init", "digit.png", "--interpolate"], "between two images"),
        (["--init", "digit.png", "--invert", "--sampler", "ddpm"], "does not follow the ODE"),
        (["--init", "digit.png", "--outpaint", "1,2"], "--outpaint takes pixels"),
        (["--init", "digit.png", "--upscale", "1"], "--upscale must be at least 2"),
        (["--init", "digit.png", "--strength", "0"], "--strength must be above 0"),
        (["--init", *["digit.png"] * 2, "--mask", *["digit.png"] * 3], "--mask must be one, or one for each of the 2"),
        (["--init", "none.png"], "none.png cannot be read as an image: No such file"),
        (["--sampler", "adaptive_ode", "--steps", "9"], "finds its own steps"),
        (["--sampler", "ddim", "--churn", "3"], "--churn does not apply to DDIM"),
        (["--grid", "uniform", "--rho", "3"], "it belongs to --grid Karras"),
        (["--first", "4294967290", "--num", "100"], "numbered below 2^32"),
        (["--average", "much"], "--average must be a number such as 0"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_is_loaded(flags, says, command, monkeypatch):
    monkeypatch.setattr("jaxdiff.cli.which.load", lambda *arguments: pytest.fail("a model is loaded"))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("digit.png")
    code, out, err = command(*flags)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workdir", "runs/none"], "runs/none is not the folder of a run"),
        (["--workdir", "runs/classifier"], "trained Classification, which draws no images"),
        (["--labels", "12"], "knows the labels 0 to 9; got 12"),
        (["--labels", "0-3,9-8"], "--labels must be such as 3, 0-9 or cat,ship, got '9-8'"),
        (["--init", "digit.png", "--invert", "--was", "9-8"], "--was must be such as"),
        (["--workdir", "runs/plain", "--init", "digit.png", "--invert", "--was", "3"], "leave out --was"),
        (["--guidance_interval", "1", "3"], "no guidance to rescale or to leave out: add --guidance_scale"),
        (["--guidance_rescale", "0.5"], "no guidance to rescale or to leave out: add --guidance_scale"),
        (["--sampler", "euler_maruyama"], "cannot start where nothing of the data is left"),
        (["--rho", "3"], "--rho does not apply to Uniform("),
        (["--labels", "cat"], "knows the labels 0 to 9; got cat"),
        (["--prompt", "a cat"], "knows no prompts: leave out --prompt"),
        (["--workdir", "runs/plain", "--labels", "3"], "knows no labels: leave out --labels"),
        (["--workdir", "runs/plain", "--guidance_scale", "3"], "needs a conditional model or a classifier"),
        (["--workdir", "runs/plain", "--guidance_rescale", "0.5"], "has no condition to guide by"),
        (["--classifier", "runs/plain"], "runs/plain trained Diffusion, no classifier"),
        (["--classifier", "runs/none"], "runs/none is not the folder of a run"),
        (["--checkpoint", "3"], "has no checkpoint of step 3: it has 2, 4"),
        (["--average", "2"], "has the averages 0 Ema"),
        (["--average", "0.5"], "above 0 and below 0.28"),
        (["--churn", "3"], "--churn does not apply to Euler(): it belongs to --sampler EDM"),
        (["--sampler", "ddp"], "--sampler must be one of DDIM, DDPM, Consistency"),
        (["--sampler", "DDMP"], 'got "DDMP"; did you mean "DDPM"?'),
        (["--sampler", "ddim", "--eta", "7"], "--eta: needs 0 <= eta <= 1"),
        (["--sampler", "ddim", "--eta", "x"], "--eta must be a float, got 'x'"),
        (["--sampler", "ddim(eta=7)"], "--sampler: needs 0 <= eta <= 1"),
        (["--sampler", "ddim(etta=0.5)"], 'DDIM has no field "etta", only eta; did you mean "eta"?'),
        (["--sampler", "ddim(7)"], "--sampler: needs 0 <= eta <= 1"),
        (["--sampler", "ddim(eta=0.5"], "--sampler: ddim(eta=0.5 is not Python, '(' was never closed"),
        (["--sampler", "mine.py:Mine"], "no file mine.py"),
        (["--sampler", "no_module:Mine"], "no_module cannot be imported"),
        (["--sampler", "broken.png"], "--sampler must be one of"),
        (["--grid", "karas"], 'got "karas"; did you mean "Karras"?'),
        (["--grid", "ddim"], "--grid must be one of"),
        (["--code", "nowhere.py"], "no file nowhere.py"),
        (["--sampler", "unipc", "--order", "7"], "order 1, 2 or 3"),
        (["--grid", "trailing"], "walks the entries of a table"),
        (["--grid", "uniform", "--rho", "3"], "it belongs to --grid Karras"),
        (["--sampler", "adaptive_ode", "--steps", "9"], "finds its own steps"),
        (["--first", "4294967290"], "numbered below 2^32"),
        (["--out", "a.jpg"], "--out must end in .png"),
        (["--out", "digit.png/a.png"], "digit.png/a.png cannot be written (Not a directory): give another --out"),
        (["--npz", "a.zip"], "--npz must end in .npz"),
        (["--npz", "other.npz"], "other.npz exists already, with something else in it: name another, or remove it"),
        (["--init", "none.png"], "none.png cannot be read as an image: No such file"),
        (["--init", "broken.png"], "broken.png cannot be read as an image"),
        (["--init", "large.png"], "large.png is 30x20, the model draws 8x8: --resize fits it"),
        (["--init", "digit.png", "--mask", "large.png"], "large.png is 30x20"),
        (["--init", "digit.png", "--upscale", "3"], "--upscale must divide 8x8"),
        (
            ["--init", "large.png", "--upscale", "2"],
            "large.png is 30x20: --upscale 2 takes images of 8x8, which are reduced first, or of 4x4",
        ),
        (["--init", "digit.png", "--colorize"], "a model of colour images"),
        (["--init", "digit.png", "--outpaint", "0,0,0,0"], "--outpaint takes pixels"),
        (["--sampler", "edm", "--s_min", "0.1"], "--s_min says how EDM"),
        (["--init", "digit.png", "--steps", "1", "--strength", "0.5"], "of a single step is all of it"),
    ],
)
def test_what_does_not_fit_the_model_is_said_in_one_line(flags, says, command, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("digit.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save("large.png")
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    np.savez("other.npz", arr_0=np.zeros((2, 8, 8, 1), np.uint8))
    before = sorted(tmp_path.rglob("*"))
    code, _, err = command(*(() if "--workdir" in flags else LABELLED), *flags)
    assert code == 2, err
    assert any(each in err for each in says.split("|")), err
    assert err.count("\n") == 1, err
    assert err.startswith("sample.py: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_runs_says_how_to_make_one(command, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, _, err = command()
    assert (code, err.count("\n")) == (2, 1)
    assert "jaxdiff train --config digits makes one" in err


def test_a_damaged_checkpoint_is_named(command, tmp_path):
    shutil.copytree("runs/labelled", "runs/damaged")
    for path in (tmp_path / "runs/damaged/checkpoints/4").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, _, err = command("--workdir", "runs/damaged")
    assert (code, err.count("\n")) == (2, 1)
    assert "checkpoints/4 cannot be read" in err


# --- where it goes --------------------------------------------------------------------------------------------------


def test_single_images_are_those_of_the_npz(command, tmp_path):
    assert command(*LABELLED, "--num", 5, "--npz", "a.npz", "--singles", "each", "--first", 3)[0] == 0
    stored = np.load("a.npz")["arr_0"]
    for i, image in enumerate(stored):
        np.testing.assert_array_equal(pixels(f"each/{i + 3:06}.png").reshape(8, 8, -1)[..., :1], image)


def interrupted_after(batches, monkeypatch):
    """Ctrl-C comes when so many batches are drawn."""
    whole = sampling.batches

    def some(*arguments, **kwargs):
        for number, batch in enumerate(whole(*arguments, **kwargs)):
            if number == batches:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(sampling, "batches", some)


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_resumes(command, monkeypatch):
    call = (*LABELLED, "--num", 30, "--batch_size", 8, "--npz", "a.npz", "--singles", "each", "--out", "a.png")
    with monkeypatch.context() as patched:
        interrupted_after(2, patched)
        code, out, err = command(*call)
    assert code == 130
    assert "stopped at 16 of 30 images; the same command resumes" in err
    assert "a.npz" not in out
    code, _, err = command(*call)
    assert code == 0
    assert "16 of them are there already" in err
    assert command(*LABELLED, "--num", 30, "--npz", "b.npz", "--out", "b.png")[0] == 0
    np.testing.assert_array_equal(np.load("a.npz")["arr_0"], np.load("b.npz")["arr_0"])
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))


def test_another_call_does_not_go_on_with_what_is_there(command, monkeypatch):
    call = (*LABELLED, "--num", 30, "--batch_size", 8, "--npz", "a.npz")
    with monkeypatch.context() as patched:
        interrupted_after(2, patched)
        command(*call)
    for other in (("--seed", 1), ("--guidance_scale", 3), ("--steps", 1), ("--checkpoint", 2), ("--labels", "3")):
        code, _, err = command(*call, *other)
        assert (code, err.splitlines()[-1].startswith("sample.py: a.npz.part")) == (2, True), err


def test_a_finished_npz_is_neither_drawn_again_nor_taken_for_another(command, monkeypatch):
    call = (*LABELLED, "--num", 3, "--npz", "a.npz")
    assert command(*call)[0] == 0
    before = Path("a.npz").read_bytes()
    with monkeypatch.context() as patched:
        interrupted_after(0, patched)
        assert command(*call) == (0, "", "a.npz already has its 3 images\n")
    for other in (("--seed", 1), ("--num", 4), ("--labels", "3")):
        code, _, err = command(*call, *other)
        assert (code, err) == (
            2,
            "sample.py: a.npz exists already, with something else in it: name another, or remove it\n",
        )
    with monkeypatch.context() as patched:
        interrupted_after(0, patched)
        assert command(*call, "--out", "c.png") == (0, "c.png\n", "a.npz already has its 3 images\n")
    code, out, err = command(*call, "--singles", "folder", "--out", "b.png")
    assert (code, out, err.splitlines()[0]) == (0, "b.png\nfolder\n", "a.npz already has its 3 images")
    np.testing.assert_array_equal(pixels("folder/000002.png"), np.load("a.npz")["arr_0"][2, ..., 0])
    np.testing.assert_array_equal(pixels("b.png"), pixels("c.png"))
    assert Path("a.npz").read_bytes() == before


def test_without_out_no_call_overwrites_the_picture_of_another(command):
    shutil.copytree("runs/labelled", "runs/own", ignore=shutil.ignore_patterns("*.png"))
    for seed, name in enumerate(("samples", "samples_2", "samples_3")):
        assert command("--workdir", "runs/own", "--num", 2, "--seed", seed)[1] == f"runs/own/{name}.png\n"
    drawn = [pixels(f"runs/own/{name}.png") for name in ("samples", "samples_2", "samples_3")]
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[1] != drawn[2]).any()


def test_the_pace_leaves_out_what_is_compiled_and_reads_well(monkeypatch):
    def said(count, *seen, before=0):
        clock = iter([0.0, *(time for _, time in seen)])
        monkeypatch.setattr(drawing.time, "perf_counter", lambda: next(clock))
        pace = drawing.Pace(before)
        for drawn, _ in seen[:-1]:
            pace.see(drawn)
        return pace.summary(count)

    assert said(1, (0.5, 20.0), (1, 21.7)) == "1 image in 22 s"
    assert said(64, (0.0, 30.0), (64, 62.0)) == "64 images in 62 s, once compiled 2 images/s"
    assert said(10, (2.0, 30.0), (10, 190.0)) == "10 images in 3.2 min, once compiled 20 s an image"
    assert said(9, (9, 30.0), (9, 30.0), before=5) == "4 images in 30 s"


def test_too_little_memory_halves_the_batch(command, monkeypatch):
    whole, sizes = Model.batches, []

    def small(self, *arguments, batch_size, **kwargs):
        sizes.append(batch_size)
        if batch_size > 4:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return whole(self, *arguments, batch_size=batch_size, **kwargs)

    monkeypatch.setattr(Model, "batches", small)
    code, _, err = command(*LABELLED, "--num", 12, "--out", "a.png")
    assert code == 0
    assert sizes == [12, 6, 3]
    assert "too little memory: going on with 3 images at a time" in err
    code, _, err = command(*LABELLED, "--num", 12, "--batch_size", 8, "--out", "a.png")
    assert code == 2
    assert "there is too little memory: try --batch_size 1" in err


def test_a_trajectory_ends_in_the_image(command, monkeypatch):
    seen = []
    monkeypatch.setattr(drawing.output, "gif", lambda path, frames: seen.append((path, frames)))
    code, out, _ = command(*LABELLED, "--num", 3, "--steps", 5, "--trajectory", "--out", "a.png", "--npz", "a.npz")
    assert code == 0
    assert out.split() == ["a.png", "a_trajectory.png", "a_trajectory.gif", "a.npz"]
    ((_, frames),) = seen
    assert len(frames) == 5
    stored = np.load("a.npz")["arr_0"]
    np.testing.assert_array_equal(frames[-1], pictures.sheet(np.concatenate([stored, stored]), columns=3))
    assert (frames[0] != frames[-1]).any()


def test_all_is_shown_if_asked(command, monkeypatch):
    opened = []
    monkeypatch.setattr(sampling_command.webbrowser, "open", opened.append)
    command(*LABELLED, "--num", 2, "--out", "a.png")
    assert opened == []
    command(*LABELLED, "--num", 2, "--out", "a.png", "--open")
    assert opened == [Path("a.png").absolute().as_uri()]


def test_an_exported_sampler_draws_the_same(command):
    code, program, err = command(*LABELLED, "--export", "digits.jaxdiff", "--guidance_scale", 2)
    assert code == 0, err
    scope = {}
    exec(program, scope)
    assert command(*LABELLED, "--num", 10, "--guidance_scale", 2, "--npz", "a.npz")[0] == 0
    np.testing.assert_allclose(scope["images"].astype(int), np.load("a.npz")["arr_0"], atol=1)


# --- editing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def digit(tmp_path):
    x, y = np.mgrid[:8, :8]
    Image.fromarray(((x * 8 + y) * 4).astype(np.uint8)).save(tmp_path / "digit.png")
    Image.fromarray(np.where(x < 4, 0, 255).astype(np.uint8)).save(tmp_path / "mask.png")
    return pixels(tmp_path / "digit.png")


def test_a_given_image_stands_before_what_came_of_it(command, digit):
    assert command(*LABELLED, "--init", "digit.png", "--labels", "1,2", "--per_label", 2, "--out", "a.png")[0] == 0
    sheet, blank = pixels("a.png"), pictures.sheet(np.full((6, 8, 8, 1), 255, np.uint8), columns=3, labels=["1", "2"])
    assert sheet.shape == blank.shape
    left = sheet.shape[1] - (2 + 3 * 66)
    tile = sheet[2 : 2 + 64 : 8, left + 2 : left + 66 : 8, 0]
    np.testing.assert_array_equal(tile, digit)


def test_what_is_not_masked_stays(command, digit):
    call = ("--init", "digit.png", "--mask", "mask.png", "--labels", "5", "--num", 4, "--npz", "a.npz")
    assert command(*LABELLED, *call, "--sampler", "ddpm", "--resample", 2, "--steps", 3)[0] == 0
    drawn = np.load("a.npz")["arr_0"]
    np.testing.assert_array_equal(drawn[:, :4, :, 0], np.broadcast_to(digit[:4], (4, 4, 8)))
    assert (drawn[:, 4:, :, 0] != digit[4:]).any()


def test_outpainting_keeps_the_image_in_its_place(command, digit):
    call = ("--init", "digit.png", "--outpaint", "0,2,5,0", "--num", 1)
    assert command("--workdir", "runs/plain", *call, "--out", "a.png")[0] == 0
    sheet = pixels("a.png")
    height, width = 10, 13
    scale = round(64 / height)
    assert sheet.shape[:2] == (height * scale + 4, width * scale + 4)
    inner = sheet[2 + 2 * scale : 2 + 10 * scale : scale, 2 : 2 + 8 * scale : scale, 0]
    np.testing.assert_array_equal(inner, digit)


def test_ctrl_c_keeps_the_windows_that_are_painted(command, digit, monkeypatch):
    calls, inpaint = [], editing.inpaint

    def first_only(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return inpaint(*arguments)

    monkeypatch.setattr(editing, "inpaint", first_only)
    code, out, err = command(
        "--workdir", "runs/plain", "--init", "digit.png", "--outpaint", "0,0,8,0", "--out", "a.png"
    )
    assert (code, out) == (130, "a.png\n")
    assert err.endswith("stopped at 1 of 2 windows\n")
    painted = pixels("a.png")[2:-2:8, 2:-2:8, 0]
    np.testing.assert_array_equal(painted[:, :8], digit)
    assert len(np.unique(painted[:, 8:12])) > 8
    np.testing.assert_array_equal(painted[:, 12:], 128)  # of no colour yet


def test_interpolation_begins_and_ends_with_the_two_seeds(command):
    assert command(*LABELLED, "--interpolate", "3,7", "--labels", "2", "--per_label", 5, "--npz", "a.npz")[0] == 0
    between = np.load("a.npz")["arr_0"]
    assert len(between) == 5
    for seed, place in ((3, 0), (7, -1)):
        command(*LABELLED, "--seed", seed, "--labels", "2", "--num", 1, "--npz", f"{seed}.npz")
        np.testing.assert_allclose(between[place].astype(int), np.load(f"{seed}.npz")["arr_0"][0], atol=1)


def test_frames_between_two_seeds_begin_with_the_first_image_asked_for(command):
    call = (*LABELLED, "--interpolate", "3,7", "--labels", "2,5", "--per_label", 3, "--first", 4)
    assert command(*call, "--npz", "a.npz")[0] == 0
    command(*LABELLED, "--seed", 3, "--labels", "2,5", "--num", 1, "--first", 4, "--npz", "b.npz")
    drawn = np.load("a.npz")
    np.testing.assert_allclose(drawn["arr_0"][0].astype(int), np.load("b.npz")["arr_0"][0], atol=1)
    np.testing.assert_array_equal(drawn["arr_1"], [2, 5] * 3)


WALK = {"grid": grids.LogSNR(), "steps": 4}
EDITS = {
    ("--invert", "--was", "3"): lambda model, x: editing.invert(model, x, labels=3, sampler=samplers.Euler(), **WALK),
    ("--upscale", "2"): lambda model, x: editing.upscale(model, x.reshape(1, 4, 2, 4, 2, 1).mean((2, 4)), 2),
    ("--strength", "0.5"): lambda model, x: editing.vary(model, x, 0.5),
    (): lambda model, x: editing.vary(model, x, 0.6),
    ("--mask", "mask.png"): lambda model, x: editing.inpaint(model, x, pixels("mask.png")[None] > 0),
}


@pytest.mark.parametrize("flags", EDITS, ids=str)
def test_edits_are_those_of_the_library(flags, command, digit):
    model, x = load("runs/labelled"), digit[None, ..., None].astype(np.float32) / 127.5 - 1
    expected = pictures.to_uint8(model.sample(2, labels=8, edit=EDITS[flags](model, x), **WALK))
    call = ("--init", "digit.png", "--labels", "8", "--num", 2, "--grid", "log_snr", "--steps", 4)
    np.testing.assert_array_equal(drawn_by(command, *call, *flags), expected)


def test_a_larger_image_is_fitted(command, digit):
    large = np.repeat(np.repeat(digit, 4, 0), 4, 1)
    Image.fromarray(large).save("large.png")
    call = ("--labels", "8", "--num", 2)
    fitted = drawn_by(command, "--init", "large.png", "--resize", *call)
    np.testing.assert_allclose(fitted.astype(int), drawn_by(command, "--init", "digit.png", *call), atol=3)


@pytest.mark.parametrize("was", [(), ("--was", "3,8")], ids=str)
def test_images_are_interpolated_from_one_to_the_other(was, command, digit):
    Image.fromarray(digit.T.copy()).save("other.png")
    call = ("--init", "digit.png", "other.png", "--interpolate", "--per_label", 3, "--grid", "log_snr", "--steps", 40)
    between = drawn_by(command, *call, *was, "--out", "a.png")[..., 0].astype(int)
    assert pixels("a.png").shape[1] - 2 >= 3 * 66  # a row
    assert len(between) == 3 * (2 if was else 1)
    ends = (between[0], between[-1])
    for end, image in zip(ends, (digit, digit.T), strict=True):
        assert abs(end - image).mean() < 6
    assert abs(between[0] - between[-1]).mean() > 20


def test_outpainted_images_are_written_one_by_one_too(command, digit):
    call = ("--init", "digit.png", "--outpaint", "0,2,5,0", "--labels", "3,7", "--out", "a.png", "--singles", "each")
    code, out, err = command(*LABELLED, *call)
    assert code == 0, err
    assert out == "a.png\neach\n"
    singles = np.stack([pixels(f"each/00000{i}.png") for i in range(2)])
    assert singles.shape == (2, 10, 13)
    np.testing.assert_array_equal(singles[:, 2:, :8], np.stack([digit] * 2))
    np.testing.assert_array_equal(pixels("a.png"), pictures.sheet(singles[..., None], columns=1, labels=["3", "7"]))
    assert Path("each/labels.csv").read_text() == "file,label\n000000.png,3\n000001.png,7\n"
