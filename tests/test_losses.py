"""Losses against the squared error of the clean image, the papers' weights, and information theory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from systems import GAUSSIAN, PROCESSES, name, truth

from jaxdiff.core import c_noise, losses, predictions, rng, times, weightings
from jaxdiff.core.denoise import NetworkDenoiser
from jaxdiff.core.losses import DenoisingLoss
from jaxdiff.core.process import VE, VP, Flow, LinearVE, SubVP
from jaxdiff.core.tables import Discrete, LinearBetas, ZeroTerminalSNR

X_0 = jnp.array([0.5, -0.8, 0.1])
PREDICTIONS = (
    predictions.data,
    predictions.noise,
    predictions.velocity,
    predictions.score,
    predictions.flow,
    predictions.EDMPreconditioning(),
)
WEIGHTINGS = (
    weightings.simple,
    weightings.uniform,
    weightings.velocity,
    weightings.likelihood,
    weightings.MinSNR(),
    weightings.P2(),
    weightings.EDMWeighting(),
    weightings.Sigmoid(2.0),
)


def of(prediction, process, network=lambda x, c_noise: jnp.tanh(x)):
    return NetworkDenoiser(network, process, prediction, c_noise=c_noise.time)


@pytest.mark.parametrize("process", [PROCESSES[1], VP(), Flow(), VE(), LinearVE()], ids=name)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=name)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
def test_the_loss_is_the_weighted_error_of_the_clean_image(prediction, process, weighting):
    """Whatever the network predicts: the loss is weighting |x_0 - D(x_t, t)|²."""
    model, seen = of(prediction, process), []
    spy = of(prediction, process, lambda x, c_noise: seen.append((x, c_noise)) or jnp.tanh(x))
    loss = DenoisingLoss(weighting)(spy, jax.random.key(1), X_0, u=jnp.asarray(0.5))
    ((x_t, t),) = seen
    expected = weighting(process.at(t)) * jnp.mean((X_0 - model(x_t, t)) ** 2)
    assert float(loss) == pytest.approx(float(expected), rel=2e-3)


def test_weights_of_the_papers():
    for t in (0.2, 0.5, 0.8):
        for process in (VP(), Flow(), LinearVE(), Discrete()):
            point = process.at(t)
            snr = float(point.alpha / point.sigma) ** 2
            assert float(weightings.simple(point)) == pytest.approx(snr, rel=1e-4)
            assert float(weightings.uniform(point)) == 1
            assert float(weightings.velocity(point)) == pytest.approx(snr + 1, rel=1e-4)
            assert float(weightings.MinSNR(5)(point)) == pytest.approx(min(snr, 5), rel=1e-4)
            assert float(weightings.P2(0.5, 2)(point)) == pytest.approx(snr / (2 + snr) ** 0.5, rel=1e-4)
            assert float(weightings.EDMWeighting(0.5)(point)) == pytest.approx(
                (1 / snr + 0.25) / (1 / snr * 0.25), rel=1e-4
            )
            slope = -float(jax.grad(process.log_snr)(t))
            assert float(weightings.likelihood(point)) == pytest.approx(slope * snr / 2, rel=1e-3)
            assert float(weightings.Sigmoid(2)(point)) == pytest.approx(
                slope * snr / 2 / (1 + snr * np.exp(-2)), rel=1e-3
            )
            score_weight = float(point.diffusion) ** 2 / 2  # Song, Durkan et al. 2021: g² / 2 on the error of the score
            assert float(weightings.likelihood(point)) == pytest.approx(
                score_weight * float(point.alpha / point.sigma**2) ** 2, rel=1e-3
            )


@pytest.mark.parametrize("process", [PROCESSES[2], VP(), Flow(), LinearVE()], ids=name)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=name)
def test_by_default_the_error_of_the_network_counts_evenly(prediction, process):
    """A network that is off by 0.3 has a loss of 0.09, whatever it predicts and at any time, up to pure noise."""
    key = jax.random.key(1)
    eps = rng.normal(jax.random.split(key, 3)[0], X_0.shape)
    asked = []

    def network(x, t):
        asked.append(float(t))
        return truth(prediction, process.at(t), X_0, eps) + 0.3

    model = of(prediction, process, network)
    for u in (0.3, 0.9, 1 - 2**-24):
        loss = float(DenoisingLoss()(model, key, X_0, u=jnp.asarray(u)))
        assert loss == pytest.approx(0.09, rel=1e-2)
    assert asked[-1] == pytest.approx(model.t_max)


def test_networks_see_unit_weights_where_the_papers_say_so():
    """DDPM's simple loss is |eps - F|², EDM's and flow matching's their networks' plain squared error."""
    for prediction, weighting, process in (
        (predictions.noise, weightings.simple, Discrete()),
        (predictions.EDMPreconditioning(), weightings.EDMWeighting(), LinearVE()),
        (predictions.flow, weightings.flow, Flow()),
        (predictions.velocity, weightings.velocity, VP()),
        (predictions.data, weightings.uniform, VP()),
    ):
        for t in (0.01, 0.4, 0.99):
            point = process.at(t)
            _, c_out = prediction(point.alpha, point.sigma)
            assert float(weighting(point) * c_out**2) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("process", [VP(), Flow(), VE(0.01, 20), Discrete()], ids=name)
def test_likelihood_weighting_integrates_to_the_information(process):
    """By I-MMSE a Gaussian's is log((1 + SNR_0 d²) / (1 + SNR_1 d²)) / 2 with the exact denoiser (Guo et al. 2005)."""
    exact = NetworkDenoiser(
        lambda x, t: GAUSSIAN.denoise(process, x, t), process, predictions.data, c_noise=c_noise.time
    )
    loss, count = DenoisingLoss(weightings.likelihood), 20_000

    @jax.vmap
    def one(index):
        key = jax.random.fold_in(jax.random.key(0), index)
        x_0 = 0.3 + 0.5 * jax.random.normal(key, (64,))
        return loss(exact, jax.random.fold_in(key, 1), x_0, u=rng.stratified(jax.random.key(9), index, count))

    values = np.asarray(jax.jit(one)(jnp.arange(count)), np.float64) * (1 - process.t_min)
    snr_0, snr_1 = (float(jnp.exp(process.log_snr(t))) for t in (process.t_min, 1.0))
    assert values.mean() == pytest.approx(np.log((1 + 0.25 * snr_0) / (1 + 0.25 * snr_1)) / 2, rel=0.01)


