"""Noise: normal, independent, and a function of (seed, index, step) alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from benchmarks.solver_order import double_precision
from jaxdiff.core.denoise import NetworkDenoiser
from jaxdiff.core.losses import DenoisingLoss
from jaxdiff.core.rng import image_key, normal, uniform_bits
from jaxdiff.core.tables import Discrete


def test_noise_is_standard_normal():
    z = np.asarray(normal(image_key(0, 0), (400_001,)), np.float64)  # an odd number: the last word has no partner
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert abs(z.mean()) < 4 / len(z) ** 0.5
    assert z.std() == pytest.approx(1, abs=4 / (2 * len(z)) ** 0.5)
    assert stats.kurtosis(z) == pytest.approx(0, abs=4 * (24 / len(z)) ** 0.5)
    assert np.isfinite(z).all()


def test_images_and_steps_are_independent_of_each_other():
    keys = jax.vmap(lambda i: image_key(3, i))(jnp.arange(200))
    draw = jax.vmap(lambda key, step: normal(jax.random.fold_in(key, step), (500,)), in_axes=(0, None))
    rows = np.concatenate([draw(keys, 0), draw(keys, 1)])
    correlations = np.corrcoef(rows)[np.triu_indices(400, 1)]
    assert abs(correlations).max() < 6 / 500**0.5
    assert correlations.std() == pytest.approx(500**-0.5, rel=0.02)
    assert stats.kstest(rows[:, 0], "norm").pvalue > 0.01  # first numbers of many keys
    assert stats.kstest(rows[:, 1], "norm").pvalue > 0.01


def test_the_bits_are_threefry_of_the_counters():
    """Against the published vector of Threefry-2x32 with 20 rounds, key and counter zero (Salmon et al. 2011)."""
    key = jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32), impl="threefry2x32")
    assert [hex(int(word)) for word in threefry_2x32(jnp.zeros(2, jnp.uint32), jnp.zeros(2, jnp.uint32))] == [
        "0x6b200159",
        "0x99ba4efe",
    ]
    np.testing.assert_array_equal(
        uniform_bits(key, 3), threefry_2x32(jnp.zeros(2, jnp.uint32), jnp.arange(4, dtype=jnp.uint32))[:3]
    )


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_of_any_kind_draw_noise_and_images_are_what_they_were(kind):
    z = np.asarray(normal(jax.random.key(0, impl=kind), (100_000,)), np.float64)
    assert stats.kstest(z, "norm").pvalue > 0.01
    before = normal(image_key(3, 7), (4,))
    with jax.default_prng_impl(kind):
        np.testing.assert_array_equal(normal(image_key(3, 7), (4,)), before)
        model = NetworkDenoiser(lambda x, t: 0 * x, Discrete())
        assert np.isfinite(DenoisingLoss()(model, jax.random.key(0), before))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_noise_is_finite(dtype):
    z = normal(image_key(0, 0), (100_000,), dtype)
    assert z.dtype == dtype
    assert np.isfinite(z.astype(jnp.float32)).all()


def test_single_and_double_precision_agree():
    key = image_key(5, 9)
    single = np.asarray(normal(key, (1000,)))
    with double_precision():
        double = np.asarray(normal(key, (1000,), jnp.float64))
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=2e-4, atol=1e-6)
