"""Processes against closed forms, published numbers, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import PROCESSES, name

from jaxdiff.core.process import VE, VP, Cosine, Flow, LinearVE, PowerVE, SubVP, posterior_variance, transition
from jaxdiff.core.tables import CosineBetas, Discrete, LinearBetas, ScaledLinearBetas, ZeroTerminalSNR

every_process = pytest.mark.parametrize("process", PROCESSES, ids=name)
TIMES = (0.06, 0.3, 0.5, 0.9)


def index_time(process, k):
    return float(process.time_of_index(k))


@pytest.mark.parametrize(
    ("betas", "entries", "published"),
    [
        (LinearBetas(), (0, 249, 499, 749, 999), (0.9999, 0.524085, 0.0785872, 0.00335055, 4.03583e-5)),
        (ScaledLinearBetas(), (499, 999), (0.277670, 0.00466010)),
        (CosineBetas(), (499,), (0.493844,)),
        (ZeroTerminalSNR(LinearBetas()), (499, 999), (0.0760288, 0.0)),
    ],
    ids=str,
)
def test_alpha_bar_of_published_tables(betas, entries, published):
    process = Discrete(betas)
    np.testing.assert_allclose(process.alpha_bar[list(entries)], published, rtol=6e-6, atol=1e-12)
    alphas = [float(process.alpha(index_time(process, k))) ** 2 for k in entries]
    np.testing.assert_allclose(alphas, published, rtol=1e-5, atol=1e-12)


def test_other_published_figures():
    assert CosineBetas()()[-1] == pytest.approx(0.999)
    assert float(Discrete(ScaledLinearBetas()).at(1.0).ratio) == pytest.approx(14.6146, abs=5e-5)
    assert float(VP().alpha(0.5)) == pytest.approx(0.281183, abs=5e-7)
    assert float(VP().sigma(0.5)) == pytest.approx(0.959654, abs=5e-7)
    assert float(VP().alpha(1.0)) == pytest.approx(0.00657159, abs=5e-8)
    assert float(VP().sigma(1.0)) == pytest.approx(0.9999784, abs=1e-7)
    assert float(SubVP().sigma(0.5)) == pytest.approx(0.920936, abs=5e-7)
    assert float(VE().sigma(0.5)) == pytest.approx(0.707107, abs=5e-7)


@pytest.mark.parametrize(
    ("t", "s", "published"), [(487, 486, 0.00979), (999, 998, 0.02), (420, 400, 0.14771), (980, 960, 0.32460)]
)
def test_posterior_variance_of_the_linear_table(t, s, published):
    process = Discrete()
    variance = float(posterior_variance(process.at(index_time(process, t)), process.at(index_time(process, s))))
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert variance == pytest.approx((1 - bar[s]) / (1 - bar[t]) * (1 - bar[t] / bar[s]), rel=1e-4)
    assert variance == pytest.approx(published, abs=1e-5)  # published without rounding up


@every_process
def test_time_inverts_log_snr(process):
    times = jnp.linspace(process.t_min, process.t_max, 23)
    np.testing.assert_allclose(jax.vmap(process.time)(jax.vmap(process.log_snr)(times)), times, atol=2e-6, rtol=1e-5)
    slopes = jax.vmap(jax.grad(lambda t: process.time(process.log_snr(t))))(times[1:-1])
    np.testing.assert_allclose(slopes, 1, rtol=2e-3)


@every_process
def test_noise_grows_and_data_fade(process):
    grid = jax.vmap(process.at)(jnp.linspace(0, 1, 401))
    assert float(grid.alpha[0]) == pytest.approx(1, abs=1e-6)
    assert np.all(np.diff(grid.alpha) <= 0)
    assert np.all(np.diff(grid.sigma) >= 0)
    assert np.all(np.diff(grid.log_snr) < 0)


@every_process
def test_time_zero_is_data(process):
    clean = process.at(0.0)
    assert (float(clean.alpha), float(clean.sigma), float(clean.log_snr)) == (pytest.approx(1), 0, np.inf)
    assert float(process.time(jnp.asarray(np.inf))) == pytest.approx(0, abs=1e-7)
    slopes = [jax.grad(lambda t, get=get: getattr(process.at(t), get))(0.0) for get in ("alpha", "sigma", "log_snr")]
    assert np.isfinite(slopes).all()


def test_the_noise_of_an_exploding_process_begins_with_its_least():
    process = VE(0.01, 50)
    clean = process.at(0.0)
    assert [float(clean.diffusion), float(clean.sigma_dot)] == [0, 0]
    assert float(process.sigma(process.t_min)) == pytest.approx(0.01, rel=1e-3)
    assert float(process.time(2 * np.log(1 / 0.001))) == pytest.approx(process.t_min)  # less noise than there ever is


@pytest.mark.parametrize(
    "process", [p for p in PROCESSES if isinstance(p, Discrete | VP | Cosine) and type(p) is not SubVP], ids=name
)
def test_variance_is_preserved_also_between_entries(process):
    grid = jax.vmap(process.at)(jnp.linspace(0, 1, 777))
    np.testing.assert_allclose(grid.alpha**2 + grid.sigma**2, 1, atol=3e-7)


def test_drift_and_diffusion_against_the_papers():
    for t in TIMES:
        beta = 0.1 + 19.9 * t
        integral = 0.1 * t + 19.9 * t**2 / 2
        assert float(VP().at(t).drift) == pytest.approx(-beta / 2, rel=1e-5)
        assert float(VP().at(t).diffusion) == pytest.approx(beta**0.5, rel=1e-4)
        assert float(SubVP().at(t).drift) == pytest.approx(-beta / 2, rel=1e-5)
        assert float(SubVP().at(t).diffusion) == pytest.approx((beta * (1 - np.exp(-2 * integral))) ** 0.5, rel=1e-4)
        ve = 0.01 * 5000**t * (2 * np.log(5000)) ** 0.5
        assert float(VE().at(t).drift) == 0
        assert float(VE().at(t).diffusion) == pytest.approx(ve, rel=1e-5)
        assert float(PowerVE(25.0).at(t).diffusion) == pytest.approx(25.0**t, rel=1e-5)
        assert float(PowerVE(25.0).sigma(t)) == pytest.approx(((25 ** (2 * t) - 1) / (2 * np.log(25))) ** 0.5, rel=1e-5)
        assert float(LinearVE().at(t).diffusion) == pytest.approx((2 * 80 * 80 * t) ** 0.5, rel=1e-5)
        assert float(Flow().at(t).drift) == pytest.approx(-1 / (1 - t), rel=1e-5)
        assert float(Flow().at(t).diffusion) == pytest.approx((2 * t / (1 - t)) ** 0.5, rel=1e-5)
        assert float(Cosine().at(t).drift) == pytest.approx(-np.pi / 2 * np.tan(np.pi / 2 * t), rel=1e-4)


def test_a_table_that_ends_in_noise_keeps_its_last_signal():
    table = Discrete((0.5,) * 200)
    for entry in (50, 100, 150, 200):
        assert float(table.alpha(entry / 200)) == pytest.approx(0.5 ** (entry / 2), rel=1e-4)
    assert table.t_max == 1


def test_a_fine_table_is_close_to_its_continuous_limit():
    table, limit = Discrete(LinearBetas()), VP()
    for t in TIMES:
        assert float(table.alpha(t)) == pytest.approx(float(limit.alpha(t)), rel=0.03)
        assert float(table.at(t).drift) == pytest.approx(float(limit.at(t).drift), rel=0.02)
        assert float(table.at(t).diffusion) == pytest.approx(float(limit.at(t).diffusion), rel=0.02)


@every_process
def test_transitions_compose_to_the_marginal(process):
    t, s = process.at(0.7), process.at(0.3)
    alpha_ts, var_ts = transition(t, s)
    assert float(alpha_ts * s.alpha) == pytest.approx(float(t.alpha), rel=1e-5)
    assert float(alpha_ts**2 * s.sigma**2 + var_ts) == pytest.approx(float(t.sigma**2), rel=1e-5)


@every_process
def test_velocity_is_the_probability_flow_of_the_sde(process):
    point = process.at(0.4)
    x, x_0 = jnp.array([0.3, -2.0]), jnp.array([0.5, 0.1])
    flow = point.drift * x - point.diffusion**2 * point.score(x, x_0) / 2
    np.testing.assert_allclose(point.velocity(x, x_0), flow, rtol=2e-4, atol=1e-4)


@every_process
def test_perturb_and_noise_are_inverse(process):
    x_0, eps = jnp.array([0.5, -1.0]), jnp.array([1.5, 0.25])
    np.testing.assert_allclose(process.at(0.4).noise(process.perturb(x_0, eps, 0.4), x_0), eps, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "legal"),
    [
        (lambda: Discrete((0.1, 1.2)), r"within \(0, 1\).*number 1 is 1.2"),
        (lambda: Discrete((0.0, 0.1)), r"within \(0, 1\).*number 0 is 0.0"),
        (lambda: Discrete((1.0, 0.1)), r"only the last may be 1"),
        (lambda: Discrete((float("nan"),)), r"within \(0, 1\)"),
        (lambda: Discrete(()), "at least one number"),
        (lambda: Discrete(LinearBetas(steps=0)), "steps must be a whole number, at least 1"),
        (lambda: Discrete(((0.1, 0.2),)), "a row"),
        (lambda: Discrete(LinearBetas(last=2.0)), r"within \(0, 1\)"),
        (lambda: VP(beta_min=5, beta_max=1), "0 < beta_min <= beta_max"),
        (lambda: VP(beta_max=349.0), "together below 349, or alpha.1. would be 0"),
        (lambda: VE(1.0, 0.5), "1e-18 < sigma_min < sigma_max < 1e18"),
        (lambda: VE(0.0, 0.5), "1e-18 < sigma_min < sigma_max"),
        (lambda: VE(0.1, 1e30), "sigma_max < 1e18"),
        (lambda: LinearVE(80, 80), "1e-18 < sigma_min < sigma_max"),
        (lambda: PowerVE(1.0), "1 < base < 1e18"),
        (lambda: PowerVE(float("inf")), "1 < base < 1e18"),
    ],
)
def test_bad_values_are_refused_with_the_legal_ones(make, legal):
    with pytest.raises(ValueError, match=legal):
        make()


@pytest.mark.parametrize(
    "process", [VP(0.1, 348.0), SubVP(0.1, 348.0), VE(1e-17, 1e17), LinearVE(1e-17, 1e17), PowerVE(1e17)], ids=name
)
def test_the_widest_are_finite(process):
    assert np.isfinite([leaf for t in (process.t_min, 1.0) for leaf in jax.tree.leaves(process.at(t))]).all()


def test_processes_are_values():
    assert Discrete(LinearBetas(20, 0.001, 0.7)) == Discrete(LinearBetas(20, 0.001, 0.7))
    assert hash(Discrete(np.array([0.1, 0.2]))) == hash(Discrete([0.1, 0.2]))
    assert eval(repr(Discrete(ZeroTerminalSNR(CosineBetas(10))))) == Discrete(ZeroTerminalSNR(CosineBetas(10)))
