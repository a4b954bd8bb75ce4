"""Averages against their closed-form weights, and profiles put together afterwards against ones that were tracked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.training import Ema, PowerEma
from jaxdiff.training.averages import average, gamma_of, profile


def tracked(rule, values, at=()):
    """The average after the last of the values, and after those numbered in `at`."""
    step = jax.jit(lambda ema, value, number: average(ema, value, rule.share(number)))
    ema, snapshots = {"w": jnp.zeros_like(values[0])}, {}
    for number, value in enumerate(values):
        ema = step(ema, {"w": value}, jnp.float32(number))
        if number + 1 in at:
            snapshots[number + 1] = ema
    return ema["w"], snapshots


def walk(steps, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(steps, 3)), 0).astype(np.float32)


def test_a_moving_average_forgets_geometrically():
    values = walk(50)
    weights = 0.1 * 0.9 ** np.arange(50)[::-1]
    np.testing.assert_allclose(tracked(Ema(0.9, warmup=False), values)[0], weights @ values, rtol=1e-5)


def test_warm_up_shortens_an_average_at_first():
    share = Ema(0.9999).share
    np.testing.assert_allclose([share(jnp.float32(n)) for n in (0, 8, 90, 10**6)], [0.9, 0.5, 0.09, 1e-4], rtol=1e-6)


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_gammas_of_the_paper(width, gamma):
    assert gamma_of(width) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.2, 0.27])
def test_the_width_is_the_deviation_of_the_weights(width):
    t = (np.arange(100_000) + 0.5) / 100_000
    density = t ** gamma_of(width)
    mean = np.average(t, weights=density)
    assert np.sqrt(np.average((t - mean) ** 2, weights=density)) == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize("width", [0.05, 0.2])
def test_powers_against_their_closed_form(width):
    values, power = walk(200), gamma_of(width) + 1
    weights = np.diff((np.arange(201) / 200) ** power)  # all that was before step n stays by (n / (n + 1))^power
    np.testing.assert_allclose(tracked(PowerEma(width), values)[0], weights @ values, rtol=2e-4)


def test_a_profile_put_together_is_the_one_tracked():
    values = walk(1200, seed=3)
    at = range(100, 1201, 100)
    snapshots = [
        (width, step, tree) for width in (0.05, 0.1) for step, tree in tracked(PowerEma(width), values, at)[1].items()
    ]
    wanted = tracked(PowerEma(0.07), values)[0]
    near = np.linalg.norm(profile(0.07, 1200, snapshots)["w"] - wanted)
    nearest = min(np.linalg.norm(tree["w"] - wanted) for _, step, tree in snapshots if step == 1200)
    assert near < 0.02 * nearest


def test_a_profile_that_was_tracked_is_given_back():
    values = walk(300)
    last, snapshots = tracked(PowerEma(0.1), values, (150, 300))
    made = profile(0.1, 300, [(0.1, step, tree) for step, tree in snapshots.items()])
    np.testing.assert_allclose(made["w"], last, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Ema(1.0), "0 <= rate < 1"),
        (lambda: Ema(-0.1), "0 <= rate < 1"),
        (lambda: PowerEma(0.0), "0 < width < 0.28"),
        (lambda: PowerEma(0.3), "0 < width < 0.28"),
        (lambda: profile(0.1, 100, []), "at least one snapshot"),
    ],
)
def test_bad_averages_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
