"""One conformance test walks over all samplers; then what each promises beyond it."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import DETERMINISTIC, GAUSSIAN, PROCESSES, SAMPLERS, gaussian, grid_for, name

from benchmarks.solver_order import exact_path, moments
from jaxdiff.core import grids, samplers
from jaxdiff.core.exact import Mixture
from jaxdiff.core.process import VE, VP, Flow, LinearVE, SubVP
from jaxdiff.core.rng import image_key, normal
from jaxdiff.core.sampling import sample, walk
from jaxdiff.core.tables import Discrete, LinearBetas

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=name)


def sampled(sampler, process, steps=12, denoise=None, **options):
    options = {"shape": (3,), "indices": 4, "devices": jax.devices()[:1], **options}
    return sample(denoise or gaussian(process), process, sampler, grid_for(sampler, process, steps), **options)


def in_t(sampler):
    return isinstance(sampler, samplers.Euler | samplers.Heun | samplers.AdaptiveODE)


WALKED = [(sampler, process) for sampler in SAMPLERS for process in (PROCESSES[1], VE())]
WALKED += [(sampler, process) for sampler in (samplers.DDIM(), samplers.UniPC(3)) for process in PROCESSES]


@pytest.mark.parametrize(("sampler", "process"), dict.fromkeys(WALKED), ids=name)
def test_conformance(sampler, process):
    """Finite from the noisiest time to clean data, and the same again; stochastic or not as it says; a plain value."""
    images = sampled(sampler, process)
    assert images.shape == (4, 3)
    assert np.isfinite(images).all()
    np.testing.assert_array_equal(sampled(sampler, process), images)
    assert eval(repr(sampler), vars(samplers) | {"inf": float("inf")}) == sampler
    assert hash(sampler) == hash(dataclasses.replace(sampler))


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if not s.needs_signal], ids=name)
@pytest.mark.parametrize("process", [Flow(), PROCESSES[2]], ids=name)
def test_starts_from_pure_noise(sampler, process):
    """From t = 1, where alpha = 0 and nothing of the data is left."""
    times = grids.Uniform()(process, 1 if isinstance(sampler, samplers.AdaptiveODE) else 12)
    images = sample(gaussian(process), process, sampler, times, shape=(3,), indices=4, devices=jax.devices()[:1])
    assert np.isfinite(images).all()
    if not isinstance(sampler, samplers.Langevin):
        assert np.all(abs(images - 0.3) < 5 * 0.5)


@every_sampler
def test_keys_matter_to_stochastic_samplers_only(sampler):
    process = VP()
    times = grid_for(sampler, process, 5)
    ends = [
        sampler.image(
            walk(
                gaussian(process),
                process,
                sampler,
                times,
                jax.random.key(k),
                sampler.init(jnp.ones(3), process.at(times[0])),
            )
        )
        for k in (0, 1)
    ]
    assert np.array_equal(*ends) == (sampler in DETERMINISTIC)


def test_the_deterministic_ones_follow_the_ode_but_for_ddpm_without_its_noise():
    assert [sampler for sampler in SAMPLERS if sampler.follows_ode] == [
        sampler for sampler in DETERMINISTIC if not isinstance(sampler, samplers.DDPM)
    ]


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if not isinstance(s, samplers.Langevin)], ids=name)
@pytest.mark.parametrize("process", [VP(), VE()], ids=name)
def test_arrives_at_what_the_denoiser_says(sampler, process):
    """Of the last step to sigma = 0 the clean image is all that is left, whatever the sampler."""
    truth = jnp.array([0.5, -0.25, 1.0])
    images = sampled(sampler, process, 5, denoise=lambda x, t: truth)
    np.testing.assert_allclose(images, np.broadcast_to(truth, (4, 3)), atol=1e-4 if in_t(sampler) else 1e-5)


@pytest.mark.parametrize("sampler", [samplers.DDIM(), samplers.PredictorCorrector()], ids=name)
def test_no_noise_is_left_in_samples_on_an_exploding_process(sampler):
    """The last step is to the expected image: of N(m, d²) its deviation is d² / sqrt(d² + sigma_min²), not the root."""
    process, two = VE(0.05, 20.0), Mixture((-1.0, 1.0), 0.01, (0.5, 0.5))
    x = sample(
        partial(two.denoise, process), process, sampler, grids.LogSNR()(process, 200),
        shape=(1,), indices=2000, batch_size=2000, devices=jax.devices()[:1],
    )  # fmt: skip
    spread = np.std(abs(np.asarray(x, np.float64)))
    assert spread == pytest.approx(0.01**2 / np.hypot(0.01, 0.05), rel=0.1)


DIFFERENTIATED = [s for s in SAMPLERS if s not in DETERMINISTIC or isinstance(s, samplers.Heun | samplers.EDM)]
DIFFERENTIATED += [samplers.DDIM(), samplers.DDIM(eta=1.0), samplers.DPMpp2S(), samplers.UniPC(3)]


@pytest.mark.parametrize("sampler", DIFFERENTIATED, ids=name)
def test_gradients_are_finite_from_pure_noise_to_clean_data(sampler):
    """By the noise, by what the denoiser has learned, and by all times, of which both ends have infinite slopes."""
    process = Flow()
    times = grids.Uniform(first=process.t_max if sampler.needs_signal else 1.0)(process, 4)

    @jax.jit
    def end(x, weight, times):
        denoise = lambda x, t: weight * GAUSSIAN.denoise(process, x, t)  # noqa: E731
        start = sampler.init(x, process.at(times[0]))
        return sampler.image(walk(denoise, process, sampler, times, jax.random.key(0), start)).sum()

    by_noise, by_weight, by_times = jax.grad(end, (0, 1, 2))(jnp.array([0.5, -1.0]), jnp.asarray(1.1), times)
    assert np.isfinite([*by_noise, by_weight, *by_times]).all()
    assert float(by_weight) != 0


@pytest.mark.parametrize("sampler", [s for s in DETERMINISTIC if not isinstance(s, samplers.DDPM)], ids=name)
@pytest.mark.parametrize("process", [VP(), Flow(), LinearVE(), Discrete(LinearBetas(20, 0.001, 0.7))], ids=name)
def test_the_true_image_keeps_deterministic_samplers_on_the_exact_path(sampler, process):
    """With D = x_0 the solution is alpha x_0 + sigma eps with one and the same eps."""
    truth, eps = jnp.array([0.5, -0.25]), jnp.array([1.0, -2.0])
    steps = 1 if isinstance(sampler, samplers.AdaptiveODE) else 4000 if in_t(sampler) else 7
    times = grids.LogSNR(to_data=False)(process, steps)
    start = sampler.init(process.perturb(truth, eps, times[0]), process.at(times[0]))
    end = sampler.image(walk(lambda x, t: truth, process, sampler, times, jax.random.key(0), start))
    coarse = in_t(sampler) and isinstance(process, Discrete)  # its table of 20 is smooth only in between
    np.testing.assert_allclose(
        end, process.perturb(truth, eps, times[-1]), atol=2e-2 if coarse else 3e-3 if in_t(sampler) else 5e-5
    )


@pytest.mark.parametrize("process", [Discrete(), Flow(), SubVP(), VE()], ids=name)
def test_ddim_with_eta_one_is_small_variance_ddpm(process):
    times = grids.LogSNR()(process, 20)
    options = {"shape": (5,), "indices": 6, "seed": 2}
    ddim = sample(gaussian(process), process, samplers.DDIM(eta=1.0), times, **options)
    ddpm = sample(gaussian(process), process, samplers.DDPM(), times, **options)
    np.testing.assert_allclose(ddim, ddpm, rtol=2e-4, atol=2e-4)


def test_ddpm_step_against_the_paper():
    """Ho et al., equation 7, in float64, with the three kinds of variance of improved DDPM."""
    process, t, s = Discrete(), 699, 649
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    alpha, beta = bar[t] / bar[s], 1 - bar[t] / bar[s]
    x, x_0 = np.array([0.3, -1.2]), np.array([0.4, 0.9])
    mean = bar[s] ** 0.5 * beta / (1 - bar[t]) * x_0 + alpha**0.5 * (1 - bar[s]) / (1 - bar[t]) * x
    small = (1 - bar[s]) / (1 - bar[t]) * beta
    times = jnp.asarray(process.time_of_index(np.array([t, s])), jnp.float32)
    key = image_key(0, 0)
    z = normal(jax.random.fold_in(key, 1), (2,))
    for variance, expected in ((0.0, small), (1.0, beta), (0.5, (small * beta) ** 0.5)):
        for noise in (0.0, 0.3, 1.0):
            sampler = samplers.DDPM(variance, noise)
            got = walk(lambda x, t: jnp.asarray(x_0), process, sampler, times, key, jnp.asarray(x))
            np.testing.assert_allclose(got, mean + noise * expected**0.5 * np.asarray(z), rtol=1e-4)


def test_edm_churn_raises_the_noise_level_as_published():
    """One step of algorithm 2 by hand, in float64."""
    process, sampler = LinearVE(), samplers.EDM(churn=10.0, s_min=0.1, s_max=50.0, s_noise=1.003)
    times = jnp.array([30.0, 20.0]) / 80
    key, x = image_key(0, 0), jnp.array([10.0, -20.0])
    z = np.asarray(normal(jax.random.fold_in(key, 1), (2,)), np.float64)

    def denoise(x, sigma):
        return 0.3 + 0.25 / (0.25 + sigma**2) * (x - 0.3)

    raised = 30 * 2**0.5  # min(10 / 1, sqrt 2 - 1)
    x_hat = np.asarray(x) + (raised**2 - 30**2) ** 0.5 * 1.003 * z
    slope = (x_hat - denoise(x_hat, raised)) / raised
    euler = x_hat + (20 - raised) * slope
    expected = x_hat + (20 - raised) * (slope + (euler - denoise(euler, 20)) / 20) / 2
    got = walk(gaussian(process), process, sampler, times, key, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    quiet = dataclasses.replace(sampler, s_max=25.0)
    still = walk(gaussian(process), process, quiet, times, key, x)
    np.testing.assert_allclose(still, walk(gaussian(process), process, samplers.EDM(), times, key, x), rtol=1e-6)


def plain_unipc(times, order, x):
    """The paper's algorithm with B(h) = e^h - 1, order by order, in numpy and float64."""
    log_alpha = -0.25 * times**2 * 19.9 - 0.05 * times
    alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))
    lam = np.log(alpha / sigma)

    def denoise(x, i):
        variance = (0.5 * alpha[i]) ** 2 + sigma[i] ** 2
        return 0.3 + 0.25 * alpha[i] / variance * (x - alpha[i] * 0.3) + 0.1 * np.sin(3 * x)

    def update(x, i, outputs, order, corrected=None):
        h = lam[i + 1] - lam[i]
        r = [(lam[i - k] - lam[i]) / h for k in range(1, order)]
        d = [(outputs[i - k] - outputs[i]) / r[k - 1] for k in range(1, order)]
        if corrected is not None:
            r, d = [*r, 1.0], [*d, corrected - outputs[i]]
        phi, targets, factorial = np.expm1(-h) / -h - 1, [], 1
        for k in range(1, len(r) + 1):
            targets.append(phi * factorial / np.expm1(-h))
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        rho = [0.5] if len(r) == 1 else np.linalg.solve(np.vander(r, increasing=True).T, targets) if r else []
        bend = sum(a * b for a, b in zip(rho, d, strict=True))
        return sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(-h) * (outputs[i] + bend)

    behind, outputs = x, []
    for i in range(len(times) - 1):
        outputs.append(denoise(x, i))
        if i > 0:
            x = update(behind, i - 1, outputs, min(order, i), corrected=outputs[i])
        behind, x = x, update(x, i, outputs, min(order, i + 1))
    return x


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_against_a_plain_implementation(order):
    process, sampler, start = VP(), samplers.UniPC(order), np.array([1.5, -0.5])
    times = np.asarray(grids.LogSNR(to_data=False)(process, 9), np.float64)
    ours = walk(
        lambda x, t: GAUSSIAN.denoise(process, x, t) + 0.1 * jnp.sin(3 * x),
        process,
        sampler,
        jnp.asarray(times, jnp.float32),
        jax.random.key(0),
        sampler.init(jnp.array(start), process.at(times[0])),
    )
    np.testing.assert_allclose(sampler.image(ours), plain_unipc(times, order, start), rtol=2e-4)


