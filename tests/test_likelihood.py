"""Likelihoods against closed forms: Gaussian, mixture and rotated Gaussian, for all processes."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.stats import norm

from jaxdiff.core import likelihood, tables
from jaxdiff.core.exact import Mixture
from jaxdiff.core.likelihood import FlowODE, variational_bound
from jaxdiff.core.process import VE, VP, Cosine, Flow, LinearVE, PowerVE, SubVP
from jaxdiff.models import edm
from jaxdiff.models.likelihood import Likelihood, bits_per_dimension
from jaxdiff.models.model import Model

PROCESSES = [VP(), SubVP(), Cosine(), Flow(), VE(), PowerVE(200.0), LinearVE(), tables.Discrete()]
EACH = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
SIZE = 6
RANDOM = np.random.RandomState(3)
TURN = np.linalg.qr(RANDOM.randn(SIZE, SIZE))[0]
STRETCHED = TURN @ np.diag([0.02, 0.1, 0.2, 0.3, 0.5, 0.6]) @ TURN.T
APART = np.linspace(-1, 1, SIZE)
# shares, means and covariances of Gaussians, whose mean is 0, as that of the prior is
LAWS = {
    "gaussian": ([0.4, 0.6], [0 * APART, 0 * APART], [0.25 * np.eye(SIZE)] * 2),
    "mixture": ([0.3, 0.7], [0.7 * APART, -0.3 * APART], [0.09 * np.eye(SIZE), 0.04 * np.eye(SIZE)]),
    "rotated": ([0.5, 0.5], [0 * APART, 0 * APART], [STRETCHED] * 2),
}
IMAGES = jnp.asarray(0.4 * RANDOM.randn(4, SIZE), jnp.float32)


def denoise(law, process, x, t):
    """E[x_0 | x_t], by the formula of the conditional Gaussian."""
    shares, means, covariances = law
    alpha, sigma = process.alpha(t), process.sigma(t)

    def of_one(share, mean, covariance):
        total = alpha**2 * covariance + sigma**2 * jnp.eye(SIZE)
        gap = x - alpha * mean
        solved = jnp.linalg.solve(total, gap)
        score = jnp.log(share) - gap @ solved / 2 - jnp.linalg.slogdet(total)[1] / 2
        return score, mean + alpha * covariance @ solved

    scores, each = jax.vmap(of_one)(shares, means, covariances)
    return jax.nn.softmax(scores) @ each


def log_density(law, process, images):
    """In closed form, with numpy; of data with the little noise that they have where the ODE ends."""
    blur = float(process.at(process.t_min).ratio) ** 2
    each = []
    for share, mean, covariance in zip(*law, strict=True):
        total = covariance + blur * np.eye(SIZE)
        gap = np.asarray(images, float) - mean
        squares = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(total), gap)
        each.append(np.log(share) - (squares + np.linalg.slogdet(2 * math.pi * total)[1]) / 2)
    return np.logaddexp.reduce(each, 0)


def arrays(law):
    return tuple(jnp.asarray(np.array(part), jnp.float32) for part in law)


def bits(nats):
    return np.asarray(nats) / (SIZE * math.log(2))


@EACH
def test_the_ode_has_the_density_of_each_image_and_goes_both_ways(process):
    def both(law, x):
        noise, up = FlowODE().noise(partial(denoise, law, process), process, x)
        return up, *FlowODE().image(partial(denoise, law, process), process, noise)

    solve = jax.jit(jax.vmap(both, (None, 0)))
    for name, law in LAWS.items():
        up, back, down = solve(arrays(law), IMAGES)
        assert np.abs(bits(up - log_density(law, process, IMAGES))).max() < 1e-3, name
        np.testing.assert_allclose(back, IMAGES, atol=1e-3)
        np.testing.assert_allclose(bits(up), bits(down), atol=1e-3)


@EACH
def test_the_bound_is_not_below_the_truth_and_near_it(process):
    def bound(law, keys, x):
        return jax.vmap(lambda key: variational_bound(partial(denoise, law, process), process, x, key))(keys)

    bound = jax.jit(bound)
    for name, law in LAWS.items():
        for i, truth in enumerate(-log_density(law, process, IMAGES)):
            each = np.asarray(bound(arrays(law), jax.random.split(jax.random.key(i), 500), IMAGES[i]))
            error = each.std() / math.sqrt(len(each))
            assert truth - 4 * error < each.mean() < truth + 4 * error + 0.05 * SIZE, name


def test_fixed_steps_converge():
    process, law = Cosine(), LAWS["mixture"]
    model, exact = partial(denoise, arrays(law), process), log_density(law, process, IMAGES)
    errors = []
    for steps in (25, 50, 100):
        _, found = jax.jit(jax.vmap(lambda x, n=steps: FlowODE(steps=n).noise(model, process, x)))(IMAGES)
        errors.append(np.abs(bits(found - exact)).max())
    assert errors[0] < 0.1
    assert errors[-1] < 1e-3


def test_every_number_of_steps_ends():
    process = VP()
    model = partial(Mixture((0.0,), 0.5).denoise, process)
    for steps in (1, 2, 7, 49):
        _, found = FlowODE(steps=steps).noise(model, process, IMAGES[0])
        assert np.isfinite(found), steps


def test_probes_are_right_on_average_and_exact_where_the_jacobian_is_diagonal():
    probes = likelihood.rademacher(jax.random.key(0), 1, (SIZE,))
    assert set(np.unique(probes)) == {-1.0, 1.0}
    process, law = LinearVE(), LAWS["gaussian"]
    _, found = FlowODE().noise(partial(denoise, arrays(law), process), process, IMAGES[0], probes)
    assert abs(bits(found - log_density(law, process, IMAGES[:1])[0])) < 1e-3
    matrix = jnp.asarray(np.random.RandomState(0).randn(SIZE, SIZE), jnp.float32)
    value, exact = likelihood.with_divergence(lambda y: matrix @ y, IMAGES[0], None)
    np.testing.assert_allclose(value, matrix @ IMAGES[0], rtol=1e-6)
    np.testing.assert_allclose(exact, jnp.trace(matrix), rtol=1e-5)
    one = lambda key: likelihood.with_divergence(  # noqa: E731
        lambda y: matrix @ y, IMAGES[0], likelihood.rademacher(key, 1, (SIZE,))
    )[1]
    each = jax.vmap(one)(jax.random.split(jax.random.key(1), 2000))
    assert abs(np.mean(each) - exact) < 4 * np.std(each) / math.sqrt(len(each))


def test_a_gaussian_of_deviation_half_has_the_bits_that_the_field_says():
    x = 0.5 * jax.random.normal(jax.random.key(2), (2000, SIZE))
    process, mixture = VP(), Mixture((0.0,), 0.5)
    _, found = jax.jit(jax.vmap(lambda x: FlowODE().noise(partial(mixture.denoise, process), process, x)))(x)
    each = -bits(found) + 7
    assert abs(each.mean() - 8.0471) < 4 * each.std() / math.sqrt(len(each))


def test_the_discrete_bound_holds_for_whole_gray_levels():
    """Pixels of two levels with known shares: no model has less than their entropy, this one has nearly that."""
    levels, share = jnp.asarray([-0.5, 0.5]), 0.8

    def denoise(x, t):
        process = LinearVE()
        scores = -((x[:, None] - levels[None]) ** 2) / (2 * process.sigma(t) ** 2)
        weights = jax.nn.softmax(scores + jnp.log(jnp.asarray([1 - share, share]))[None])
        return weights @ levels

    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    x = jnp.where(jax.random.uniform(jax.random.key(0), (3000, SIZE)) < share, 0.5, -0.5)
    keys = jax.random.split(jax.random.key(1), len(x))
    bound = jax.jit(jax.vmap(lambda k, x: variational_bound(denoise, LinearVE(), x, k, 32, levels)))
    each = np.asarray(bound(keys, x)) / SIZE
    assert abs(each.mean() - entropy) < 4 * each.std() / math.sqrt(len(each))


# --- of a model -------------------------------------------------------------------------------------------------------


class Nothing(nn.Module):
    """With EDM's preconditioning F = 0 is the exact denoiser of N(0, sigma_data²)."""

    def __call__(self, x, c_noise, *condition):
        return jnp.zeros_like(x)


