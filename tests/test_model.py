"""A model to sample from: its conditions, how it is guided, what it refuses, and how it comes from a run's folder."""

import json
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from systems import MEANS, ExactClassifier, exact_system

from jaxdiff.core import grids, samplers
from jaxdiff.core.c_noise import time
from jaxdiff.core.guidance import ClassifierFreeGuidance, DynamicThreshold, Within
from jaxdiff.core.process import VP, Flow
from jaxdiff.data import Digits, Examples
from jaxdiff.data.augment import Augment
from jaxdiff.models import Autoencoding, Classification, Config, Diffusion, Labels, Prompts, about
from jaxdiff.models.editing import inpaint, seed_noise, upscale, vary
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.loading import load, load_classifier, parameters_of
from jaxdiff.models.model import Classifier, Edit, Model
from jaxdiff.models.real import asked_for
from jaxdiff.models.run import Run
from jaxdiff.nets import MLP, Autoencoder, Bytes
from jaxdiff.nets import EncoderUNet as ClassifierNet
from jaxdiff.training import Ema, PowerEma, averages
from jaxdiff.training.checkpoint import Checkpoints, fingerprint

SHAPE, NAMES = (2, 2, 1), ("cat", "dog", "ship")
LABELLED = Model(exact_system(condition=Labels(3, drop=0.1)), {}, SHAPE, classes=NAMES, name="toy")
PLAIN = Model(exact_system(), {}, SHAPE, name="plain")
PROMPTED = Model(
    exact_system(condition=Prompts(Bytes(8), shown=("a cat", "a dog"), drop=0.1)), {}, SHAPE, name="prompted"
)
CLASSIFIER = Classifier(Classification(ExactClassifier(), Flow(), c_noise=time), {}, SHAPE, name="judge")


# --- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "found", "texts"),
    [
        (2, [2], ["ship"]),
        (np.int64(1), [1], ["dog"]),
        ("dog", [1], ["dog"]),
        ([2, "cat", 2], [2, 0, 2], ["ship", "cat", "ship"]),
        (np.array([1, 0]), [1, 0], ["dog", "cat"]),
        (range(2), [0, 1], ["cat", "dog"]),
        (None, [0, 1, 2], ["cat", "dog", "ship"]),
    ],
)
def test_labels_are_numbers_or_names(labels, found, texts):
    conditions, said = LABELLED.choices(labels)
    assert (list(conditions), said) == (found, texts)
    assert conditions.dtype == np.int32


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label": 1}, 'there is no option label; did you mean "labels"'),
        ({"seeds": 1}, 'there is no option seeds; did you mean "seed"'),
        ({"guidence_scale": 1.0}, 'there is no option guidence_scale; did you mean "guidance_scale"'),
        ({"labels": 12}, "knows the labels 0 to 2, or cat, dog, ship; got 12$"),
        ({"steps": "ten"}, "steps must be a whole number, at least 1"),
    ],
)
def test_options_that_there_are_not(options, says):
    with pytest.raises(ValueError, match=says):
        LABELLED.sample(2, **options)


def test_a_system_of_ones_own_may_take_options_of_its_own():
    class Mine(Diffusion):
        def denoiser(self, params, guidance_scale=None, **options):
            return super().denoiser(params, guidance_scale, **options)

    system = LABELLED.system
    mine = Mine(**{field.name: getattr(system, field.name) for field in fields(system)})
    drawn = replace(LABELLED, system=mine).sample(2, guidance_scale=2.0, rescale=0.3)
    np.testing.assert_array_equal(drawn, LABELLED.sample(2, guidance_scale=2.0, rescale=0.3))


def test_labels_without_names_are_called_by_their_numbers():
    named = replace(LABELLED, classes=("golf_ball", "Church", "garbage truck"))
    assert named.choices(["golf ball", "church", "Garbage-Truck", "golf_ball"])[0].tolist() == [0, 1, 2, 0]
    with pytest.raises(ValueError, match='got golfbal; did you mean "golf_ball"'):
        named.choices("golfbal")
    twice = replace(LABELLED, classes=("golf_ball", "golf-ball", "cat"))
    assert twice.choices("golf-ball")[0].tolist() == [1]
    with pytest.raises(ValueError, match="golf ball may be golf_ball or golf-ball: write it as that"):
        twice.choices("golf ball")
    assert replace(LABELLED, classes=()).choices([1, 0])[1] == ["1", "0"]