def test_langevin_settles_at_its_stationary_law():
    """On N(0.3, 0.5²) the chain is autoregressive; its stationary deviation has a closed form."""
    process, snr = VE(0.3, 50), 0.9
    times = jnp.array([1.0, 1e-5])
    x = sample(
        gaussian(process), process, samplers.Langevin(snr, 200), times, shape=(1,), indices=20_000, batch_size=20_000
    )
    variance = 0.5**2 + 0.3**2
    step = 2 * (snr * 0.3) ** 2
    stationary = variance / (1 - step / (2 * variance))
    assert x.mean() == pytest.approx(0.3, abs=4 * (stationary / 20_000) ** 0.5)
    assert x.std() == pytest.approx(stationary**0.5, abs=4 * (stationary / 40_000) ** 0.5)


def test_adaptive_solve_meets_its_tolerance_with_steps_of_each_images_own():
    process = VP()
    times = grids.Uniform(last=1e-3)(process, 1)
    x = jnp.array([[0.1], [3.0], [-20.0]])
    exact = exact_path(process, x, times[0], times[1])

    def solve(sampler, x):
        return walk(gaussian(process), process, sampler, times, jax.random.key(0), x)

    worst = []
    for tolerance in (1e-2, 1e-5):
        sampler = samplers.AdaptiveODE(tolerance, tolerance)
        together = jax.vmap(lambda x, sampler=sampler: solve(sampler, x))(x)
        alone = jnp.stack([solve(sampler, one) for one in x])
        np.testing.assert_allclose(together, alone, rtol=1e-4)
        worst.append(float(jnp.abs(together - exact).max()))
    assert worst[1] < 1e-3 * 20  # of a solution of magnitude 10, at a relative tolerance of 1e-5 a step
    assert worst[1] < worst[0] / 5
    assert np.isnan(solve(samplers.AdaptiveODE(max_steps=3), x[0])).all()


