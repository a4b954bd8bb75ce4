"""One meaning of guidance scale, p(x) p(y|x)^scale; and the other transforms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.core import grids, samplers, sampling
from jaxdiff.core.c_noise import time
from jaxdiff.core.denoise import NetworkDenoiser
from jaxdiff.core.exact import Mixture
from jaxdiff.core.guidance import (
    Autoguidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Clip,
    DynamicThreshold,
    Unconditional,
    Within,
)
from jaxdiff.core.predictions import velocity
from jaxdiff.core.process import VE, VP, Cosine, Flow, LinearVE, SubVP
from jaxdiff.core.tables import Discrete

pytestmark = pytest.mark.usefixtures("optimised")

MODES = Mixture((-1.0, 1.0), 0.7, (0.6, 0.4))
LABEL, NULL = 1, -1
SCALES = (0.0, 1.0, 3.0)


def unconditional(process):
    return partial(MODES.denoise, process)


def conditional(process):
    return lambda x, t, *label: MODES.denoise(process, x, t, jnp.asarray(LABEL))


def log_prob(process):
    return lambda x, t, *label: MODES.log_posterior(process, x, t)[LABEL]


def guided(kind, process, scale):
    """Four ways to say the same: as functions of (x, t, label)."""
    return {
        "classifier": lambda x, t, y: ClassifierGuidance(unconditional(process), log_prob(process), process, scale)(
            x, t
        ),
        "classifier on a conditional model": ClassifierGuidance(
            conditional(process), log_prob(process), process, scale, conditional=True
        ),
        "two classifiers": lambda x, t, y: ClassifierGuidance(
            ClassifierGuidance(unconditional(process), log_prob(process), process, scale / 3),
            log_prob(process),
            process,
            scale * 2 / 3,
        )(x, t),
        "classifier-free": ClassifierFreeGuidance(unconditional(process), NULL, scale),
    }[kind]


KINDS = ("classifier", "classifier on a conditional model", "two classifiers", "classifier-free")


@pytest.mark.parametrize(
    "process", [VP(), SubVP(), Cosine(), Flow(), VE(), LinearVE(), Discrete()], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize("scale", SCALES)
def test_all_kinds_of_guidance_are_the_same_denoiser(process, scale):
    """With exact networks they agree with each other and with the score of p(x_t) p(y|x_t)^scale, by autodiff."""
    point = process.at(0.6)

    def log_density(x):
        variance = (point.alpha * 0.7) ** 2 + point.sigma**2
        each = jnp.log(jnp.array([0.6, 0.4])) - (x[0] - point.alpha * jnp.array([-1.0, 1.0])) ** 2 / (2 * variance)
        return jax.nn.logsumexp(each) + scale * jax.nn.log_softmax(each)[LABEL]

    for value in (-2.0, -0.3, 0.0, 1.1):
        x = jnp.array([value])
        expected = (x + point.sigma**2 * jax.grad(log_density)(x)) / point.alpha
        for kind in KINDS:
            got = guided(kind, process, scale)(x, point.t, jnp.asarray(LABEL))
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * max(1.0, float(point.ratio)), err_msg=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_mode_shares_follow_the_scale(kind, scale):
    """Annealed Langevin dynamics samples the very density whose score guidance gives, at the last noise level.

    Ancestral samplers do so at scales 0 and 1; beyond, the guided scores are no longer those of one diffusion.
    """
    process, count = VE(0.3, 20.0), 4096
    level = process.at(process.t_min)
    grid = np.linspace(-6, 6, 4001)
    each = np.array([[0.6], [0.4]]) * np.exp(
        -((grid - np.array([[-1.0], [1.0]])) ** 2) / (2 * (0.49 + float(level.sigma) ** 2))
    )
    density = each.sum(0) * (each[LABEL] / each.sum(0)) ** scale
    share = density[grid > 0].sum() / density.sum()
    mean = (grid * density).sum() / density.sum()

    sampler = samplers.Langevin(snr=0.25, corrections=60)
    x = sampling.sample(
        guided(kind, process, scale), process, sampler, grids.LogSNR(to_data=False)(process, 30),
        shape=(1,), indices=count, batch_size=count, conditions=np.full(count, LABEL), devices=jax.devices()[:1],
    )  # fmt: skip
    assert (x > 0).mean() == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)
    assert x.mean() == pytest.approx(mean, abs=4 * float(x.std()) / count**0.5)


@pytest.mark.parametrize(("scale", "share"), [(0.0, 0.4), (1.0, 1.0), (3.0, 1.0)])
@pytest.mark.parametrize("sampler", [samplers.DDPM(), samplers.DPMpp2M(), samplers.EDM(churn=10.0)], ids=str)
def test_mode_shares_of_separated_modes_by_ordinary_samplers(sampler, scale, share):
    apart = Mixture((-1.0, 1.0), 0.1, (0.6, 0.4))
    process, count = VP(), 4096
    by_classifier = ClassifierGuidance(
        lambda x, t, y: apart.denoise(process, x, t),
        lambda x, t, y: apart.log_posterior(process, x, t)[y],
        process,
        scale,
    )
    for denoise in (by_classifier, ClassifierFreeGuidance(partial(apart.denoise, process), NULL, scale)):
        x = sampling.sample(
            denoise, process, sampler, grids.LogSNR()(process, 60),
            shape=(1,), indices=count, batch_size=count, conditions=np.full(count, LABEL), devices=jax.devices()[:1],
        )  # fmt: skip
        assert (x > 0).mean() == pytest.approx(share, abs=4 * (0.6 * 0.4 / count) ** 0.5 if share < 1 else 1e-9)


def test_classifier_free_guidance_is_one_batched_call_on_any_tree_of_conditions():
    calls = []

    def model(x, t, condition):
        calls.append(1)
        return x * condition["text"].sum() + condition["label"]

    null = {"text": jnp.zeros((4, 2)), "label": 0.0}
    given = {"text": jnp.ones((4, 2)), "label": jnp.asarray(5.0)}
    out = ClassifierFreeGuidance(model, null, 3.0)(jnp.array([1.0, 2.0]), jnp.asarray(0.5), given)
    np.testing.assert_allclose(out, 3 * (8 * np.array([1.0, 2.0]) + 5))
    assert len(calls) == 1


def test_a_classifier_of_labels_sits_on_an_unconditional_network():
    process = VP()
    denoise = ClassifierGuidance(
        Unconditional(partial(MODES.denoise, process)),
        lambda x, t, y: MODES.log_posterior(process, x, t)[y],
        process,
        2.0,
    )
    x, t = jnp.array([0.2]), jnp.asarray(0.5)
    np.testing.assert_allclose(
        denoise(x, t, jnp.asarray(LABEL)), guided("classifier-free", process, 2.0)(x, t, jnp.asarray(LABEL)), rtol=1e-4
    )


def test_a_null_label_of_minus_one_stays_so_beside_unsigned_labels():
    out = ClassifierFreeGuidance(lambda x, t, y: x * y, -1, 0.0)(
        jnp.ones(2), jnp.asarray(0.5), jnp.asarray(3, jnp.uint8)
    )
    np.testing.assert_array_equal(out, [-1, -1])


def test_bad_transforms_are_refused():
    for make in (lambda: Clip(None, 1.0, -1.0), lambda: Within(None, None, VP(), 2.0, 0.1)):
        with pytest.raises(ValueError, match="low < high"):
            make()
    with pytest.raises(ValueError, match="0 < quantile <= 1"):
        DynamicThreshold(None, 99.5)
    with pytest.raises(ValueError, match="needs a condition"):
        ClassifierFreeGuidance(lambda x, t, y: x, 0, 2.0)(jnp.ones(2), jnp.asarray(0.5))


def test_rescale_brings_the_deviation_back():
    model = lambda x, t, y: x * (1 + 2 * y)  # noqa: E731
    x, t, y = jnp.array([0.5, -1.0, 2.0]), jnp.asarray(0.5), jnp.asarray(1.0)
    plain = ClassifierFreeGuidance(model, 0.0, 3.0)(x, t, y)
    np.testing.assert_allclose(plain, 7 * x)
    np.testing.assert_allclose(ClassifierFreeGuidance(model, 0.0, 3.0, rescale=0.7)(jnp.zeros(3), t, y), 0)
    np.testing.assert_allclose(ClassifierFreeGuidance(model, 0.0, 3.0, rescale=1.0)(x, t, y), 3 * x, rtol=1e-6)
    np.testing.assert_allclose(
        ClassifierFreeGuidance(model, 0.0, 3.0, rescale=0.7)(x, t, y), (0.7 * 3 + 0.3 * 7) * x, rtol=1e-6
    )


@pytest.mark.parametrize("rescale", [0.7, 1.0])
def test_rescale_is_the_papers_where_nothing_is_left_of_the_data_and_of_the_clean_image_elsewhere(rescale):
    """Lin et al., equations 14 to 16, of the velocity that a network says; at pure noise that is -x_0."""
    process, rng = Cosine(), np.random.default_rng(0)
    said, x = rng.normal(size=(2, 50)), jnp.asarray(rng.normal(size=50), jnp.float32)  # under null and condition
    network = lambda x, t, y: jnp.asarray(said, jnp.float32)[y]  # noqa: E731
    model = NetworkDenoiser(network, process, velocity, c_noise=time)
    guided = ClassifierFreeGuidance(model, 0, 3.0, rescale)
    v = said[0] + 3 * (said[1] - said[0])
    v = rescale * v * said[1].std() / v.std() + (1 - rescale) * v
    np.testing.assert_allclose(guided(x, jnp.asarray(1.0), 1), -v, rtol=1e-5)
    half = jnp.asarray(0.5)
    x_0 = np.array([model(x, half, y) for y in (0, 1)], np.float64)
    plain = x_0[0] + 3 * (x_0[1] - x_0[0])
    deviation = rescale * x_0[1].std() + (1 - rescale) * plain.std()
    assert float(guided(x, half, 1).std()) == pytest.approx(deviation, rel=1e-5)


def test_classifier_free_guidance_has_a_gradient_where_the_image_is_flat():
    x, t, y = jnp.zeros(3), jnp.asarray(0.5), jnp.asarray(1.0)
    for rescale in (0.0, 0.7):
        guided = ClassifierFreeGuidance(lambda x, t, y: x * (1 + 2 * y), 0.0, 3.0, rescale)
        assert np.isfinite(jax.jacobian(lambda x, guided=guided: guided(x, t, y))(x)).all()


def test_the_gradient_is_float32_whatever_the_networks_compute_in():
    process, seen = VP(), []

    def half(x, t):
        seen.append(x.dtype)
        return -jnp.sum(x.astype(jnp.bfloat16) ** 2)

    x = jnp.array([0.1, 0.2], jnp.bfloat16)
    out = ClassifierGuidance(lambda x, t: x, half, process, 2.0)(x, jnp.asarray(0.5))
    assert seen == [jnp.float32]
    assert out.dtype == jnp.bfloat16


def test_a_classifier_says_nothing_where_nothing_is_left_of_the_data():
    out = ClassifierGuidance(lambda x, t: x, lambda x, t: -jnp.sum(x**2), Flow(), 5.0)(jnp.ones(2), jnp.asarray(1.0))
    np.testing.assert_array_equal(out, jnp.ones(2))


def test_within_runs_only_what_is_needed():
    ran = []
    process = LinearVE()

    def loud(name, value):
        def denoise(x, t):
            jax.debug.callback(lambda: ran.append(name))
            return jnp.full_like(x, value)

        return denoise

    both = jax.jit(Within(loud("guided", 1.0), loud("plain", 2.0), process, 0.5, 40.0))
    for sigma, value in ((0.1, 2), (0.6, 1), (39.0, 1), (41.0, 2)):
        np.testing.assert_array_equal(both(jnp.zeros(2), jnp.asarray(sigma / 80)), np.full(2, value))
    jax.effects_barrier()
    assert ran == ["plain", "guided", "guided", "plain"]


def test_autoguidance_and_thresholds():
    x, t = jnp.array([0.5, -4.0, 2.0]), jnp.asarray(0.5)
    good, bad = (lambda x, t: 2 * x), (lambda x, t: 1.5 * x)
    np.testing.assert_allclose(Autoguidance(good, bad, 1.0)(x, t), 2 * x)
    np.testing.assert_allclose(Autoguidance(good, bad, 3.0)(x, t), 3 * x)
    np.testing.assert_allclose(Clip(good)(x, t), [1, -1, 1])
    np.testing.assert_allclose(Clip(good, -5.0, 3.0)(x, t), [1, -5, 3])
    np.testing.assert_allclose(DynamicThreshold(good, 1.0)(x, t), 2 * x / 8)
    np.testing.assert_allclose(DynamicThreshold(good, 0.5)(x, t), [0.25, -1, 1])  # the median magnitude is 4
    np.testing.assert_allclose(DynamicThreshold(lambda x, t: x / 8)(x, t), x / 8)  # within range: left alone


def test_transforms_compose_and_a_new_scale_is_no_new_program(compiled):
    process, times = VP(), grids.LogSNR()(VP(), 8)
    model = partial(MODES.denoise, process)
    score = lambda x, t, y: MODES.log_posterior(process, x, t)[y]  # noqa: E731

    def stack(scale):
        free = ClassifierFreeGuidance(model, NULL, scale)
        both = ClassifierGuidance(Within(free, model, process, 0.0, 5.0), score, process, scale, conditional=True)
        return DynamicThreshold(Autoguidance(both, model, scale), 0.99)

    def draw(scale):
        return sampling.sample(
            stack(scale), process, samplers.DDIM(), times, shape=(3,), indices=8, conditions=np.arange(8) % 2
        )

    images = draw(1.5)
    assert np.isfinite(images).all()
    programs = len(compiled)
    assert programs > 0
    assert not np.array_equal(draw(2.5), images)
    assert len(compiled) == programs