def test_times_follow_their_distribution():
    u = jnp.asarray((np.arange(1000) + 0.5) / 1000)
    flow = np.asarray(jax.vmap(partial(times.LogitNormal(0.5, 0.8), Flow()))(u))
    assert stats.kstest((np.log(flow / (1 - flow)) - 0.5) / 0.8, "norm").statistic < 0.002
    edm = np.asarray(jax.vmap(partial(times.LogNormal(), LinearVE()))(u))
    assert stats.kstest((np.log(80 * edm) + 1.2) / 1.2, "norm").statistic < 0.002
    even = np.asarray(jax.vmap(partial(times.UniformTimes(), Flow()))(u))
    assert stats.kstest((even - 0.001) / 0.999, "uniform").statistic < 0.002
    table = Discrete(LinearBetas(20, 0.001, 0.7))
    entries = np.asarray(table.index(jax.vmap(partial(times.steps, table))(u)))
    np.testing.assert_array_equal(np.unique(np.round(entries), return_counts=True), [np.arange(20), np.full(20, 50)])


def test_the_last_entry_of_a_table_without_terminal_signal_and_half_precision_images_are_fine():
    process = Discrete(ZeroTerminalSNR(LinearBetas()))
    for weighting in WEIGHTINGS:
        loss = DenoisingLoss(weighting, times.steps)
        assert np.isfinite(loss(of(predictions.velocity, process), jax.random.key(0), X_0, u=jnp.asarray(0.9999)))
    halves = jnp.zeros((64, 64), jnp.bfloat16)
    assert np.isfinite(DenoisingLoss()(of(predictions.noise, VP()), jax.random.key(0), halves))


def test_sigmoid_weighting_is_the_same_on_any_schedule():
    """Over equal ranges of log-SNR the exact denoiser's loss depends on the weighting alone (Kingma & Gao 2023)."""
    totals = []
    for process in (VP(), Flow(), VE(0.01, 50), SubVP()):
        low, high = (float(process.time(jnp.asarray(lam))) for lam in (4.0, -4.0))
        exact = NetworkDenoiser(partial(GAUSSIAN.denoise, process), process, predictions.data, c_noise=c_noise.time)
        loss = DenoisingLoss(weightings.Sigmoid(1.0), times.UniformTimes(low, high))

        @jax.jit
        @jax.vmap
        def one(index, loss=loss, exact=exact):
            key = jax.random.fold_in(jax.random.key(0), index)
            x_0 = 0.3 + 0.5 * jax.random.normal(key, (64,))
            return loss(exact, jax.random.fold_in(key, 1), x_0, u=(index + 0.5) / 4000)

        totals.append(float(one(jnp.arange(4000)).mean()) * (high - low))
    np.testing.assert_allclose(totals, totals[0], rtol=0.02)


@pytest.mark.parametrize("times", [times.UniformTimes(), times.LogitNormal(), times.LogNormal()], ids=name)
@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_extreme_draws_stay_in_the_range_of_the_process(times, process):
    for u in (0.0, 1 - 2**-24):
        assert process.t_min - 1e-9 <= float(times(process, jnp.asarray(u))) <= 1
        value = DenoisingLoss(times=times)(of(predictions.velocity, process), jax.random.key(0), X_0, u=jnp.asarray(u))
        assert np.isfinite(value)


def test_stratified_times_are_even_in_the_batch_and_uniform_over_batches():
    draw = jax.vmap(lambda key, i: rng.stratified(key, i, 16), in_axes=(None, 0))
    one = np.sort(draw(jax.random.key(0), jnp.arange(16)))
    np.testing.assert_allclose(np.diff(one), 1 / 16, atol=1e-6)
    many = jax.vmap(lambda k: draw(jax.random.key(k), jnp.arange(16)))(jnp.arange(500))
    assert stats.kstest(np.asarray(many)[:, 3], "uniform").pvalue > 0.01