def test_resampling_takes_every_step_but_the_last_so_many_times():
    asked, process = [], VP()

    def denoise(x, t):
        jax.debug.callback(lambda t: asked.append(float(t)), t)
        return 0.1 * x

    times = grids.LogSNR()(process, 4)
    walk(denoise, process, samplers.Resampling(samplers.DDIM(), 3), times, jax.random.key(0), jnp.ones(2))
    jax.effects_barrier()
    assert asked == [float(t) for t in [*np.repeat(times[:3], 3), times[3]]]


def test_resampling_once_is_the_sampler_itself():
    once = sampled(samplers.Resampling(samplers.DDIM(), 1), Flow())
    np.testing.assert_allclose(once, sampled(samplers.DDIM(), Flow()), atol=1e-6)


@pytest.mark.parametrize(
    ("sampler", "process"),
    [(samplers.Resampling(times=1), VE()), (samplers.Resampling(samplers.DDIM(), 4), VP())],
    ids=name,
)
@pytest.mark.usefixtures("optimised")
def test_resampling_keeps_mean_and_deviation(sampler, process):
    """At the process's least noisy time, of 20,000 samples of N(0.3, 0.5²)."""
    mean, deviation = moments(sampler, process, count=20_000, steps=300)
    assert mean == pytest.approx(0.3, abs=4 * 0.5 / 20_000**0.5)
    assert deviation == pytest.approx(0.5, abs=4 * 0.5 / 40_000**0.5)


