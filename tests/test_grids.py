"""Grids against published lists of times, and against their own definition."""

import jax.numpy as jnp
import numpy as np
import pytest
from systems import PROCESSES, name

from jaxdiff.core import grids
from jaxdiff.core.process import VE, VP, Flow, LinearVE
from jaxdiff.core.tables import Discrete, LinearBetas

EDM_18 = [80, 57.586, 40.786, 28.375, 19.352, 12.910, 8.4009, 5.3152, 3.2568, 1.9233]
EDM_18 += [1.0882, 0.58535, 0.29644, 0.13952, 0.059947, 0.022935, 0.007528, 0.002, 0]


def table_indices(grid, steps):
    return np.round(np.asarray(Discrete().index(grid(Discrete(), steps)[:-1]))).astype(int)[::-1]


def test_edm_grid():
    np.testing.assert_allclose(grids.Karras()(LinearVE(), 18) * 80, EDM_18, rtol=5e-5)


def test_spacings_of_a_table():
    np.testing.assert_array_equal(table_indices(grids.Leading(), 25), np.arange(0, 1000, 40))
    np.testing.assert_array_equal(table_indices(grids.Leading(offset=1), 10), np.arange(1, 1000, 100))
    np.testing.assert_array_equal(table_indices(grids.Trailing(), 10), np.arange(99, 1000, 100))
    respaced = table_indices(grids.Linspace(), 250)
    np.testing.assert_array_equal(respaced[[0, 1, 2, -1]], [0, 4, 8, 999])
    for grid in (grids.Leading(), grids.Trailing(), grids.Linspace()):
        np.testing.assert_array_equal(table_indices(grid, 1000), np.arange(1000))


@pytest.mark.parametrize("entries", [1, 2, 7, 20, 300, 1000])
def test_every_number_of_steps_over_a_table(entries):
    """As many entries as were asked for, each once, and the last among them, but for Leading's even stride."""
    for steps in range(1, entries + 1):
        walked = [grid().indices(entries, steps) for grid in (grids.Leading, grids.Trailing, grids.Linspace)]
        for indices in walked:
            assert len(indices) == steps
            assert indices[0] >= 0
            assert np.all(np.diff(indices) > 0)
        leading, trailing, linspace = (indices[-1] for indices in walked)
        assert leading == (steps - 1) * (entries // steps)
        assert trailing == linspace == entries - 1
        if steps < entries:
            down = grids.Linspace(to_data=False).indices(entries, steps)
            assert (down[0], down[-1], len(down)) == (0, entries - 1, steps + 1)
            assert np.all(np.diff(down) > 0)


@pytest.mark.parametrize("steps", [1, 7, 23, 300])
@pytest.mark.parametrize("grid", [grids.Trailing(), grids.Linspace()], ids=str)
def test_these_grids_start_from_pure_noise(grid, steps):
    times = np.asarray(grid(Discrete(LinearBetas(300)), steps))
    assert len(times) == steps + 1
    assert times[0] == 1


def test_a_table_can_be_left_at_its_first_entry():
    table = Discrete()
    for grid, steps in (
        (grids.Leading(to_data=False), 9),
        (grids.Trailing(to_data=False), 10),
        (grids.Linspace(to_data=False), 10),
    ):
        times = grid(table, 10)
        assert len(times) == steps + 1
        assert float(times[-1]) == pytest.approx(1e-3)


def test_uniform_and_quadratic():
    np.testing.assert_allclose(grids.Uniform()(VP(), 4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(grids.Quadratic()(VP(), 4), [1, 0.5625, 0.25, 0.0625, 0])
    np.testing.assert_allclose(grids.Uniform(0.9, 0.1)(VP(), 4), [0.9, 0.7, 0.5, 0.3, 0.1], rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_log_snr_grid_is_even_and_in_range(process):
    times = grids.LogSNR(to_data=False)(process, 16)
    assert float(times[0]) == pytest.approx(process.t_max)
    assert float(times[-1]) == pytest.approx(process.t_min)
    steps = np.diff(process.log_snr(times))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.01)
    assert len(grids.LogSNR()(process, 16)) == 17
    assert float(grids.LogSNR()(process, 16)[-1]) == 0


@pytest.mark.parametrize(
    "grid",
    [
        grids.Uniform(),
        grids.Quadratic(),
        grids.LogSNR(),
        grids.Karras(),
        grids.Leading(),
        grids.Trailing(),
        grids.Linspace(),
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_every_grid_takes_any_number_of_steps(grid, steps):
    times = grid(Discrete(LinearBetas(20, 0.001, 0.7)), steps)
    assert len(times) == steps + 1
    assert float(times[-1]) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: grids.Uniform()(VP(), 0), "steps must be a whole number, at least 1 and below 1000001, got 0"),
        (lambda: grids.Karras()(VP(), -3), "steps must be a whole number, at least 1 and below 1000001, got -3"),
        (lambda: grids.Linspace()(Discrete(), 0), "steps must be a whole number, at least 1"),
        (
            lambda: grids.Trailing()(Discrete(), 2.5),
            "steps must be a whole number, at least 1 and below 1000001, got 2.5",
        ),
        (lambda: grids.Uniform()(30, VP()), r"called as grid\(process, steps\)"),
        (lambda: grids.Uniform(power=0), "power > 0"),
        (lambda: grids.Karras(rho=0), "rho > 0"),
        (lambda: grids.Leading(offset=999)(Discrete(), 10), "offset must leave 10 steps within the 1000 entries"),
        (lambda: grids.LogSNR(first=1.0)(Flow(), 10), "finite from t = 0.999 to 0.001"),
        (lambda: grids.Karras(first=80.0)(VP(), 10), "within"),
        (lambda: grids.checked(np.array([1, 1 - 1e-9, 0.0])), "must fall strictly"),
        (lambda: grids.Linspace()(Discrete(), 1001), "at most the 1000 entries of the table, got 1001"),
        (
            lambda: grids.Linspace(to_data=False)(Discrete(), 1000),
            "without to_data steps must be below the 1000 entries",
        ),
        (lambda: grids.Leading()(Flow(), 10), "Leading walks the entries of a table, and Flow.* has none"),
        (lambda: grids.Uniform(0.1, 0.9)(VP(), 5), "must fall strictly"),
        (lambda: grids.LogSNR(first=0.1, last=0.9)(VE(), 5), "must fall strictly"),
        (lambda: grids.checked(jnp.array([0.0, 0.5, 1.0])), "must fall strictly"),
        (lambda: grids.checked(jnp.array([1.0, 0.5, 0.5])), "must fall strictly"),
        (lambda: grids.checked(jnp.array([1.2, 0.5])), "from at most 1"),
        (lambda: grids.checked(jnp.array([1.0, jnp.nan])), "must fall strictly"),
        (lambda: grids.checked(jnp.array([1.0])), "at least two numbers"),
    ],
)
def test_bad_grids_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
