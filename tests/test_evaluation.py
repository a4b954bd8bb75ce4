"""Distances with known answers, nearest neighbours, copies; and evaluate.py on a run of seconds."""

import io
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import config

import evaluate
from jaxdiff.base import environment
from jaxdiff.cli import report
from jaxdiff.data import Arrays, Digits, Folder, Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.data.splits import split_of
from jaxdiff.evaluation import distances, neighbours
from jaxdiff.evaluation.copies import copies
from jaxdiff.evaluation.features import Features
from jaxdiff.evaluation.summary import KEPT, Summary
from jaxdiff.models import Classification, Prompts
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.model import Model
from jaxdiff.models.real import Shuffled
from jaxdiff.nets import Bytes, EncoderUNet, Prompted, TextEncoder, UNet
from jaxdiff.training import Training

RANDOM = np.random.RandomState(0)


def summary(rows, logits=None):
    made = Summary(len(rows))
    made.add(np.asarray(rows, np.float32), logits)
    made.close()
    return made


# --- distances -------------------------------------------------------------------------------------------------------


def with_moments(mean, covariance, count=4000):
    """Rows that have exactly these moments."""
    rows = RANDOM.randn(count, len(mean))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return rows @ np.linalg.cholesky(covariance).T + mean


def test_frechet_of_equal_and_of_commuting_covariances():
    a, b = np.array([0.5, 2.0, 1.0]), np.array([1.5, 0.2, 3.0])
    turn = np.linalg.qr(RANDOM.randn(3, 3))[0]
    one, other = (with_moments(np.zeros(3), turn @ np.diag(each) @ turn.T) for each in (a, b))
    apart = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert distances.frechet(summary(one), summary(other)).value == pytest.approx(apart, rel=1e-4)
    moved = distances.frechet(summary(one + np.array([1.0, 2.0, -2.0])), summary(one))
    assert moved.value == pytest.approx(9.0, rel=1e-4)
    assert distances.frechet(summary(one), summary(one)).value == pytest.approx(0, abs=1e-4)


def at_infinity_of(samples, reference):
    return distances.frechet_at_infinity(distances.frechet(samples, reference).value, samples, reference)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.3), (1.2, 0.0), (0.8, 0.2)])
def test_the_error_is_how_much_the_distance_varies_and_infinity_is_without_bias(scale, shift):
    mixed, size = RANDOM.randn(8, 8) / 3, 8
    reference = summary(RANDOM.randn(200_000, size) @ mixed)
    drawn = [summary(scale * RANDOM.randn(1000, size) @ mixed + shift) for _ in range(50)]
    found = [distances.frechet(each, reference) for each in drawn]
    spread = np.std([each.value for each in found])
    assert np.mean([each.error for each in found]) == pytest.approx(spread, rel=0.35)
    covariance = mixed.T @ mixed
    exact = size * shift**2 + (1 - scale) ** 2 * np.trace(covariance)
    at_infinity = np.mean([at_infinity_of(each, reference) for each in drawn])
    biased = np.mean([each.value for each in found])
    assert abs(at_infinity - exact) < min(4 * spread / math.sqrt(50), biased - exact)