@pytest.mark.parametrize(
    ("prompts", "texts"), [("a dog", ["a dog"]), (["one", "two"], ["one", "two"]), (None, ["a cat", "a dog"])]
)
def test_prompts_are_texts(prompts, texts):
    conditions, said = PROMPTED.choices(prompts=prompts)
    assert said == texts
    np.testing.assert_array_equal(conditions, [Bytes(8)(text) for text in texts])


def test_a_model_of_prompts_takes_labels_where_it_knows_what_classes_are_called():
    named = replace(PROMPTED, classes=NAMES)
    conditions, said = named.choices(labels=["ship", 0])
    assert said == ["ship", "cat"]
    np.testing.assert_array_equal(conditions, [Bytes(8)(text) for text in said])
    assert named.classes_of(["ship", 0]).tolist() == [2, 0]
    by_template = replace(PROMPTED.system, condition=Prompts(Bytes(8), ("a {}", "{}"), drop=0.1))
    assert replace(named, system=by_template).choices(1)[1] == ["a dog"]
    with pytest.raises(ValueError, match="prompted knows the labels 0 to 2, or cat, dog, ship; got frog"):
        named.choices("frog")


def test_what_is_compared_with_real_images_is_asked_for_all_that_these_have():
    images, captions = np.zeros((3, 2, 2, 1), np.uint8), ("one", "two", "three")
    labelled = Examples(images, np.arange(3), NAMES)
    assert asked_for(LABELLED, labelled) == (None, None)  # is told all labels in any case
    assert asked_for(PLAIN, labelled) == (None, None)
    assert asked_for(PROMPTED, labelled) == (None, None)  # does not know what its classes are called
    assert asked_for(replace(PROMPTED, classes=NAMES), labelled) == ([0, 1, 2], None)
    labels, prompts = asked_for(PROMPTED, Examples(images, captions=captions))
    assert labels is None
    assert sorted(prompts) == sorted(captions)


def test_of_many_prompts_only_those_that_are_drawn_are_written():
    conditions = PROMPTED.conditions_of(np.array([3, 4, 7]), prompts=["a", "b", "much too long", "d"])
    np.testing.assert_array_equal(conditions, [Bytes(8)(text) for text in ("d", "a", "d")])


def test_without_a_condition_there_is_nothing_to_tell_but_to_a_classifier():
    assert PLAIN.choices() == (None, [])
    assert PLAIN.null(3) is None
    assert PLAIN.choices(1, classifier=CLASSIFIER)[1] == ["1"]
    conditions, said = PLAIN.choices(["ship", 0], classifier=replace(CLASSIFIER, classes=("cat", "dog", "ship")))
    assert (list(conditions), said) == ([2, 0], ["ship", "cat"])
    assert list(PLAIN.choices(classifier=CLASSIFIER)[0]) == [0, 1, 2]


