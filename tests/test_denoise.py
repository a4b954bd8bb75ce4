"""Every prediction type says the same thing about the same image."""

import jax.numpy as jnp
import numpy as np
import pytest
from systems import GAUSSIAN, PROCESSES, gaussian, name, truth

from jaxdiff.core import c_noise, denoise, grids, inputs, predictions, samplers
from jaxdiff.core.process import VE, VP, Cosine, Flow, LinearVE, SubVP
from jaxdiff.core.sampling import sample
from jaxdiff.core.tables import Discrete, LinearBetas

X_0, EPS = jnp.array([0.5, -0.8, 0.1]), jnp.array([1.0, 0.2, -2.0])


PREDICTIONS = (
    predictions.data,
    predictions.noise,
    predictions.velocity,
    predictions.score,
    predictions.flow,
    predictions.EDMPreconditioning(),
)
PAIRS = [(process, prediction) for process in PROCESSES for prediction in PREDICTIONS]


@pytest.mark.parametrize(("process", "prediction"), PAIRS, ids=name)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_true_output_gives_the_clean_image(process, prediction, t):
    point = process.at(t)
    network = lambda x, c_noise: truth(prediction, point, X_0, EPS)  # noqa: E731
    model = denoise.NetworkDenoiser(network, process, prediction, c_noise=c_noise.time)
    tolerance = 1e-5 * max(1.0, float(point.ratio))
    np.testing.assert_allclose(model(point.perturb(X_0, EPS), jnp.asarray(t)), X_0, rtol=1e-5, atol=tolerance)


def test_coefficients_of_the_papers():
    a, s = jnp.asarray(0.6), jnp.asarray(0.8)
    assert predictions.velocity(a, s) == (pytest.approx(0.6), pytest.approx(-0.8))
    assert predictions.flow(1 - s, s) == (pytest.approx(1.0), pytest.approx(-0.8))
    c_skip, c_out = predictions.EDMPreconditioning(0.5)(jnp.asarray(1.0), jnp.asarray(2.0))  # Karras et al., table 1
    assert float(c_skip) == pytest.approx(0.25 / (4 + 0.25))
    assert float(c_out) == pytest.approx(2 * 0.5 / (4 + 0.25) ** 0.5)
    assert float(inputs.UnitVariance(0.5)(jnp.asarray(1.0), jnp.asarray(2.0))) == pytest.approx(4.25**-0.5)


def test_what_the_network_gets():
    table, edm = Discrete(), LinearVE()
    assert float(c_noise.index(table, table.time_of_index(420))) == pytest.approx(420, abs=1e-3)
    assert float(c_noise.time(table, jnp.asarray(0.25))) == 0.25
    assert float(c_noise.ScaledTime(1000)(VP(), jnp.asarray(0.25))) == 250
    assert float(c_noise.log_sigma(edm, jnp.asarray(0.5))) == pytest.approx(np.log(40), rel=1e-5)
    assert float(c_noise.quarter_log_sigma(edm, jnp.asarray(0.5))) == pytest.approx(np.log(40) / 4, rel=1e-5)
    assert float(c_noise.quarter_log_snr(edm, jnp.asarray(0.5))) == pytest.approx(-np.log(40) / 2, rel=1e-5)
    assert float(c_noise.quarter_log_snr(Flow(), jnp.asarray(0.5))) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="only a Discrete process numbers its steps"):
        c_noise.index(VP(), jnp.asarray(0.5))


def test_the_network_is_shown_its_scaled_input_and_the_condition():
    seen = []
    network = lambda x, number, y: seen.append((x, number, y)) or x  # noqa: E731
    model = denoise.NetworkDenoiser(
        network, LinearVE(), predictions.EDMPreconditioning(), inputs.UnitVariance(), c_noise.quarter_log_sigma
    )
    model(jnp.ones(3), jnp.asarray(0.5), 7)
    ((x, number, y),) = seen
    np.testing.assert_allclose(x, np.full(3, (40**2 + 0.25) ** -0.5), rtol=1e-6)
    assert float(number) == pytest.approx(np.log(40) / 4, rel=1e-5)
    assert y == 7


