"""Flow maps, the samplers over them, and the objectives that train them, against closed forms on Gaussian data."""

import contextlib
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats
from systems import GAUSSIAN, PROCESSES, gaussian, name

from jaxdiff.core import c_noise, few_steps, grids, predictions, samplers, times
from jaxdiff.core.denoise import NetworkDenoiser
from jaxdiff.core.exact import Mixture
from jaxdiff.core.few_steps import ConsistencyTuning, MeanFlowLoss, TrajectoryEnd, WarmStart
from jaxdiff.core.flow_maps import ConsistencyModel, End, FlowMap, MeanFlow, Walked
from jaxdiff.core.process import VE, VP, Flow, LinearVE
from jaxdiff.core.sampling import sample
from jaxdiff.nets import UNet

MEAN, DEVIATION = 0.3, 0.5
every_process = pytest.mark.parametrize("process", PROCESSES, ids=name)


@pytest.fixture
def double():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def exact(process):
    """The flow map of Gaussian data as the samplers take it."""

    class Exact(FlowMap):
        def __call__(self, x_t, t, r, *condition):
            return GAUSSIAN.flow_map(process, x_t, t, r)

    return Exact()


# --- flow maps --------------------------------------------------------------------------------------------------------


def test_the_flow_map_of_a_gaussian_is_that_of_the_papers():
    """f(x, t) = mu + (x - mu) s / sqrt(s² + t²), where the noise level is t (Song et al. 2023a)."""
    process, x = LinearVE(sigma_max=80.0), jnp.array([3.0, -1.0, 0.4])
    for level in (0.01, 0.7, 5.0, 80.0):
        want = MEAN + (x - MEAN) * DEVIATION / np.sqrt(DEVIATION**2 + level**2)
        got = GAUSSIAN.flow_map(process, x, jnp.float32(level / 80), jnp.float32(0))
        np.testing.assert_allclose(got, want, rtol=1e-5)