def test_a_summary_is_the_same_whatever_its_batches_and_is_kept(tmp_path):
    rows, logits = RANDOM.randn(2500, 5).astype(np.float32), RANDOM.randn(2500, 7).astype(np.float32)
    whole, parts = summary(rows, logits), Summary(2500)
    for first in range(0, 2500, 33):
        parts.add(rows[first : first + 33], logits[first : first + 33])
    parts.close()
    parts.save(tmp_path / "a" / "b.npz")
    stored = Summary.load(tmp_path / "a" / "b.npz")
    for each in (parts, stored):
        np.testing.assert_allclose(each.mean, rows.mean(0, dtype=float), rtol=1e-6)
        np.testing.assert_allclose(each.covariance, np.cov(rows.T.astype(float)), rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(each.rows, rows)
        np.testing.assert_array_equal(each.guesses, logits.argmax(1))
        np.testing.assert_allclose(each.shares, whole.shares, rtol=1e-9)
    whole = (tmp_path / "a" / "b.npz").read_bytes()
    for damaged in (b"PK damaged", whole[:-100], whole[: len(whole) // 2], b"", whole.replace(b"total", b"totel")):
        (tmp_path / "b.npz").write_bytes(damaged)
        assert Summary.load(tmp_path / "b.npz") is None
    assert Summary.load(tmp_path / "none.npz") is None


def test_no_more_rows_are_kept_than_it_says():
    made = Summary(KEPT + 50)
    for _ in range(2):
        made.add(RANDOM.randn((KEPT + 50) // 2, 2).astype(np.float32), None)
    made.close()
    assert len(made.rows) == KEPT
    assert made.count == KEPT + 50


def test_the_score_of_certain_and_even_guesses_is_the_number_of_classes():
    sure = np.full((100, 5), -100.0)
    sure[np.arange(100), np.arange(100) % 5] = 100.0
    assert distances.classifier_score(summary(np.zeros((100, 1)), sure)).value == pytest.approx(5)
    assert distances.classifier_score(summary(np.zeros((100, 1)), np.zeros((100, 5)))).value == pytest.approx(1)


def test_the_kernel_distance_has_no_bias():
    values = [
        distances.kid(summary(RANDOM.randn(400, 4)), summary(RANDOM.randn(400, 4)), scaled=False) for _ in range(60)
    ]
    each = np.array([value.value for value in values])
    assert abs(each.mean()) < 4 * each.std() / math.sqrt(len(each))
    assert np.mean([value.error for value in values]) == pytest.approx(each.std(), rel=0.5)


# --- neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 130])
def test_nearest_is_that_of_all_pairs(count, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 100 * 32)
    queries, rows = RANDOM.randn(count, 6), RANDOM.randn(100, 6)
    pairs = np.sqrt(((queries[:, None] - rows[None]) ** 2).sum(-1))
    for k in (1, 3):
        found, index = neighbours.nearest(queries, rows, k)
        np.testing.assert_allclose(found, np.sort(pairs, 1)[:, :k], rtol=1e-4)
        np.testing.assert_array_equal(index, np.argsort(pairs, 1)[:, :k])


def test_fidelity_of_equal_sets_of_few_modes_and_of_strangers():
    real = summary(RANDOM.randn(600, 4))
    alike = neighbours.fidelity(summary(RANDOM.randn(600, 4)), real)
    assert min(alike.precision.value, alike.recall.value, alike.coverage.value) > 0.85
    assert alike.density.value == pytest.approx(1, abs=0.1)
    narrow = neighbours.fidelity(summary(0.2 * RANDOM.randn(600, 4)), real)
    assert narrow.precision.value > 0.95
    assert narrow.recall.value < 0.3
    away = neighbours.fidelity(summary(RANDOM.randn(600, 4) + 50), real)
    assert (away.precision.value, away.recall.value, away.density.value, away.coverage.value) == (0, 0, 0, 0)


def test_fidelity_is_that_of_all_pairs(monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 90 * 32)
    samples, real = RANDOM.randn(130, 3), RANDOM.randn(90, 3) + 0.4

    def apart(x, y):
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))

    own, theirs = (np.sort(apart(each, each), 1) for each in (samples, real))
    pairs = apart(samples, real)
    expected = {
        "precision": (pairs <= theirs[None, :, 3]).any(1),
        "recall": (pairs <= own[:, None, 3]).any(0),
        "density": (pairs <= theirs[None, :, 5]).sum(1) / 5,
        "coverage": pairs.min(0) <= theirs[:, 5],
    }
    found = neighbours.fidelity(summary(samples), summary(real))._asdict()
    for name, each in expected.items():
        assert found[name].value == pytest.approx(each.mean(), abs=1e-6), name
        assert found[name].error == pytest.approx(each.std() / math.sqrt(len(each)), abs=1e-6), name


# --- copies ----------------------------------------------------------------------------------------------------------


def written(count):
    """Images of a few smooth strokes, no two alike."""
    place = np.linspace(-1, 1, 20)
    y, x = np.meshgrid(place, place, indexing="ij")
    made = np.zeros((count, 20, 20))
    for _ in range(4):
        centre, width = RANDOM.uniform(-0.7, 0.7, (2, count, 1, 1)), RANDOM.uniform(0.1, 0.3, (count, 1, 1))
        made += np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
    return (255 * np.minimum(made, 1)).astype(np.uint8)[..., None]


def compressed(image):
    stored = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stored, "JPEG", quality=75)
    return np.asarray(Image.open(stored))[..., None]


def test_planted_copies_are_found_and_nothing_else():
    training, anew = written(4000), written(1500)
    chosen = RANDOM.choice(4000, 40, replace=False)
    planted = training[chosen].copy()
    planted[10:20] = planted[10:20, :, ::-1]
    for i, (axis, move) in enumerate([(1, 1), (1, -1), (2, 1), (2, -1)] * 3):
        planted[20 + i % 10] = np.roll(planted[20 + i % 10], move, axis - 1) if i < 10 else planted[20 + i % 10]
    planted[30:] = [compressed(image) for image in planted[30:]]
    samples = np.concatenate([anew[:960], planted])
    found = copies(samples, anew[1000:], training)
    np.testing.assert_array_equal(np.flatnonzero(found.copied(found.samples)), np.arange(960, 1000))
    np.testing.assert_array_equal(found.samples.index[960:], chosen)
    twelve = np.concatenate([training, np.repeat(training[:1], 12, 0), anew[1000:1010]])  # and some held out are copies
    again = copies(np.concatenate([anew[:300], training[:1]]), anew[1000:], twelve)
    np.testing.assert_array_equal(np.flatnonzero(again.copied(again.samples)), [300])
    none = copies(anew[:1000], anew[1000:], training)
    assert not none.copied(none.samples).any()
    assert 0.4 < none.closer < 0.6
    assert copies(training[:300], anew[1000:], training).closer == 1
    with pytest.raises(ValueError, match="5% of the held-out images or more are training images"):
        copies(anew[:300], training[:300], training)
    with pytest.raises(ValueError, match="from 5 pixels a side on, these images have 4x20"):
        copies(anew[:9, :4], anew[:9, :4], training[:, :4])
    inverted = copies(255 - anew[:300], anew[1000:], training)
    assert not inverted.copied(inverted.samples).any()


# --- splits ----------------------------------------------------------------------------------------------------------


def test_splits_of_sources(tmp_path):
    assert split_of(Tfds("mnist"), "test") == Tfds("mnist", "test")
    assert split_of(Digits(split="train"), "test") == Digits(split="test")
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    assert split_of(Folder(tmp_path / "train", size=8), "test").path == str(tmp_path / "val")
    for source, said in (
        (Digits(), "trains on all of its images"),
        (Arrays("a.npz"), "has no other split"),
        (Folder(tmp_path), "no folder of a split"),
    ):
        with pytest.raises(ValueError, match=said):
            split_of(source, "test")


# --- the command -----------------------------------------------------------------------------------------------------

OWN = '''
import numpy as np


def means(images):
    """The means of the four quarters."""
    half = images.shape[1] // 2
    parts = images.reshape(len(images), 2, half, 2, half, -1).mean((2, 4, 5))
    return parts.reshape(len(images), 4)


def broken(images):
    return np.full((len(images), 3), np.nan)


def failing(images):
    return images["a"]


def flat(images):
    return np.zeros(len(images))


def named(images):
    return {"features": means(images)}
'''
DATA = Digits(split="train")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A labelled model and a classifier."""
    folder, short = tmp_path_factory.mktemp("here"), Training(steps=4, save_every=2, show_every=4, log_every=2)
    few = replace(config, training=short, data=DATA)
    Experiment(few, folder / "runs" / "labelled").train()
    tiny = UNet(channels=8, multipliers=(1,), blocks=1, groups=2, attention=(0,), heads=1, text=True)
    words = Prompts(Bytes(8), ("one {}", "{}"), drop=0.1, shown=("one 1", "one 2"))
    told = replace(config.system, network=Prompted(tiny, TextEncoder(width=8, depth=1)), condition=words)
    Experiment(replace(few, system=told), folder / "runs" / "prompted").train()
    network = EncoderUNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=2, middle_attention=False)
    system = Classification(network, process=config.system.process, c_noise=config.system.c_noise, shown=8)
    Experiment(replace(few, system=system, augment=Augment()), folder / "runs" / "classifier").train()
    (folder / "mine.py").write_text(OWN)
    return folder


@pytest.fixture
def command(runs, tmp_path, monkeypatch, called):
    """evaluate.py's exit code and what it wrote, where the runs are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("labelled", "prompted", "classifier"):
        (tmp_path / "runs" / name).mkdir()
        for path in (runs / "runs" / name).iterdir():
            (tmp_path / "runs" / name / path.name).symlink_to(path)
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    return partial(called, evaluate.main)


SMALL = ("--workdir", "runs/labelled", "--num", 60, "--features", "mine.py:means")


def width(path):
    with Image.open(path) as picture:
        return picture.size[0]


def results(path="runs/labelled/evaluation.json"):
    return json.loads(Path(path).read_text())["results"]


def test_distances_are_written_and_printed_and_reused(command):
    code, out, err = command(*SMALL)
    assert code == 0, err
    assert "60 images against 297 real images (test), by mine.py:means: no FID" in err
    assert out.splitlines()[1].startswith("real images")
    real, result = results()
    assert set(result["numbers"]) >= {"frechet", "frechet_at_infinity", "kernel", "precision", "recall"}
    assert result["of"]["features"]["may be called FID"] is False
    assert real["numbers"]["frechet"]["value"] < result["numbers"]["frechet"]["value"]
    code, again, err = command(*SMALL)
    assert (code, again) == (0, out)
    assert "images in" not in err  # nothing was drawn
    assert len(results()) == 2


def test_the_distance_is_that_of_the_images(command):
    assert command(*SMALL)[0] == 0
    (npz,) = Path("runs/labelled/evaluation").glob("*.npz")
    namespace: dict = {}
    exec(OWN, namespace)
    mine, real = (
        namespace["means"](np.asarray(images)) for images in (np.load(npz)["arr_0"], Digits(split="test").open().images)
    )
    c1, c2 = np.cov(mine.T), np.cov(real.T)
    root = np.linalg.eigvals(c1 @ c2).real
    expected = ((mine.mean(0) - real.mean(0)) ** 2).sum() + np.trace(c1 + c2) - 2 * np.sqrt(root).sum()
    assert results()[1]["numbers"]["frechet"]["value"] == pytest.approx(expected, rel=1e-4)


def test_several_settings_make_rows_and_a_plot(command):
    code, out, err = command(*SMALL, "--steps", "1,2,4")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["steps=1", "steps=2", "steps=4"]
    assert width("runs/labelled/evaluation_steps.png") > 500
    code, out, _ = command(*SMALL, "--guidance_scale", "0,2", "--average", "0,none")
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()[2:6]] == [
        f"guidance_scale={scale} average={average}" for scale in (0, 2) for average in (0, "none")
    ]
    assert len(results()) == 8


def test_a_classifier_run_gives_features_and_says_which_labels_are_right(command):
    code, out, err = command("--workdir", "runs/labelled", "--num", 200, "--features", "runs/classifier")
    assert code == 0, err
    numbers = results()[1]["numbers"]
    assert set(numbers["accuracy"]["of each class"]) == set("0123456789")
    each = np.mean(list(numbers["accuracy"]["of each class"].values()))
    assert numbers["accuracy"]["value"] == pytest.approx(each)
    assert "labels right" in out
    code, out, _ = command(*SMALL, "--judge", "runs/classifier")
    assert code == 0
    assert "labels right" in out


def test_a_model_of_prompts_draws_every_class_not_only_what_its_pictures_show(command):
    call = ("--workdir", "runs/prompted", "--num", 60, "--features", "runs/classifier")
    code, out, err = command(*call)
    assert code == 0, err
    of = results("runs/prompted/evaluation.json")[1]
    assert of["of"]["samples"]["conditions"] == ", ".join(f"one {digit}" for digit in range(10))
    assert set(of["numbers"]["accuracy"]["of each class"]) == set("0123456789")
    assert "labels right" in out
    ten = [word for digit in range(10) for word in ("--prompt", f"one {digit}")]
    code, out, err = command(*call, *ten)  # the same texts, of which nobody says what they show
    assert code == 0, err
    assert "labels right" not in out
    assert command(*call, "--labels", "3")[0] == 0
    assert list(results("runs/prompted/evaluation.json")[3]["numbers"]["accuracy"]["of each class"]) == ["3"]


def test_anyones_images(command):
    images = np.asarray(Digits(split="test").open().images)
    labels = Digits(split="test").open().labels
    np.savez("given.npz", arr_0=images[:200], arr_1=labels[:200])
    Path("theirs.py").write_text(
        "from toy import config as base\nfrom dataclasses import replace\n"
        "from jaxdiff.data import Digits\nconfig = replace(base, data=Digits(split='train'))\n"
    )
    call = ("--data", "theirs.py", "--features", "mine.py:means")
    code, out, err = command("--samples", "given.npz", *call)
    assert code == 0, err
    assert "given.npz" in out
    assert results("given_evaluation.json")[1]["numbers"]["frechet"]["value"] < 100
    np.savez("given.npz", arr_0=255 - images[:200], arr_1=labels[:200])  # others, under the same name
    assert command("--samples", "given.npz", *call)[0] == 0
    assert results("given_evaluation.json")[2]["numbers"]["frechet"]["value"] > 1000
    Path("folder").mkdir()
    for i, image in enumerate(images[:50]):
        Image.fromarray(image[..., 0]).save(f"folder/{i}.png")
    assert command("--samples", "folder", *call)[0] == 0
    Image.new("L", (9, 8)).save("folder/odd.png")
    code, _, err = command("--samples", "folder", *call)
    assert (code, "folder has images of 8x9x1, odd.png; the reference has 8x8x1" in err) == (2, True)


def test_likelihood(command):
    code, out, err = command("--workdir", "runs/labelled", "--likelihood", "--num", 20)
    assert code == 0, err
    assert "20 real images (test) by runs/labelled at step 4, given their labels" in err
    ode, bound = (result["numbers"]["bits per dimension"] for result in results())
    assert 3 < ode["value"] < 20
    assert ode["value"] < bound["value"] + 4 * bound["error"]
    assert command("--workdir", "runs/labelled", "--likelihood", "--num", 20)[1] == out


def test_likelihoods_of_smaller_batches_where_memory_runs_out(command, monkeypatch):
    call = ("--workdir", "runs/labelled", "--likelihood", "--num", 20)
    whole, sizes = Model.log_likelihoods, []

    def small(self, *arguments, batch_size, **kwargs):
        sizes.append(batch_size)
        for number, each in enumerate(whole(self, *arguments, batch_size=batch_size, **kwargs)):
            if batch_size > 8 or (batch_size > 4 and number == 1):
                raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
            yield each

    with monkeypatch.context() as patched:
        patched.setattr(Model, "log_likelihoods", small)
        code, _, err = command(*call)
    assert (code, sizes) == (0, 2 * [32, 16, 8, 4])
    assert "too little memory: going on with 4 images at a time" in err
    seen = [result["numbers"]["bits per dimension"]["value"] for result in results()]
    Path("runs/labelled/evaluation.json").unlink()
    assert command(*call)[0] == 0
    again = [result["numbers"]["bits per dimension"]["value"] for result in results()]
    np.testing.assert_allclose(seen, again, rtol=1e-4)


def test_nearest(command):
    code, out, err = command("--workdir", "runs/labelled", "--nearest", "--num", 30)
    assert code == 0, err
    assert out.startswith("0 copies among 30 samples (0.00% of held-out images are judged so)\n")
    assert width("runs/labelled/nearest.png") > 300
    np.savez("given.npz", arr_0=np.asarray(DATA.open().images)[:20])
    Path("theirs.py").write_text(
        "from toy import config as base\nfrom dataclasses import replace\n"
        "from jaxdiff.data import Digits\nconfig = replace(base, data=Digits(split='train'))\n"
    )
    code, out, _ = command("--samples", "given.npz", "--data", "theirs.py", "--nearest")
    assert code == 0
    assert out.startswith("20 copies among 20 samples (")
    shown = Path("runs/labelled/report.html").read_text()
    assert all(f'"title": "{title}"' in shown for title in ("Copies of training images", "Most like training images"))


def test_drawing_resumes(command, monkeypatch):
    from jaxdiff.core import sampling

    whole = sampling.batches

    def some(*arguments, **kwargs):
        for number, batch in enumerate(whole(*arguments, **kwargs)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(sampling, "batches", some)
        code, _, err = command(*SMALL, "--batch_size", 8)
    assert (code, "stopped at 16 of 60 images; the same command resumes" in err) == (130, True)
    code, _, err = command(*SMALL, "--batch_size", 8)
    assert (code, "16 of them are there already" in err) == (0, True)


def test_more_samples_of_the_same_draw_the_rest_and_fewer_nothing(command, monkeypatch):
    drawn, whole = [], Model.batches

    def counted(self, numbers, **kwargs):
        drawn.extend(numbers)
        return whole(self, numbers, **kwargs)

    monkeypatch.setattr(Model, "batches", counted)
    nearest = ("--workdir", "runs/labelled", "--nearest", "--num")
    assert command(*nearest, 40)[0] == 0
    code, _, err = command(*SMALL)
    assert (code, "40 of them are there already" in err) == (0, True)
    assert drawn == list(range(60))
    assert command(*nearest, 30)[0] == 0
    assert drawn == list(range(60))
    assert results()[-1]["numbers"]["samples"] == 30
    few, many = (np.load(path) for path in sorted(Path("runs/labelled/evaluation").glob("*.npz")))
    np.testing.assert_array_equal(few["arr_0"], many["arr_0"][:40])
    np.testing.assert_array_equal(few["arr_1"], many["arr_1"][:40])


def test_likelihoods_resume(command, monkeypatch):
    call = ("--workdir", "runs/labelled", "--likelihood", "--num", 20, "--batch_size", 8)
    whole, firsts = Model.log_likelihoods, []

    def some(self, *arguments, **kwargs):
        firsts.append(kwargs["first"])
        for number, each in enumerate(whole(self, *arguments, **kwargs)):
            if firsts == [0] and number == 1:
                raise KeyboardInterrupt
            yield each

    with monkeypatch.context() as patched:
        patched.setattr(Model, "log_likelihoods", some)
        assert command(*call)[0] == 130
        code, out, err = command(*call)
    assert (code, firsts) == (0, [0, 8, 0]), err
    assert not list(Path("runs/labelled/evaluation").iterdir())
    Path("runs/labelled/evaluation.json").unlink()
    assert command(*call)[1] == out


def test_nearest_says_what_it_lacks(command):
    Path("whole.py").write_text("from toy import config\n")
    np.savez("given.npz", arr_0=np.zeros((20, 8, 8, 1), np.uint8))
    given = ("--samples", "given.npz", "--data", "whole.py", "--nearest")
    code, _, err = command(*given)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "trains on all of its images: data.split=train holds some out; --nearest needs images that were not" in err
    code, _, err = command(*given, "--reference", "train")
    assert (code, err.splitlines()[0].split(": ")[1]) == (2, "--nearest looks among the training images anyway")


BAD = {
    ("--likelihood", "--average", "0,none"): "--likelihood and --nearest ask of one setting",
    ("--likelihood", "--labels", "3"): "--likelihood and --labels contradict each other",
    ("--num", "9", "--per_label", "3"): "--per_label and --num contradict each other",
    ("--from_diffusers", "x"): "--workdir and --from_diffusers contradict each other",
    ("--features", "mine.py:broken"): "features of mine.py:broken are not finite",
    ("--features", "mine.py:flat"): "features must be a row for each of",
    ("--features", "mine.py:named"): "features must be numbers, [n, d]; mine.py:named gave dict",
    ("--features", "mine.py:none"): '--features must be one of means, broken, failing, flat, named, got "none"',
    ("--features", "mine.py:failing"): "--features mine.py:failing failed, IndexError: only integers",
    ("--features", "lit0"): "--features must be lite0, inception, the run of a classifier, or file.py:name, got lit0",
    ("--features", "runs/labelled"): "runs/labelled trained Diffusion, no classifier",
    ("--reference", "nonsense"): "split must be one of train, test, all",
    ("--steps", "5,x"): "argument --steps: must be a whole number, at least 1, got 'x'",
    ("--steps", "5,5"): "--steps has a value twice: 5,5",
    ("--num", "4"): "means something from",
    ("--likelihood", "--nearest"): "--likelihood and --nearest contradict each other",
    ("--samples", "a.npz"): "--samples needs --data",
    ("--probes", "3"): "--probes needs --likelihood",
    ("--weights", "w.pth"): "--weights are those of --features inception",
    ("--data", "nowhere.py"): "no config file nowhere.py",
    ("--reference", "tset", "--feature", "x"): "unrecognized arguments: --feature",
    ("--init", "a.png"): "unrecognized arguments: --init",
}


@pytest.mark.parametrize("flags", BAD, ids=" ".join)
def test_bad_input_is_one_line(flags, command):
    given = () if "--samples" in flags or "--probes" in flags else SMALL[:4]
    more = () if {"--features", "--likelihood", "--samples", "--probes"} & set(flags) else SMALL[4:]
    code, _, err = command(*given, *more, *flags)
    assert code == 2
    assert BAD[flags] in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("evaluate.py: ")
    assert not Path("runs/labelled/evaluation.json").exists()


def test_images_that_do_not_fit_are_one_line(command):
    np.savez("wide.npz", arr_0=np.zeros((20, 8, 9, 1), np.uint8))
    np.savez("floats.npz", arr_0=np.full((20, 8, 8, 1), 3.0))
    np.savez("labels.npz", arr_0=np.zeros((90, 8, 8, 1), np.uint8), arr_1=np.full(90, 12))
    Path("theirs.py").write_text(
        "from toy import config as base\nfrom dataclasses import replace\n"
        "from jaxdiff.data import Digits\nconfig = replace(base, data=Digits(split='train'))\n"
        "whole = base\n"
    )
    Path("whole.py").write_text("from toy import config\n")
    for samples, data, features, said in (
        ("wide.npz", "theirs.py", "mine.py:means", "wide.npz has images of 8x9x1"),
        ("floats.npz", "theirs.py", "mine.py:means", "floats must be in [0, 1] or [-1, 1]"),
        ("labels.npz", "theirs.py", "runs/classifier", "the samples have labels up to 12, runs/classifier knows 10"),
        ("none.npz", "theirs.py", "mine.py:means", "none.npz is not there"),
        ("wide.npz", "whole.py", "mine.py:means", "no test split: Digits(size=8, split='all') trains on all"),
    ):
        code, _, err = command("--samples", samples, "--data", data, "--features", features)
        assert (code, said in err.splitlines()[-1]) == (2, True), err


def test_a_report_is_added_to_and_a_damaged_one_is_one_line(command):
    path = Path("runs/labelled/evaluation.json")
    for content in ("[]", "{}", '{"form": 1, "results": [1]}', '{"form": 2, "results": []}', "{"):
        path.write_text(content)
        code, _, err = command(*SMALL)
        assert (code, len(err.splitlines()[-1:]), "evaluation.json" in err) == (2, 1, True)
        assert path.read_text() == content
    path.unlink()
    first, second = report.Report(path), report.Report(path)  # of two processes
    first.add({"a": 1}, {})
    second.add({"b": 2}, {})
    assert [each["of"] for each in report.Report(path).results] == [{"a": 1}, {"b": 2}]


def test_sorted_images_are_judged_as_mixed_ones():
    images = np.repeat(np.arange(4, dtype=np.uint8) * 60, 300).reshape(-1, 1, 1, 1)
    order = Shuffled(images)
    assert set(order[np.arange(40)].ravel()) == {0, 60, 120, 180}
    assert sorted(order.rows) == list(range(1200))
    assert len(Shuffled(images, 7)) == 7


def test_one_feature_and_few_images():
    one, other = summary(RANDOM.randn(60, 1)), summary(RANDOM.randn(60, 1) + 2)
    assert distances.frechet(one, other).value == pytest.approx(4, rel=0.5)
    assert at_infinity_of(one, other) == pytest.approx(4, rel=0.5)
    assert at_infinity_of(summary(RANDOM.randn(60, 20)), summary(RANDOM.randn(60, 20))) is None


def test_features_of_all_devices_are_those_of_one():
    weights = np.float32(RANDOM.randn(64, 5))
    images = RANDOM.randint(0, 256, (45, 8, 8, 1)).astype(np.uint8)
    compute = lambda params, x: (x.reshape(len(x), -1).astype("float32") @ params, None)  # noqa: E731
    found = [rows for rows, _ in Features("toy", "0", compute, weights).batches(images)]
    np.testing.assert_allclose(np.concatenate(found), images.reshape(45, -1).astype(np.float32) @ weights, rtol=1e-3)