def test_a_half_precision_network_leaves_the_image_in_float32():
    model = denoise.NetworkDenoiser(lambda x, c_noise: x.astype(jnp.bfloat16), Discrete())
    assert model(jnp.ones(3), jnp.asarray(0.5)).dtype == jnp.float32


@pytest.mark.parametrize("made_for", PROCESSES, ids=name)
def test_a_moved_denoiser_is_asked_at_its_own_end_beyond_its_range(made_for):
    for t in (0.0, 1.0):
        x_0 = denoise.Moved(lambda x, t: x * 0 + t, made_for, Flow())(jnp.ones(2), jnp.asarray(t))
        np.testing.assert_allclose(x_0, t, atol=1e-6)


def test_the_index_of_an_entry_is_whole():
    for steps in (20, 300, 1000, 10**5, 10**6):
        table = Discrete(LinearBetas(steps))
        c_noise = table.index(jnp.asarray(table.time_of_index(np.arange(steps)), jnp.float32))
        np.testing.assert_array_equal(c_noise, np.arange(steps))


def test_bad_denoisers_are_refused():
    with pytest.raises(
        ValueError, match=r"the network must return the shape of its image, \(4, 3\), it returned \(4, 1\)"
    ):
        denoise.NetworkDenoiser(lambda x, t: x[:, :1], VP(), c_noise=c_noise.time)(jnp.ones((4, 3)), jnp.asarray(0.5))
    with pytest.raises(ValueError, match="process must be one of"):
        denoise.NetworkDenoiser(lambda x, t: x, "VP")
    with pytest.raises(
        ValueError, match=r"prediction must be a function such as those of jaxdiff\.core\.predictions, got <class"
    ):
        denoise.NetworkDenoiser(lambda x, t: x, VP(), predictions.EDMPreconditioning)
    with pytest.raises(ValueError, match="sigma_data > 0"):
        inputs.UnitVariance(0)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_where_nothing_is_left_of_the_data_only_some_networks_can_be_asked(process):
    """Noise and score tell nothing of the image there, and log-SNR is no number; else all is known up to t = 1."""
    for prediction in PREDICTIONS:
        model = denoise.NetworkDenoiser(lambda x, c_noise: x, process, prediction, c_noise=c_noise.time)
        tells = prediction not in (predictions.noise, predictions.score)
        assert model.t_max == (1 if tells else process.t_max)
    model = denoise.NetworkDenoiser(lambda x, c_noise: x, process, predictions.velocity, c_noise=c_noise.log_sigma)
    assert model.t_max == process.t_max
    assert jnp.isfinite(model(X_0, jnp.asarray(model.t_max))).all()


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match=r"prediction must be a function such as .*, got 'epsilon'"):
        denoise.NetworkDenoiser(lambda x, c_noise: x, VP(), "epsilon")


@pytest.mark.parametrize(
    ("made_for", "used_on"),
    [(VP(), LinearVE()), (Discrete(), Flow()), (Cosine(), VE()), (VE(0.01, 80), SubVP())],
    ids=str,
)
def test_a_denoiser_moved_to_another_process_samples_the_same_images(made_for, used_on):
    """The swap test: on matched noise levels the ODE's solution is the same, whichever process it is written in."""
    times = grids.Karras(first=0.97, last=0.02)(used_on, 200)
    own = sample(gaussian(used_on), used_on, samplers.DPMpp2M(), times, shape=(3,), indices=8)
    moved = denoise.Moved(gaussian(made_for), made_for, used_on)
    np.testing.assert_allclose(sample(moved, used_on, samplers.DPMpp2M(), times, shape=(3,), indices=8), own, atol=1e-3)
    x, t = jnp.array([0.2, -0.4]), jnp.asarray(0.5)
    np.testing.assert_allclose(moved(x, t), GAUSSIAN.denoise(used_on, x, t), rtol=1e-4)