def test_the_null_condition_is_that_of_training():
    assert list(LABELLED.null(2)) == [3, 3]
    np.testing.assert_array_equal(PROMPTED.null(2), [Bytes(8)("")] * 2)


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        (lambda: LABELLED.choices(3), "toy knows the labels 0 to 2, or cat, dog, ship; got 3"),
        (lambda: LABELLED.choices([0, -1]), "toy knows the labels 0 to 2, or cat, dog, ship; got -1"),
        (lambda: LABELLED.choices("frog"), "toy knows the labels 0 to 2, or cat, dog, ship; got frog"),
        (lambda: replace(LABELLED, classes=()).choices("frog"), "toy knows the labels 0 to 2; got frog"),
        (lambda: LABELLED.choices([1.5]), "labels must be whole numbers or names, got 1.5"),
        (lambda: LABELLED.choices(2.0), "labels must be whole numbers or names, got 2.0"),
        (lambda: PROMPTED.choices(prompts=[3]), r"prompts that are text, got \[3\]"),
        (lambda: replace(LABELLED, classes=("1", "2", "3")).choices("0"), "knows the labels 0 to 2; got 0"),
        (lambda: replace(LABELLED, classes=()).choices("3"), "toy knows the labels 0 to 2; got 3"),
        (lambda: LABELLED.choices([]), r"needs at least one label, got \[\]"),
        (lambda: PROMPTED.choices(prompts=[]), r"needs at least one prompt, got \[\]"),
        (lambda: LABELLED.choices(prompts="a cat"), "toy knows no prompts"),
        (lambda: PROMPTED.choices(labels=0), "prompted knows no labels"),
        (lambda: PLAIN.choices(labels=0), "plain knows no labels"),
        (lambda: PLAIN.choices(prompts="a cat"), "plain knows no prompts"),
        (lambda: LABELLED.choices(0, "a cat"), "labels and prompts contradict each other"),
        (lambda: replace(PROMPTED, classes=NAMES).choices(0, "a cat"), "labels and prompts contradict each other"),
        (lambda: PLAIN.choices(3, classifier=CLASSIFIER), "plain knows the labels 0 to 2; got 3"),
    ],
)
def test_conditions_that_it_cannot_take_are_refused(choose, says):
    with pytest.raises(ValueError, match=says):
        choose()


# --- sampling -------------------------------------------------------------------------------------------------------


def means(labels, **options):
    """The mean of the label that each image has: a single step from pure noise says it."""
    return LABELLED.sample(labels=labels, steps=1, **options)[:, 0, 0, 0]


def test_labels_take_turns_by_the_images_own_numbers():
    np.testing.assert_allclose(means([2, 0], indices=5), np.take(MEANS, [2, 0, 2, 0, 2]), rtol=1e-5)
    np.testing.assert_allclose(means(None, indices=[4, 1, 9, 2**32 - 1]), np.take(MEANS, [1, 1, 0, 0]), rtol=1e-5)
    for two in ("ship", 2, np.array(2), jnp.array(2)):
        np.testing.assert_allclose(means(two, indices=np.int64(2)), [MEANS[2]] * 2, rtol=1e-5)
    assert replace(LABELLED, classes=()).choices("2")[0].tolist() == [2]


def test_it_says_which_are_not_finite_if_asked():
    with pytest.raises(FloatingPointError, match="image 1 is not finite after step 1"):
        LABELLED.sample([1], steps=1, debug=True, denoiser=lambda x, t, label: jnp.nan * x)


def test_batches_come_with_their_numbers():
    found = list(LABELLED.batches(range(3, 22), steps=1, batch_size=8))
    assert [list(numbers) for numbers, _ in found] == [list(range(3, 11)), list(range(11, 19)), [19, 20, 21]]
    np.testing.assert_allclose(found[2][1][:, 0, 0, 0], np.take(MEANS, [1, 2, 0]), rtol=1e-5)


@pytest.mark.parametrize("indices", [0, -1, 2.5, [0.5], [-1], []], ids=str)
def test_indices_are_numbers_of_images(indices):
    with pytest.raises(ValueError, match="indices must be a number of images, at least 1"):
        LABELLED.batches(indices)