MODEL = Model(edm(Nothing()), {}, (4, 4, 1))
DATA = np.asarray(0.5 * jax.random.normal(jax.random.key(9), (11, 4, 4, 1)))


def gaussian(images):
    squares = (np.asarray(images, float).reshape(len(images), -1) ** 2).sum(1)
    return -(squares / 0.25 + 16 * math.log(2 * math.pi * 0.25)) / 2


def test_a_model_has_the_density_that_it_has():
    found = MODEL.log_likelihood(DATA)
    np.testing.assert_allclose(found, gaussian(DATA), atol=16e-3 * math.log(2))
    for how in (Likelihood(probes=1), Likelihood(ode=FlowODE(steps=60))):  # the Jacobian is diagonal: a probe is exact
        np.testing.assert_allclose(MODEL.log_likelihood(DATA, how=how), found, atol=16e-3 * math.log(2))
    np.testing.assert_allclose(MODEL.log_likelihood(DATA, batch_size=3), found, rtol=1e-5)
    bound = MODEL.log_likelihood(np.repeat(DATA[:1], 400, 0), how=Likelihood(bound=True))
    assert abs(bound.mean() - gaussian(DATA[:1])[0]) < 4 * bound.std() / 20


@pytest.mark.parametrize("dequantized", [False, True])
def test_stored_images_have_a_probability(dequantized):
    how = Likelihood(dequantized=dequantized)
    stored = np.abs(how.levels[None] - DATA.reshape(-1, 1)).argmin(1).reshape(DATA.shape).astype(np.uint8)
    at, half = how.levels[stored].astype(float), how.gap / 2
    exact = np.log(norm.cdf((at + half) / 0.5) - norm.cdf((at - half) / 0.5)).reshape(len(at), -1).sum(1)
    np.testing.assert_allclose(MODEL.log_likelihood(stored, how=how), exact, atol=0.05)
    bound = MODEL.log_likelihood(np.repeat(stored[:1], 400, 0), how=replace(how, bound=True))
    assert exact[0] - 0.3 < bound.mean() + 4 * bound.std() / 20
    assert bound.mean() < exact[0] + 4 * bound.std() / 20
    assert bits_per_dimension(exact, (4, 4, 1)).mean() == pytest.approx(8.05, abs=0.4)


def test_what_has_no_likelihood_is_one_line():
    latent = replace(MODEL, codec=object())
    for model, images, said in (
        (latent, DATA, "is a latent model"),
        (MODEL, DATA[:, :3], "draws"),
        (MODEL, DATA[:0], "draws"),
        (MODEL, DATA.astype(int), "images of uint8, or floats"),
    ):
        with pytest.raises(ValueError, match=said):
            model.log_likelihood(images)


def test_a_wrong_solver_is_refused():
    for fields in ({"rtol": 0.0}, {"atol": -1.0}, {"steps": 0}, {"max_steps": 0}, {"steps": 1.5}):
        with pytest.raises(ValueError, match=r"rtol|steps"):
            FlowODE(**fields)