def test_each_example_loses_its_own_condition():
    model = of(predictions.data, VP(), lambda x, c_noise, y: jnp.full_like(x, y["a"]))
    loss, keys = DenoisingLoss(weightings.uniform), jax.random.split(jax.random.key(0), 4000)
    given = jax.vmap(losses.dropped, in_axes=(0, 0, None, None))(keys, {"a": jnp.full(4000, 2.0)}, {"a": -1}, 0.25)
    values = jax.vmap(loss, in_axes=(None, 0, None, 0))(model, keys, jnp.zeros(3), given)
    kept, dropped = np.isclose(values, 4), np.isclose(values, 1)
    assert np.all(kept | dropped)
    assert dropped.mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
def test_the_exact_denoiser_is_the_minimum(weighting):
    loss, process = DenoisingLoss(weighting, times.LogNormal()), LinearVE()
    keys = jax.random.split(jax.random.key(0), 4000)
    data = 0.3 + 0.5 * jax.random.normal(jax.random.key(7), (4000, 4))

    @jax.jit
    def mean_loss(tilt, shift):
        network = lambda x, t: GAUSSIAN.denoise(process, x, t) * (1 + tilt) + shift  # noqa: E731
        model = NetworkDenoiser(network, process, predictions.data, c_noise=c_noise.time)
        return jax.vmap(loss, in_axes=(None, 0, 0))(model, keys, data).mean()

    least = mean_loss(0.0, 0.0)
    assert all(mean_loss(*off) > least for off in ((0.2, 0.0), (-0.2, 0.0), (0.0, 0.1), (0.0, -0.1)))


@pytest.mark.parametrize(
    ("make", "legal"),
    [
        (lambda: weightings.MinSNR(0), "gamma > 0"),
        (lambda: weightings.P2(-1), "gamma >= 0"),
        (lambda: weightings.EDMWeighting(0), "sigma_data > 0"),
        (lambda: times.LogitNormal(deviation=0), "deviation > 0"),
        (lambda: times.LogNormal(deviation=-1), "deviation > 0"),
        (lambda: losses.dropped(jax.random.key(0), 1, 0, 1.5), "0 <= share <= 1"),
        (lambda: DenoisingLoss("simple"), r"functions such as simple and UniformTimes\(\)"),
        (lambda: DenoisingLoss(times=times.UniformTimes), r"functions such as simple and UniformTimes\(\)"),
        (
            lambda: DenoisingLoss(lambda snr, t: t),
            r"<lambda> must take \(point\), it takes \(snr, t\)$",
        ),
        (lambda: DenoisingLoss(times=lambda u: u), r"<lambda> must take \(process, u\), it takes \(u\)$"),
        (
            lambda: DenoisingLoss(lambda point: jnp.ones(3))(of(predictions.data, VP()), jax.random.key(0), X_0),
            r"a weighting must give one number, got an array of shape \(3,\)$",
        ),
        (lambda: times.UniformTimes(0.9, 0.1), "0 < low < high <= 1"),
        (lambda: times.UniformTimes(0.0), "0 < low < high <= 1"),
        (lambda: times.UniformTimes(high=1.5), "0 < low < high <= 1"),
        (lambda: DenoisingLoss()(lambda x, t: x, jax.random.key(0), X_0), "a NetworkDenoiser to train"),
        (
            lambda: DenoisingLoss()(of(predictions.data, VP()), jax.random.key(0), X_0.astype(jnp.uint8)),
            "floating point",
        ),
        (lambda: times.UniformTimes(high=1e-4)(VP(), 0.5), "high above 0.001, where noise begins"),
        (lambda: times.steps(VP(), 0.5), "only a Discrete process has steps to draw from"),
    ],
)
def test_bad_parameters_are_refused(make, legal):
    with pytest.raises(ValueError, match=legal):
        make()


def test_the_loss_of_an_autoencoder_is_its_formula():
    from jaxdiff.nets.autoencoder import DiagonalGaussian

    class Halves:  # latents N(x / 2, 4) of the first column, decoded to themselves everywhere
        def encode(self, x):
            return DiagonalGaussian(x[:, :1] / 2, jnp.full((2, 1, 1), jnp.log(4.0)))

        def decode(self, z):
            self.z = z
            return jnp.broadcast_to(z, (2, 3, 1))

    x, model = jax.random.normal(jax.random.key(0), (2, 3, 1)), Halves()
    loss = losses.AutoencoderLoss(losses.squared, kl=0.5, terms=((2.0, losses.absolute),))(model, jax.random.key(1), x)
    difference = np.asarray(x - model.z, np.float64)
    kl = np.sum((np.asarray(x[:, :1]) ** 2 / 4 + 4 - 1 - np.log(4)) / 2)
    exact = np.mean(difference**2) + 2 * np.mean(np.abs(difference)) + 0.5 * kl / 6
    np.testing.assert_allclose(loss, exact, rtol=1e-5)
    with pytest.raises(ValueError, match="kl >= 0"):
        losses.AutoencoderLoss(kl=-1.0)