def test_rows_of_an_edit_and_labels_take_turns_each():
    edit = Edit(noise=np.stack([np.full(SHAPE, value, np.float32) for value in (0.0, 1.0)]))
    assert len(edit) == 2
    x = LABELLED.sample(6, [0, 1, 2], edit=edit, steps=20, sampler=samplers.EDM())[:, 0, 0, 0]
    expected = [MEANS[i % 3] + 0.5 * (i % 2) for i in range(6)]  # where the ODE leads
    np.testing.assert_allclose(x, expected, atol=5e-3)
    twice = edit.repeated(3)
    x = LABELLED.sample(6, [0, 1, 2], edit=twice, steps=20, sampler=samplers.EDM())[:, 0, 0, 0]
    np.testing.assert_allclose(x, [MEANS[i % 3] + 0.5 * (i // 3) for i in range(6)], atol=5e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_is_the_same_by_the_model_and_by_a_classifier(scale):
    """With exact networks, on a model of labels and on one that knows none."""
    options = {"indices": 6, "guidance_scale": scale, "labels": [2, 0], "grid": grids.Uniform(first=0.999)}
    free = LABELLED.sample(**options)
    np.testing.assert_allclose(LABELLED.sample(**options, classifier=CLASSIFIER), free, atol=2e-3)
    np.testing.assert_allclose(PLAIN.sample(**options, classifier=CLASSIFIER), free, atol=2e-3)
    if scale == 0:
        np.testing.assert_allclose(PLAIN.sample(6, grid=options["grid"]), free, atol=2e-3)
    else:
        assert abs(PLAIN.sample(6) - free).max() > 0.05


def test_what_guides_is_put_together_as_it_is_asked_for():
    made = LABELLED.denoiser(3.0, rescale=0.3, interval=(0.2, 4.0), threshold=0.9)
    plain = LABELLED.denoiser()
    inside = ClassifierFreeGuidance(plain, made.denoise.denoise.null, 3.0, 0.3)
    (leaves, parts), expected = jax.tree.flatten(made), DynamicThreshold(Within(inside, plain, Flow(), 0.2, 4.0), 0.9)
    assert (leaves, parts) == jax.tree.flatten(expected)
    assert made.denoise.denoise.null == 3
    nowhere = LABELLED.sample(4, 0, guidance_scale=3.0, interval=(200.0, 300.0))
    np.testing.assert_allclose(nowhere, LABELLED.sample(4, 0), atol=1e-6)


def test_a_denoiser_of_ones_own_takes_the_place_of_the_models():
    def denoise(x, t, label):
        return jnp.full_like(x, 3.0 + label)

    np.testing.assert_allclose(means([1, 0], indices=3, denoiser=denoise), [4, 3, 4], rtol=1e-6)
    np.testing.assert_allclose(means([1, 0], indices=3, denoiser=denoise, threshold=1.0), 1)
    edit = inpaint(LABELLED, np.zeros((1, *SHAPE)), np.array([[[1, 0], [0, 0]]]))
    painted = LABELLED.sample(
        2, [1, 0], edit=edit, steps=1, denoiser=lambda x, t, *condition: denoise(x, t, *condition)
    )
    np.testing.assert_allclose(painted[..., 0], [[[4, 0], [0, 0]], [[3, 0], [0, 0]]], rtol=1e-6)
    with pytest.raises(ValueError, match="a denoiser of your own is guided as it is: leave out guidance_scale, scael"):
        LABELLED.batches(denoiser=denoise, guidance_scale=3.0, scael=1)


def test_thresholds_cut_off_what_is_expected_also_of_an_edit():
    far = np.array([[[[40.0]], [[0.0]]]]).reshape(1, 2, 1, 1)
    wide = replace(LABELLED, shape=(2, 1, 1))
    edit = Edit(images=np.float32(far), strength=0.5)
    assert wide.sample(1, 0, edit=edit).max() > 5
    np.testing.assert_allclose(wide.sample(1, 0, edit=edit, threshold=1.0).max(), 1, atol=1e-6)
    dynamic = wide.sample(1, 0, edit=edit, threshold=0.75)
    assert dynamic.max() == pytest.approx(1, abs=1e-6)
    clipping = replace(wide, system=replace(wide.system, clip=True))
    assert clipping.sample(1, 0, edit=edit).max() == pytest.approx(1, abs=1e-6)
    assert clipping.sample(1, 0, edit=edit, threshold=0.0).max() > 5
    restored = upscale(replace(clipping, shape=(2, 2, 1)), np.full((1, 1, 1, 1), 7.0), 2)
    assert replace(clipping, shape=(2, 2, 1)).sample(1, 0, edit=restored).max() <= 1 + 1e-6


def test_times_are_the_last_of_the_grid():
    np.testing.assert_allclose(PLAIN.times(), np.linspace(1, 0, 11), atol=1e-6)
    np.testing.assert_allclose(PLAIN.times(5, strength=0.5), [0.4, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(PLAIN.times(4, grids.Quadratic(), strength=0.01), [1 / 16, 0], atol=1e-6)


def test_churn_is_spread_over_the_whole_grid_also_where_a_part_of_it_is_walked():
    edit = vary(PLAIN, np.zeros((1, *SHAPE), np.float32), strength=0.5)
    churned, spread, short = (
        PLAIN.sample(2, edit=edit, steps=20, sampler=samplers.EDM(churn=4.0, churn_steps=n)) for n in (None, 20, 10)
    )
    np.testing.assert_array_equal(churned, spread)
    assert abs(churned - short).max() > 1e-3
    with pytest.raises(ValueError, match="sampler must be one of"):
        PLAIN.sample(2, sampler="EDM")


UNCONDITIONAL = Model(exact_system(condition=Labels(3)), {}, SHAPE, name="unconditional")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: PLAIN.batches(guidance_scale=2.0), "guidance_scale=2.0 needs a conditional model or a classifier"),
        (
            lambda: UNCONDITIONAL.batches(guidance_scale=2.0),
            r"trained without its condition now and then: condition.drop=0.1",
        ),
        (
            lambda: PLAIN.batches(classifier=replace(CLASSIFIER, shape=(4, 4, 1))),
            r"judge was trained for \(4, 4, 1\), plain draws \(2, 2, 1\)",
        ),
        (
            lambda: PLAIN.batches(classifier=replace(CLASSIFIER, system=replace(CLASSIFIER.system, process=VP()))),
            r"judge was trained on VP\(.*\), plain on Flow\(\)",
        ),
        (
            lambda: LABELLED.batches(
                classifier=replace(CLASSIFIER, system=replace(CLASSIFIER.system, network=ExactClassifier(7)))
            ),
            "toy knows 3 classes, judge 7: they must be equal",
        ),
        (lambda: PROMPTED.batches(classifier=CLASSIFIER), "prompted takes prompts, judge labels: they cannot guide"),
        (lambda: LABELLED.batches(threshold=2.0), "0 < quantile <= 1"),
        (lambda: LABELLED.batches(interval=(2.0, 1.0), guidance_scale=2.0), "low < high"),
        (lambda: LABELLED.batches(steps=0), "steps must be a whole number, at least 1 and below 1000001, got 0"),
        (lambda: LABELLED.batches(edit=vary(PLAIN, np.zeros((1, *SHAPE)), 2.0)), "strength must be .* got 2.0"),
        (lambda: LABELLED.batches(edit=Edit(noise=np.zeros((1, 3)))), r"noise must be floats of shape \(16, 2, 2, 1\)"),
    ],
)
def test_bad_calls_end_in_one_clear_error_at_once(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# --- from a run -----------------------------------------------------------------------------------------------------

TRAINED = replace(
    toy.config,
    training=replace(
        toy.config.training, steps=6, save_every=2, show_every=100, placing="jit", keep=3,
        averages=(Ema(0.5), PowerEma(0.1), PowerEma(0.2)),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    Experiment(TRAINED, folder).train()
    return Experiment(TRAINED, folder)


def states(run):
    """What each checkpoint holds, read without the code in question."""
    like = jax.tree.map(
        lambda leaf: leaf.update(sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])), run.state_shapes
    )
    checkpoints = Checkpoints(run.folder / "checkpoints")
    found = {step: checkpoints.restore(like, step) for step in checkpoints.steps}
    checkpoints.close()
    return found


def untrained(config, folder):
    """A run with its first state for a checkpoint."""
    run = Experiment(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    about.write(run, run.trainer, None)
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    checkpoints.save(0, jax.jit(run._start, static_argnums=0)(run.shape, 0))
    checkpoints.close()
    return run


def assert_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_a_model_is_loaded_as_it_was_trained(run, monkeypatch):
    """Without its data."""
    saved = states(run)
    monkeypatch.setattr(Digits, "open", lambda self: pytest.fail("the data were opened"))
    model = load(run.folder)
    assert sorted(saved) == [2, 4, 6]
    assert (model.system, model.shape, model.image_shape) == (TRAINED.system, (8, 8, 1), (8, 8, 1))
    assert model.classes == tuple("0123456789")
    assert (model.codec, model.name) == (None, f"{run.folder} at step 6")
    assert_equal(model.params, saved[6].ema[0])
    assert_equal(load(run.folder, 2).params, saved[2].ema[0])
    assert load(str(run.folder), 4).name == f"{run.folder} at step 4"


def test_any_average_is_loaded(run):
    saved = states(run)
    assert_equal(load(run.folder, average=1).params, saved[6].ema[1])
    assert_equal(load(run.folder, 4, average=2).params, saved[4].ema[2])
    assert_equal(load(run.folder, 4, average=None).params, saved[4].params)
    assert load(run.folder, average=1).name.endswith("at step 6, average 1")
    assert load(run.folder, average=None).name.endswith("at step 6, its parameters")


def test_an_average_of_a_width_comes_from_all_checkpoints_up_to_the_step(run):
    saved = states(run)
    known = load(run.folder, average=0.2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), known.params, saved[6].ema[2])
    snapshots = [(width, at, saved[at].ema[i]) for at in (2, 4) for i, width in ((1, 0.1), (2, 0.2))]
    step, params = parameters_of(run, 4, 0.15)
    assert step == 4
    assert_equal(params, averages.profile(0.15, 4, snapshots))
    assert load(run.folder, 4, 0.15).name.endswith("at step 4, average 0.15")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"step": 3}, "has no checkpoint of step 3: it has 2, 4, 6"),
        ({"step": 3, "average": 0.15}, "has no checkpoint of step 3: it has 2, 4, 6"),
        ({"step": 1, "average": 0.15}, "has no checkpoint of step 1: it has 2, 4, 6"),
        ({"average": 3}, r"has the averages 0 Ema\(.*\), 1 PowerEma\(.*\), 2 PowerEma\(.*\); got 3"),
        ({"average": -1}, r"has the averages 0 Ema\(.*; got -1"),
        ({"average": 0.3}, "the width of an average must be above 0 and below 0.28, got 0.3"),
        ({"average": 0.0}, "the width of an average must be above 0"),
    ],
    ids=str,
)
def test_what_a_run_does_not_have_is_refused(options, says, run):
    with pytest.raises(ValueError, match=says):
        load(run.folder, **options)