@every_process
def test_a_denoiser_walked_is_its_flow_map(process, double):
    """And it is the identity from a time to itself, and one map after another is one map."""
    t, s, r = (float(process.t_max) * share for share in (1.0, 0.6, 0.3))
    x = process.sigma(t) * jnp.array([1.2, -0.7, 0.1]) + process.alpha(t) * MEAN
    solved = Walked(gaussian(process), process, samplers.AdaptiveODE(1e-8, 1e-8))
    walked = Walked(gaussian(process), process, samplers.DPMpp2S(), 400)
    want = GAUSSIAN.flow_map(process, x, t, r)
    for flow_map in (solved, walked):
        np.testing.assert_allclose(flow_map(x, t, r), want, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(solved(solved(x, t, s), s, r), solved(x, t, r), rtol=3e-5)
    np.testing.assert_allclose(GAUSSIAN.flow_map(process, GAUSSIAN.flow_map(process, x, t, s), s, r), want, rtol=1e-12)
    np.testing.assert_array_equal(GAUSSIAN.flow_map(process, x, t, t), x)


def test_the_flow_map_of_a_mixture_is_the_monotone_one(double):
    """In one dimension it takes each quantile to the same quantile, by an independent root finder."""
    mixture, process = Mixture((-0.8, 0.1, 0.9), 0.2, (0.5, 0.2, 0.3)), Flow()
    walked = Walked(partial(mixture.denoise, process), process, samplers.AdaptiveODE(1e-9, 1e-9))

    def cdf(x, t):
        scale = np.hypot((1 - t) * mixture.deviation, t)
        return sum(
            w * stats.norm.cdf(x, (1 - t) * m, scale) for w, m in zip(mixture.shares, mixture.means, strict=True)
        )

    for t, r in ((0.95, 0.1), (0.9, 0.5), (0.4, 0.02)):
        for x in (-1.5, -0.2, 0.3, 1.1):
            want = optimize.brentq(lambda y, x=x, t=t, r=r: cdf(y, r) - cdf(x, t), -6, 6, xtol=1e-12)
            np.testing.assert_allclose(walked(jnp.array([x]), t, r), [want], rtol=1e-6, atol=1e-7)


def test_a_mixture_has_no_flow_map_in_closed_form():
    with pytest.raises(ValueError, match="one Gaussian"):
        Mixture((-1.0, 1.0), 0.2, (0.5, 0.5)).flow_map(Flow(), jnp.zeros(2), 0.5, 0.1)


@pytest.mark.parametrize("sampler", [samplers.Jump(), samplers.Consistency()], ids=name)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@every_process
def test_the_exact_map_gives_the_exact_law(process, steps, sampler):
    """Whatever the steps: of 20,000 numbers mean and deviation are within four standard errors."""
    grid = (grids.LogSNR() if steps < 7 else grids.Uniform(first=process.t_max))(process, steps)
    data = np.random.default_rng(0).normal(MEAN, DEVIATION, (100, 200)).astype(np.float32)
    x = sample(exact(process), process, sampler, grid, shape=(200,), indices=100, images=data)
    assert abs(x.mean() - MEAN) < 4 * DEVIATION / np.sqrt(x.size)
    assert abs(x.std() / DEVIATION - 1) < 4 / np.sqrt(2 * x.size)


def test_jumps_are_jumps_and_consistency_adds_noise_anew():
    process, grid = LinearVE(), grids.Karras(last=0.01)
    one = [
        sample(exact(process), process, s, grid(process, 1), shape=(4,), indices=3)
        for s in (samplers.Jump(), samplers.Consistency())
    ]
    np.testing.assert_array_equal(*one)
    jumps = sample(exact(process), process, samplers.Jump(), grid(process, 5), shape=(4,), indices=3)
    np.testing.assert_allclose(jumps, one[0], rtol=1e-4)  # one map after another is one map
    again = sample(exact(process), process, samplers.Consistency(), grid(process, 2), shape=(4,), indices=3)
    assert np.abs(again - one[0]).max() > 0.1


def test_what_is_expected_of_a_flow_map_is_where_it_ends():
    process, seen = LinearVE(), []
    look = lambda progress: seen.append((progress.images, progress.expected))  # noqa: E731
    grid = grids.Karras(last=0.01)(process, 3)
    sample(exact(process), process, samplers.Jump(), grid, shape=(4,), indices=2, callback=look, every=1)
    for t, (x, expected) in zip(grid[1:], seen, strict=True):
        np.testing.assert_allclose(expected, GAUSSIAN.flow_map(process, x, t, 0.0), rtol=1e-5)


def test_what_does_not_fit_is_refused():
    process = LinearVE()
    model = ConsistencyModel(NetworkDenoiser(lambda x, c: x, process, predictions.velocity, c_noise=c_noise.time))
    draw = partial(sample, shape=(2,), indices=1)
    grid = grids.Karras()(process, 2)
    with pytest.raises(ValueError, match=r"DDIM\(eta=0.0\) takes a denoiser, and this model is a ConsistencyModel"):
        draw(model, process, samplers.DDIM(), grid)
    with pytest.raises(ValueError, match=r"Jump\(\) takes a model of few steps, and this is a denoiser"):
        draw(model.end, process, samplers.Jump(), grid)
    with pytest.raises(ValueError, match=r"jumps to clean data only: Jump\(\) is for one step of it"):
        draw(model, process, samplers.Jump(), grid)
    with pytest.raises(ValueError, match="two samplers without history"):
        samplers.PredictorCorrector(samplers.Jump())
    with pytest.raises(ValueError, match="the denoiser was made for"):
        draw(model, VP(), samplers.Jump(), grid[::2])
    with pytest.raises(ValueError, match="a sampler without history"):
        samplers.Resampling(samplers.Consistency())


# --- consistency ------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1))
def chain(objective, process, t):
    """By how much the minimiser shrinks x_t - alpha mu, and r: the steps down to r = 0 are those of DDIM."""

    def link(t):
        t = process.at(t)
        r, variance = objective.earlier(t, 0), (t.alpha * DEVIATION) ** 2 + t.sigma**2
        return (r.alpha * t.alpha * DEVIATION**2 + r.sigma * t.sigma) / variance, r.t

    def further(carry):
        shrunk, r = link(carry[1])
        return carry[0] * shrunk, r

    gain, _ = jax.lax.while_loop(lambda carry: process.sigma(carry[1]) > 1e-8, further, (jnp.ones(()), t))
    return gain, link(t)[1]


class Linear:
    """x_0 = mu + gain (1 + tilt) (x_t - alpha mu), of two times: the tilt is learnt, and is 0 at the minimum."""

    t_max = 1.0

    def __init__(self, process, times, gains, tilt):
        self.process, self.times, self.gains, self.tilt = process, times, gains, tilt

    def __call__(self, x, t, *condition):
        gain = self.gains[jnp.argmin(jnp.abs(self.times - t))]
        return MEAN + gain * (1 + self.tilt) * (x - self.process.alpha(t) * MEAN)


MIRRORED = [(p, q) for p in (-1.3, 0.4, 2.0) for q in (-1.7, -0.5, 0.5, 1.7)]  # along x_t, and across it


def mirrored(process, t):
    """Pairs (x_0, eps) in units of their deviations, of which each has a mirror image with the same x_t."""
    point = process.at(t)
    turn, (p, q) = jnp.arctan2(point.sigma, point.alpha * DEVIATION), jnp.array(MIRRORED).T
    return MEAN + DEVIATION * (jnp.cos(turn) * p - jnp.sin(turn) * q), jnp.sin(turn) * p + jnp.cos(turn) * q


@contextlib.contextmanager
def noise_is(eps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_steps, "normal", lambda key, shape, dtype: jnp.broadcast_to(eps, shape).astype(dtype))
        yield


@partial(jax.jit, static_argnums=(0, 1, 2))
def gradients(objective, process, taught, u, times, gains):
    """That of each pair with respect to the tilt, at 0."""

    def one(x_0, eps):
        def loss(tilt):
            model, known = (
                Linear(process, times, gains, tilt),
                {"step": 0, "teacher": gaussian(process) if taught else None},
            )
            return objective(model, jax.random.key(0), x_0[None], None, u, **known)

        with noise_is(eps):
            return jax.grad(loss)(jnp.zeros(()))

    return jax.vmap(one)(*mirrored(process, times[0]))


STAGES = [
    ConsistencyTuning(c=0.1, stage=0),
    ConsistencyTuning(stage=2),
    ConsistencyTuning(stage=3, q=4.0, k=3.0, b=0.5),
    ConsistencyTuning(times.UniformTimes(), stage=4, k=0.0),
]


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("objective", STAGES, ids=str)
@every_process
def test_the_fixed_point_of_consistency_tuning_is_the_chain_of_ddim_steps(objective, process, taught, double):
    """No gradient there, and one elsewhere, at several times; whether it learns of data or of a teacher."""
    for u in (0.15, 0.5, 0.93):
        t = few_steps._point(Linear(process, None, None, 0.0), objective.times, jnp.asarray(u)).t
        gain, r = chain(objective, process, t)
        pair, gains = jnp.stack([t, r]), jnp.stack([gain, chain(objective, process, r)[0]])
        found = gradients(objective, process, taught, u, pair, gains)
        size = float(jnp.abs(found).sum())
        assert abs(float(found.sum())) < 1e-6 * size or size < 1e-9
        found = gradients(objective, process, taught, u, pair, gains * jnp.array([1.1, 1.0]))
        assert abs(float(found.sum())) > 1e-3 * float(jnp.abs(found).sum())


def test_the_chain_tends_to_the_exact_map_as_the_stage_rises(double):
    """Its error halves from one stage to the next."""
    for process in (LinearVE(), VP(), Flow()):
        t = process.time(jnp.asarray(-2 * np.log(3.0)))
        x = process.alpha(t) * MEAN + 1.0
        want = float(GAUSSIAN.flow_map(process, x, t, jnp.zeros(())) - MEAN)
        errors = [chain(ConsistencyTuning(stage=s, k=1.0), process, t)[0] - want for s in (4, 5, 6)]
        assert abs(errors[0]) > 1e-4
        np.testing.assert_allclose(np.divide(errors[1:], errors[:-1]), 0.5, atol=0.06)


def test_pairs_are_those_of_the_paper():
    """r = max(0, t [1 - q^-(s+1) (1 + k sigmoid(-b t))]), in noise levels; the stage rises with the step."""
    process = LinearVE()
    for stage, level in ((0, 0.3), (0, 9.0), (1, 0.2), (2, 0.7), (5, 40.0)):
        share = 1 - 2.0 ** -(stage + 1) * (1 + 8 / (1 + np.exp(level)))
        point = process.at(jnp.float32(level / 80))
        for objective, step in (
            (ConsistencyTuning(stage=stage), 0),
            (ConsistencyTuning(stage=9, stage_steps=10), 10 * stage + 9),
        ):
            r = objective.earlier(point, jnp.int32(step))
            np.testing.assert_allclose(r.ratio, level * max(share, 0), rtol=1e-4, atol=1e-7)
    last = ConsistencyTuning(stage=3, stage_steps=10).earlier(process.at(0.5), jnp.int32(10**6))
    np.testing.assert_allclose(last.ratio, ConsistencyTuning(stage=3).earlier(process.at(0.5), 0).ratio, rtol=1e-6)


@pytest.mark.parametrize(
    "prediction",
    [predictions.noise, predictions.velocity, predictions.score, predictions.flow, predictions.EDMPreconditioning()],
    ids=name,
)
@pytest.mark.parametrize("process", [PROCESSES[0], VP(), Flow(), VE()], ids=name)
def test_every_process_and_prediction_is_tuned(process, prediction):
    """Finite, with its gradient, at all times."""
    objective = ConsistencyTuning(times.UniformTimes(), stage=8)
    for u in (0.0, 0.2, 0.77, 0.9999):

        def loss(factor, u=u):
            model = NetworkDenoiser(lambda x, c: jnp.tanh(x) * factor, process, prediction, c_noise=c_noise.time)
            return objective(
                model, jax.random.key(3), jnp.array([0.2, -0.9]), None, jnp.float32(u), step=0, teacher=None
            )

        assert np.all(np.isfinite(jax.value_and_grad(loss)(1.0)))


def test_both_images_of_a_pair_have_the_same_noise_and_no_gradient_goes_through_the_target():
    process, seen = LinearVE(), []
    objective = ConsistencyTuning(stage=6)

    def loss(factor):
        def network(x, c):
            jax.debug.callback(lambda x, c: seen.append((np.asarray(x), float(c))), x, c)
            return x * factor

        model = NetworkDenoiser(network, process, predictions.data, c_noise=c_noise.time)
        return objective(model, jax.random.key(3), X_0, None, jnp.float32(0.6), step=0, teacher=None)

    slope = float(jax.grad(loss)(0.5))
    jax.effects_barrier()
    (x_r, r), (x_t, t) = sorted(seen, key=lambda pair: pair[1])[0], sorted(seen, key=lambda pair: pair[1])[-1]
    np.testing.assert_allclose((x_t - X_0) / (t * 80), (x_r - X_0) / (r * 80), rtol=1e-3)
    gap = 0.5 * (x_t - x_r)
    np.testing.assert_allclose(slope, gap @ x_t / np.linalg.norm(gap) / (80 * (t - r)), rtol=1e-3)


X_0 = np.array([0.5, -0.8, 0.1], np.float32)


def test_the_end_of_a_trajectory_is_what_is_regressed_on(double):
    """The walk is the teacher's own; the loss is 0 where the model knows where it ends, and nowhere else."""
    process, objective = LinearVE(), TrajectoryEnd(steps=5, count=4, c=0.0)
    walk = partial(objective.walk, gaussian(process), process)
    noise = jax.random.normal(jax.random.key(1), (4, 3), jnp.float64)
    x, end = jax.vmap(lambda noise: walk(noise, None))(noise)
    drawn = sample(
        gaussian(process),
        process,
        objective.sampler,
        objective.times(process),
        shape=(3,),
        indices=4,
        noise=np.asarray(noise),
    )
    np.testing.assert_allclose(end, drawn, rtol=1e-6)
    np.testing.assert_allclose(x[:, 0], 80 * noise, rtol=1e-6)
    walks = few_steps.Trajectories(x, end, None, None)

    def network(x_t, c):
        row, _ = jnp.unravel_index(jnp.argmin(jnp.sum(jnp.abs(x - x_t[None, None]), -1)), (4, 5))
        return end[row]

    known = NetworkDenoiser(network, process, predictions.data, c_noise=c_noise.time)
    wrong = NetworkDenoiser(lambda *both: network(*both) + 0.25, process, predictions.data, c_noise=c_noise.time)
    for k in range(20):
        ask = lambda model, k=k: objective(model, jax.random.key(k), X_0, None, jnp.asarray(k / 20), trajectories=walks)  # noqa: E731
        assert float(ask(known)) == pytest.approx(0, abs=1e-9)
        assert float(ask(wrong)) == pytest.approx(0.25, rel=1e-6)


def test_a_warm_start_is_one_objective_and_then_the_other():
    class First(TrajectoryEnd):
        def __call__(self, *example, **known):
            return jnp.float32(1)

    class Then(ConsistencyTuning):
        def __call__(self, *example, step, **known):
            return 2 + jnp.float32(step)

    objective = WarmStart(First(), 3, Then())
    got = [float(objective(None, None, None, None, None, step=jnp.int32(step))) for step in range(6)]
    assert got == [1, 1, 1, 2, 3, 4]  # each counts its own steps
    assert objective.needs_teacher
    assert objective.walks == First()
    assert WarmStart(ConsistencyTuning(), 3, ConsistencyTuning()).walks is None
    with pytest.raises(ValueError, match="two objectives of consistency models"):
        WarmStart(MeanFlowLoss())
    with pytest.raises(ValueError, match="one kind of walks"):
        WarmStart(TrajectoryEnd(steps=4), 3, TrajectoryEnd(steps=8))


# --- mean flows -------------------------------------------------------------------------------------------------------


def mean_velocity(x, t, r):
    """u of Gaussian data in closed form, and its limit where r = t, the velocity."""
    process = Flow()
    jump = (x - GAUSSIAN.flow_map(process, x, t, r)) / jnp.where(t > r, t - r, 1.0)
    still = process.at(t).velocity(x, GAUSSIAN.denoise(process, x, t))
    return jnp.where(t > r, jump, still)


def test_the_mean_flow_identity_holds_on_a_mixture(double):
    """u = v - (t - r) du/dt to 1e-6 at any (t, r), where u is that of the ODE solved; and of a Gaussian to 1e-9."""
    mixture, process = Mixture((-0.8, 0.9), 0.3, (0.6, 0.4)), Flow()
    walked = Walked(partial(mixture.denoise, process), process, samplers.DPMpp2S(), 2000)

    def check(flow_map, denoise, tolerance):
        for t, r in ((0.9, 0.2), (0.55, 0.5), (0.3, 0.01)):
            for x in (-1.1, 0.05, 0.8):
                u = lambda x, t, r: (x - flow_map(x, t, r)) / (t - r)  # noqa: E731
                x, t_, r_ = jnp.array([x]), jnp.float64(t), jnp.float64(r)
                v = process.at(t_).velocity(x, denoise(x, t_))
                mean, du = jax.jvp(u, (x, t_, r_), (v, jnp.ones_like(t_), jnp.zeros_like(t_)))
                np.testing.assert_allclose(mean, v - (t_ - r_) * du, rtol=tolerance, atol=tolerance)

    check(walked, partial(mixture.denoise, process), 1e-6)
    check(partial(GAUSSIAN.flow_map, process), partial(GAUSSIAN.denoise, process), 1e-9)


@pytest.mark.parametrize(
    "objective",
    [MeanFlowLoss(instant=0.0), MeanFlowLoss(instant=1.0, p=0.0), MeanFlowLoss(instant=0.0, p=0.5, own_tangent=True)],
    ids=str,
)
def test_the_minimum_of_mean_flow_is_the_exact_mean_velocity(objective, double):
    """No gradient there, to 1e-6 of its size, and one where it is tilted: at pairs that are mirror images given x_t."""
    process = Flow()

    @jax.jit
    def gradient(wrong, u, t):
        def one(x_0, eps):
            def loss(tilt):
                network = lambda x, c: (1 + tilt + wrong) * mean_velocity(x, c[0], c[0] - c[1])  # noqa: E731
                model = NetworkDenoiser(network, process, predictions.flow, c_noise=c_noise.time)
                return objective(model, KEY, x_0[None], None, u, null=None, scale=None)

            with noise_is(eps):
                return jax.grad(loss)(jnp.zeros(()))

        return jax.vmap(one)(*mirrored(process, t))

    for u in (0.1, 0.5, 0.95):
        found = gradient(0.0, u, pair_of(objective, u)[0])
        assert abs(float(found.sum())) < 1e-6 * float(jnp.abs(found).sum())
        found = gradient(0.1, u, pair_of(objective, u)[0])
        assert abs(float(found.sum())) > 1e-4 * float(jnp.abs(found).sum())


KEY = jax.random.key(4)


def pair_of(objective, u):
    """The times that it draws, as its network is told them."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeanFlow, "velocity", lambda self, x, t, r, *condition: seen.append((t, r)) or x)
        patch.setattr(few_steps.jax, "jvp", lambda f, at, along: (f(*at), f(*at)))
        model = NetworkDenoiser(lambda x, c: x, Flow(), predictions.flow, c_noise=c_noise.time)
        objective(model, KEY, jnp.ones(1), None, jnp.asarray(u), null=None, scale=None)
    return seen[-1]


def test_times_of_mean_flow_are_two_and_now_and_then_one():
    objective = MeanFlowLoss(times.UniformTimes(), instant=0.25)
    pairs = []
    for k in range(400):
        seen = []

        def network(x, c, seen=seen):
            seen.append(c)
            return x

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(few_steps.jax, "jvp", lambda f, at, along: (f(*at), f(*at)))
            model = NetworkDenoiser(network, Flow(), predictions.flow, c_noise=c_noise.time)
            objective(model, jax.random.key(k), jnp.ones(1), None, jnp.float32((k + 0.5) / 400), null=None, scale=None)
        pairs.append((float(seen[-1][0]), float(seen[-1][1])))
    t, length = np.array(pairs).T
    assert np.all((length >= 0) & (t <= 1))
    assert np.all(t - length > 0)
    assert (length == 0).mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 400) ** 0.5)
    assert stats.kstest(t, lambda x: np.clip(x, 0, 1) ** 2).pvalue > 0.01  # the larger of two


def test_the_loss_of_mean_flow_has_the_gradient_of_the_papers_and_a_value_to_look_at():
    for p in (0.0, 0.5, 1.0, 1.5):
        objective = MeanFlowLoss(p=p, c=0.01)
        for square in (0.0, 0.3, 40.0):
            slope = float(jax.grad(objective.adapted)(square))
            assert slope == pytest.approx((square + 0.01) ** -p, rel=1e-5)
        assert float(objective.adapted(0.0)) == pytest.approx(0, abs=1e-6)


def test_guidance_of_mean_flow_moves_the_velocity_away_from_that_without_a_condition():
    """At r = t the target is w v + (1 - w) u(null), whatever else."""
    process, objective = Flow(), MeanFlowLoss(instant=1.0, p=0.0)

    def network(x, c, label):
        return jnp.where(label < 0, 0.5, 0.0) * x

    model = NetworkDenoiser(network, process, predictions.flow, c_noise=c_noise.time)
    x_0 = jnp.array([0.5, -0.8, 0.1])
    for w in (0.0, 1.0, 2.5):
        for_noise, _, _ = jax.random.split(KEY, 3)
        eps = few_steps.normal(for_noise, x_0.shape)
        t = pair_of(objective, 0.4)[0]
        x_t = process.perturb(x_0, eps, t)
        want = jnp.sum((w * (eps - x_0) + (1 - w) * 0.5 * x_t) ** 2)
        got = objective(model, KEY, x_0, jnp.int32(3), jnp.float32(0.4), null=jnp.int32(-1), scale=jnp.float32(w))
        assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_a_mean_flow_is_for_flow_alone():
    fits = NetworkDenoiser(lambda x, c: x, Flow(), predictions.flow, c_noise=c_noise.ScaledTime())
    MeanFlowLoss().check(fits)
    for wrong in (
        replace(fits, process=VP()),
        replace(fits, prediction=predictions.velocity),
    ):
        with pytest.raises(ValueError, match=r"process=Flow\(\) and prediction=predictions.flow"):
            MeanFlowLoss().check(wrong)
    with pytest.raises(ValueError, match="c_noise that is finite at t = 0"):
        MeanFlowLoss().check(replace(fits, c_noise=c_noise.log_sigma))


def test_the_end_of_a_flow_map_is_like_a_denoiser():
    process = Flow()
    x = jnp.array([0.4, 1.0])
    np.testing.assert_allclose(End(exact(process))(x, jnp.float32(0.7)), GAUSSIAN.flow_map(process, x, 0.7, 0.0))
    model = NetworkDenoiser(
        lambda x, c: mean_velocity(x, c[0], c[0] - c[1]), process, predictions.flow, c_noise=c_noise.time
    )
    np.testing.assert_allclose(MeanFlow(model)(x, 0.7, 0.2), GAUSSIAN.flow_map(process, x, 0.7, 0.2), rtol=1e-5)


KNOWN = NetworkDenoiser(lambda x, c: x, LinearVE(), predictions.EDMPreconditioning(), c_noise=c_noise.log_sigma)


@pytest.mark.parametrize(
    ("make", "legal"),
    [
        (lambda: ConsistencyTuning(q=1.0), "q > 1"),
        (lambda: ConsistencyTuning(c=-1.0), "c >= 0"),
        (lambda: ConsistencyTuning(stage=-1), "stage"),
        (lambda: ConsistencyTuning(stage=17), "stage"),
        (lambda: TrajectoryEnd(samplers.Jump()), "a sampler of the ODE"),
        (lambda: TrajectoryEnd(grid=grids.Uniform(last=0.3)).check(KNOWN), r"a grid of 8 steps down to t = 0"),
        (lambda: WarmStart(TrajectoryEnd(grid=grids.Karras(to_data=False))).check(KNOWN), "down to t = 0"),
        (lambda: ConsistencyTuning(stage_steps=0), "stage_steps > 0 or None"),
        (lambda: TrajectoryEnd(samplers.DDPM()), "a sampler of the ODE"),
        (lambda: Walked(KNOWN, LinearVE(), samplers.DPMpp2M(eta=1.0)), "a sampler of the ODE"),
        (lambda: TrajectoryEnd(steps=0), "steps"),
        (lambda: TrajectoryEnd(count=0), "count"),
        (lambda: MeanFlowLoss(instant=1.2), "0 <= instant <= 1"),
        (lambda: MeanFlowLoss(c=0.0), "c > 0"),
        (
            lambda: UNet(noise_embedding=None).init(KEY, jnp.zeros((8, 8, 1)), jnp.zeros(2)),
            "a noise_embedding, for further",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, legal):
    with pytest.raises(ValueError, match=legal):
        make()
