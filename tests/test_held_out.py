"""What is seen of held-out images while a model trains: their loss, a Fréchet distance, and the best checkpoint."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import linen as nn
from toy import config as toy

from jaxdiff import load
from jaxdiff.base import plain
from jaxdiff.data import Digits, Examples
from jaxdiff.data.augment import Augment
from jaxdiff.models import Classification
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.held_out import COLUMNS, COUNT, LEVELS, HeldOut
from jaxdiff.models.system import Constants
from jaxdiff.nets import EncoderUNet, UNet
from jaxdiff.training import Training
from jaxdiff.training.logbook import Logbook
from jaxdiff.training.metrics import read_metrics
from jaxdiff.training.step import Seen

OWN = "def means(images):\n    return images.reshape(len(images), 2, 32).mean(2)\n"
TEST = Digits(split="test")
TRAINING = replace(toy.training, steps=40, log_every=5, evaluate_every=10, save_every=5, keep=10)
CONFIG = replace(toy, data=Digits(split="train"), held_out=TEST, training=TRAINING)


def unlabelled():
    return Examples(TEST.open().images)


def turned():
    return replace(TEST.open(), classes=tuple("9876543210"))


def rows(folder):
    return read_metrics(folder / "metrics.csv")


def best(folder):
    return [path.name for path in (folder / "best").iterdir()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    config = replace(CONFIG, training=replace(TRAINING, keep_best="held_out_loss"))
    Experiment(config, folder).train()
    return folder


def test_it_is_the_mean_loss_of_the_first_images_at_eight_levels(trained):
    model, examples = load(trained), TEST.open()
    found = HeldOut(model.system, examples, Constants(), False, 16).numbers(model.params, 0)
    assert tuple(found) == COLUMNS
    assert found["held_out_loss"] == pytest.approx(rows(trained)[-1]["held_out_loss"], rel=1e-5)
    key = jax.random.key(0, impl="threefry2x32")
    for level in (0, 5):
        each = [
            model.system.loss(
                Augment(), Seen(model.params, (model.params,), 0), Constants(),
                jax.random.fold_in(key, i * LEVELS + level), (level + 0.5) / LEVELS,
                {"image": examples.images[row], "label": examples.labels[row]}, False,
            )
            for i, row in enumerate(np.random.RandomState(0).permutation(len(examples))[:COUNT])
        ]  # fmt: skip
        assert found[f"held_out_loss_{level + 1}"] == pytest.approx(float(np.mean(each)), rel=1e-4)
    assert found["held_out_loss"] == pytest.approx(np.mean([found[name] for name in COLUMNS[1:]]))


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, c_noise, label):
        x = x + nn.Embed(11, x.size)(label).reshape(x.shape) + c_noise
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(nn.Dense(1)(x))


def test_nothing_is_dropped_in_it_and_its_batches_do_not_matter():
    system = replace(toy.system, network=Dropping())
    without = replace(system, condition=replace(system.condition, drop=0.0))
    params = system.start(jax.random.key(0), (8, 8, 1))
    examples = TEST.open()
    first = HeldOut(system, examples, Constants(), False, 16).numbers(params, 0)
    for other, together in ((system, 16), (system, 3), (system, 500), (without, 16)):
        assert HeldOut(other, examples, Constants(), False, together).numbers(params, 0) == pytest.approx(
            first, rel=1e-5
        )


def test_rows_have_it_now_and_then_and_old_columns_stay(trained):
    seen = [int(row["step"]) for row in rows(trained) if "held_out_loss" in row]
    assert seen == [10, 20, 30, 40]
    assert len(rows(trained)) == 8
    losses = [row["held_out_loss"] for row in rows(trained) if "held_out_loss" in row]
    assert losses[-1] < losses[0]


def test_a_stopped_run_writes_the_same(trained, tmp_path):
    config = replace(CONFIG, training=replace(TRAINING, keep_best="held_out_loss", steps=20, schedule_steps=40))
    Experiment(config, tmp_path / "run").train()
    Experiment(replace(config, training=replace(config.training, steps=40)), tmp_path / "run").train()
    timeless = lambda folder: [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows(folder)]  # noqa: E731
    assert timeless(tmp_path / "run") == timeless(trained)
    assert best(tmp_path / "run") == best(trained)


def test_the_best_checkpoint_is_that_of_the_lowest_row(trained):
    with_it = [row for row in rows(trained) if "held_out_loss" in row]
    lowest = min(with_it, key=lambda row: row["held_out_loss"])
    assert best(trained) == [str(int(lowest["step"]))]
    kept, last = load(trained, "best"), load(trained, int(lowest["step"]))
    for a, b in zip(jax.tree.leaves(kept.params), jax.tree.leaves(last.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_worse_one_does_not_take_its_place(tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, float("nan")])
    monkeypatch.setattr(HeldOut, "numbers", lambda *_: dict.fromkeys(COLUMNS, next(losses)))
    Experiment(replace(CONFIG, training=replace(TRAINING, keep_best="held_out_loss")), tmp_path).train()
    assert best(tmp_path) == ["20"]


@pytest.mark.parametrize("late", [{"keep_best": None}, {"held_out": Digits(split="train")}], ids=str)
def test_what_was_not_kept_or_is_not_comparable_is_no_bar(late, tmp_path, monkeypatch):
    losses = iter([1.0, 2.0, 4.0, 3.0])
    monkeypatch.setattr(HeldOut, "numbers", lambda *_: dict.fromkeys(COLUMNS, next(losses)))
    config = replace(CONFIG, training=replace(TRAINING, keep_best="held_out_loss"))
    short = replace(config.training, steps=20, schedule_steps=40, keep_best=late.get("keep_best", "held_out_loss"))
    Experiment(replace(config, training=short, held_out=late.get("held_out", TEST)), tmp_path).train()
    Experiment(config, tmp_path).train()
    assert best(tmp_path) == ["40"]


def test_what_was_kept_before_a_run_without_it_is_a_bar_again(tmp_path, monkeypatch):
    losses = iter([1.0, 2.0, 3.0, 1.5])
    monkeypatch.setattr(HeldOut, "numbers", lambda *_: dict.fromkeys(COLUMNS, next(losses)))
    for steps, keep in ((20, "held_out_loss"), (30, None), (40, "held_out_loss")):
        training = replace(TRAINING, steps=steps, schedule_steps=40, keep_best=keep)
        Experiment(replace(CONFIG, training=training), tmp_path).train()
    assert best(tmp_path) == ["10"]
    (tmp_path / "best.json").write_text("{")
    losses = iter([5.0])
    Experiment(replace(CONFIG, training=replace(training, steps=50)), tmp_path).train()
    assert best(tmp_path) == ["50"]


def test_a_judge_of_other_images_is_refused_before_training(tmp_path):
    (tmp_path / "judges.py").write_text("def ours(images):\n    return images[:, :99, 50]")
    with pytest.raises(ValueError, match="failed, IndexError"):
        Experiment(replace(CONFIG, judge=f"{tmp_path}/judges.py:ours"), tmp_path / "run").train()
    assert not (tmp_path / "run").exists()


def test_a_run_without_it_goes_on_with_it(tmp_path):
    short = replace(TRAINING, steps=20, schedule_steps=40)
    Experiment(replace(CONFIG, held_out=None, training=short), tmp_path).train()
    before = rows(tmp_path)
    assert all("held_out_loss" not in row for row in before)
    Experiment(replace(CONFIG, training=replace(TRAINING, schedule_steps=40)), tmp_path).train()
    assert rows(tmp_path)[: len(before)] == before
    assert [int(row["step"]) for row in rows(tmp_path) if "held_out_loss" in row] == [30, 40]
    shutil.rmtree(tmp_path / "events")
    Logbook(tmp_path, 40, 40).close()  # which knows of no such columns
    assert [int(row["step"]) for row in rows(tmp_path) if "held_out_loss" in row] == [30, 40]


def test_other_systems_have_it_too(tmp_path):
    network = EncoderUNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=2, middle_attention=False)
    system = Classification(network, process=toy.system.process, c_noise=toy.system.c_noise, shown=8)
    few = Training(steps=4, log_every=2, evaluate_every=2, show_every=4, save_every=4)
    Experiment(replace(CONFIG, system=system, augment=Augment(), training=few), tmp_path).train()
    assert rows(tmp_path)[-1]["held_out_loss"] == pytest.approx(np.log(10), rel=0.2)


@pytest.mark.parametrize("network", [UNet(channels=8), Dropping()], ids=["unet", "own"])
def test_a_classifier_must_say_how_many_classes(network, tmp_path):
    with pytest.raises(ValueError, match=r"a network that says how many classes, such as EncoderUNet\(classes=10\)"):
        Experiment(replace(CONFIG, system=Classification(network)), tmp_path / "run").train()
    assert not (tmp_path / "run").exists()


def test_a_distance_of_samples_is_a_column(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "judges.py").write_text(OWN)
    config = replace(CONFIG, judge=f"{tmp_path / 'judges.py'}:means", training=replace(TRAINING, keep_best="frechet"))
    Experiment(config, tmp_path / "run").train()
    found = [row["frechet"] for row in rows(tmp_path / "run") if "frechet" in row]
    assert len(found) == 4
    assert all(np.isfinite(found))
    network = EncoderUNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=2, middle_attention=False)
    wrong = replace(config, system=Classification(network), training=TRAINING)
    with pytest.raises(ValueError, match="judge compares samples, which Classification does not draw"):
        Experiment(wrong, tmp_path / "other").train()


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (Digits(size=16, split="test"), "held_out has images of"),
        (unlabelled, "the data has none"),
        (turned, "others than"),
    ],
)
def test_held_out_images_that_are_unlike_are_refused_before_training(held_out, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        Experiment(replace(CONFIG, held_out=held_out), tmp_path / "run").train()
    assert not (tmp_path / "run").exists()


def test_a_short_run_ends_with_it(tmp_path):
    Experiment(replace(CONFIG, training=replace(TRAINING, steps=7, evaluate_every=None)), tmp_path).train()
    assert [int(row["step"]) for row in rows(tmp_path) if "held_out_loss" in row] == [5]


def test_wrong_choices_are_one_line():
    with pytest.raises(ValueError, match=r"keep_best must be one of held_out_loss, .*, got 'loss'"):
        replace(CONFIG, training=replace(TRAINING, keep_best="loss"))
    with pytest.raises(ValueError, match="keep_best must be None, or the config needs held_out, got 'held_out_loss'"):
        replace(CONFIG, held_out=None, training=replace(TRAINING, keep_best="held_out_loss"))
    for every in (7, 0, -10):
        with pytest.raises(ValueError, match="evaluate_every"):
            replace(TRAINING, evaluate_every=every)


def test_configs_with_it_are_kept_and_read():
    assert plain.from_data(plain.to_data(CONFIG)) == CONFIG