def test_it_draws_as_it_would_in_the_run(run):
    model = load(run.folder)
    x = model.sample(6, labels=["3", 7], guidance_scale=2.0, seed=1)
    assert x.shape == (6, 8, 8, 1)
    assert abs(x).max() <= 1
    np.testing.assert_array_equal(model.sample([5], labels=[3, "7"], guidance_scale=2.0, seed=1)[0].shape, x[5].shape)
    np.testing.assert_allclose(model.sample([5], labels=[3, "7"], guidance_scale=2.0, seed=1)[0], x[5], atol=1e-5)


@pytest.mark.parametrize("opened", [load, load_classifier])
def test_folders_without_a_run_or_checkpoint_are_refused(opened, tmp_path):
    with pytest.raises(ValueError, match=r"is not the folder of a run: it has no config\.json"):
        opened(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        opened(tmp_path)


@pytest.mark.parametrize("average", [0, None, 0.15])
def test_a_run_without_a_checkpoint_is_refused(average, tmp_path):
    run = Experiment(TRAINED, tmp_path)
    about.write(run, run.trainer, None)
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load(tmp_path, average=average)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="has no checkpoint"):
        load(tmp_path, average=average)


def test_a_damaged_checkpoint_is_refused(tmp_path, monkeypatch):
    config = replace(TRAINED, training=replace(TRAINED.training, averages=(PowerEma(0.1),)))
    with monkeypatch.context() as patch:
        patch.setattr("jaxdiff.training.checkpoint.fingerprint", lambda tree: fingerprint(tree) + 1)
        folder = untrained(config, tmp_path).folder
    for average in (0, None, 0.15):
        with pytest.raises(ValueError, match=r"checkpoint .*/0 is not what was written: a file has changed"):
            load(folder, average=average)