@pytest.mark.parametrize(
    ("make", "legal"),
    [
        (lambda: samplers.DDPM(variance=1.5), "0 <= variance <= 1"),
        (lambda: samplers.DDPM(noise=-0.1), "0 <= noise <= 1"),
        (lambda: samplers.DDIM(eta=2), "0 <= eta <= 1"),
        (lambda: samplers.EDM(churn=-1), "churn >= 0"),
        (lambda: samplers.EDM(s_min=2, s_max=1), "s_min <= s_max"),
        (lambda: samplers.DPMpp2M(eta=-1), "0 <= eta <= 1"),
        (lambda: samplers.UniPC(4), "order 1, 2 or 3"),
        (lambda: samplers.Langevin(snr=0), "0 < snr < 1"),
        (lambda: samplers.Langevin(corrections=0), "corrections must be a whole number, at least 1"),
        (lambda: samplers.AdaptiveODE(rtol=0), "rtol > 0"),
        (lambda: samplers.AdaptiveODE(max_steps=0), "max_steps must be a whole number, at least 1"),
        (lambda: samplers.PredictorCorrector(predictor=samplers.DPMpp2M()), "samplers without history"),
        (lambda: samplers.PredictorCorrector(corrector=samplers.DDIM()), "a predictor that steps, .* and a corrector"),
        (lambda: samplers.PredictorCorrector(samplers.Langevin()), "a predictor that steps, .* and a corrector"),
        (lambda: samplers.Resampling(samplers.DPMpp2M()), r"a sampler without history, such as DDPM\(\)"),
        (lambda: samplers.Resampling(samplers.UniPC()), "a sampler without history"),
        (lambda: samplers.Resampling(5), "a sampler without history"),
        (lambda: samplers.Resampling(times=0), "times must be a whole number, at least 1"),
        (lambda: samplers.Resampling(times=2.5), "times must be a whole number, at least 1"),
    ],
)
def test_bad_parameters_are_refused(make, legal):
    with pytest.raises(ValueError, match=legal):
        make()


@pytest.mark.parametrize("sampler", [s for s in DETERMINISTIC if s.follows_ode and not in_t(s)], ids=name)
def test_a_walk_has_gradients_in_reverse(sampler):
    """Of where it ends by the mean mu of the data: the ODE ends at mu + (x - mu) s / sqrt(s² + t²)."""
    process, deviation = LinearVE(sigma_max=5.0), 0.5
    times = grid_for(sampler, process, 60)
    noisiest = process.at(times[0])

    def end(mean):
        def denoise(x, t):
            variance = process.sigma(t) ** 2 + deviation**2
            return mean + deviation**2 / variance * (x - mean)

        carry = sampler.init(jnp.array([3.0]), noisiest)
        return sampler.image(walk(denoise, process, sampler, times, jax.random.key(0), carry))[0]

    exact = 1 - deviation / np.hypot(deviation, float(noisiest.sigma))
    assert float(jax.grad(end)(0.4)) == pytest.approx(exact, abs=0.02)
