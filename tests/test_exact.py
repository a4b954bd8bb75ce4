"""The oracle of the other tests, against numerical integration."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.core.exact import Mixture
from jaxdiff.core.process import VP, Flow


@pytest.mark.parametrize("process", [VP(), Flow()], ids=str)
def test_mixture_against_the_integral_over_x_0(process):
    mixture = Mixture((-1.0, 0.5, 2.0), 0.3, (0.2, 0.5, 0.3))
    x_0 = np.linspace(-6, 8, 20_001)
    each = np.array(mixture.shares)[:, None] * np.exp(-((x_0 - np.array(mixture.means)[:, None]) ** 2) / (2 * 0.3**2))
    for t in (0.1, 0.6):
        point = process.at(t)
        for x_t in (-1.5, 0.4, 3.0):
            likely = each * np.exp(-((x_t - float(point.alpha) * x_0) ** 2) / (2 * float(point.sigma) ** 2))
            x, t_ = jnp.array([x_t]), jnp.asarray(t)
            expected = (x_0 * likely.sum(0)).sum() / likely.sum()
            assert float(mixture.denoise(process, x, t_)[0]) == pytest.approx(expected, rel=1e-3, abs=1e-4)
            np.testing.assert_allclose(
                jnp.exp(mixture.log_posterior(process, x, t_)), likely.sum(1) / likely.sum(), atol=1e-4
            )
            one = (x_0 * likely[1]).sum() / likely[1].sum()
            assert float(mixture.denoise(process, x, t_, jnp.asarray(1))[0]) == pytest.approx(one, rel=1e-3, abs=1e-4)


def test_means_may_be_points_and_images_of_any_rank():
    corners = Mixture(((-1.0, 0.0), (1.0, 0.5)), 0.1, (0.5, 0.5))
    np.testing.assert_allclose(corners.denoise(VP(), jnp.array([-0.9, 0.1]), jnp.asarray(1e-3)), [-0.9, 0.1], atol=0.02)
    assert Mixture().denoise(VP(), jnp.zeros((4, 4, 3)), jnp.asarray(0.5)).shape == (4, 4, 3)


@pytest.mark.parametrize(
    "make", [lambda: Mixture((0.0, 1.0)), lambda: Mixture((0.0,), 0.5, (0.5,)), lambda: Mixture((0.0,), -1.0)]
)
def test_bad_mixtures_are_refused(make):
    with pytest.raises(ValueError, match="needs"):
        make()