# --- latent models and classifiers ----------------------------------------------------------------------------------

TINY = Autoencoder(1, 2, 4, (1, 2), 1, attention=False, groups=2)


def quick(system, **fields):
    training = replace(TRAINED.training, averages=(Ema(0.5),))
    return Config(system=system, data=Digits(), batch_size=16, augment=Augment(), training=training, **fields)


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """A latent model of 4x4x2, its autoencoder, and a classifier, none of them trained."""
    folder = tmp_path_factory.mktemp("latent")
    untrained(quick(Autoencoding(TINY)), folder / "autoencoder")
    system = Diffusion(
        MLP((8,)), process=Flow(), c_noise=time, codec=str(folder / "autoencoder"), grid=grids.Uniform(), steps=2
    )
    untrained(quick(system), folder / "latent")
    (folder / "autoencoder").rename(folder / "gone")  # a run has its own copy
    return folder


def test_a_latent_model_from_its_folder_to_images(latent):
    model, images = load(latent / "latent"), np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1))
    assert (model.shape, model.image_shape) == ((4, 4, 2), (8, 8, 1))
    z = model.encoded(images)
    np.testing.assert_allclose(z, jax.jit(model.codec.encode)(images), atol=1e-4)
    drawn = model.sample(4, edit=vary(model, images[:2], 0.5))
    z_t = 0.5 * z[[0, 1, 0, 1]] + 0.5 * np.stack([seed_noise(model, 0, i) for i in range(4)])  # then a single step
    x_0 = jax.jit(jax.vmap(model.denoiser(), in_axes=(0, None)))(z_t, 0.5)
    np.testing.assert_allclose(drawn, jax.jit(model.codec.decode)(x_0), atol=1e-4)
    with pytest.raises(ValueError, match=r"takes images as floats in \[-1, 1\], of shape \(n, 8, 8, 1\), got float32"):
        model.encoded(z)


def test_a_model_says_what_it_is_without_its_numbers(latent):
    model = load(latent / "latent")
    said, count = repr(model).splitlines(), sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert said[0] == f"{latent / 'latent'} at step 0: latent diffusion, images of 8x8x1"
    about = [f"MLP with {count:,} parameters, Flow()", f"sampled by {samplers.DDPM()}, 2 steps"]
    assert [line.strip() for line in said[1:]] == about


def test_what_is_no_diffusion_model_draws_nothing(latent):
    with pytest.raises(ValueError, match="trained Autoencoding, which draws no images: give another --workdir"):
        load(latent / "gone")
    with pytest.raises(ValueError, match="trained Diffusion, no classifier"):
        load_classifier(latent / "latent")


def test_a_classifier_is_loaded_and_guides(tmp_path):
    network = ClassifierNet(channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, classes=10)
    untrained(quick(Classification(network, Flow(), c_noise=time)), tmp_path / "judge")
    judge = load_classifier(tmp_path / "judge")
    assert (judge.system.network, judge.shape, judge.name) == (network, (8, 8, 1), str(tmp_path / "judge"))
    with pytest.raises(ValueError, match="trained Classification, which draws no images"):
        load(tmp_path / "judge")
    ten = Model(toy.config.system, {}, (8, 8, 1))
    assert ten.denoiser(2.0, judge).denoise.log_prob.params is judge.params


def test_classes_are_those_of_the_data(run, tmp_path):
    assert run.classes == Run(TRAINED, run.folder).classes == tuple("0123456789")
    (tmp_path / "data.json").write_text(json.dumps({"image": [8, 8, 1], "classes": None}))
    assert Run(TRAINED, tmp_path).classes == ()
