"""Schedules and optimisers against their formulas, written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdiff.training import Adam, Ema, Muon, PowerEma, Schedule
from jaxdiff.training.optimisers import matrices, transform_of

PARAMS = {
    "kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "bias": np.array([0.5, -2.0], np.float32),
    "norm": {"scale": np.full(3, 2.0, np.float32)},
}


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), PARAMS)


def taken(adam, steps, of=1000):
    """The parameters after some steps."""
    transform, params = adam.transform(of), PARAMS
    state = transform.init(params)
    for step in range(steps):
        updates, state = jax.jit(transform.update)(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def written_out(adam, steps, of=1000, decayed=("kernel",)):
    """Kingma & Ba's algorithm 1 and Loshchilov & Hutter's algorithm 2, in float64."""
    params = jax.tree.map(np.float64, PARAMS)
    m = v = jax.tree.map(np.zeros_like, params)
    for step in range(steps):
        g = jax.tree.map(np.float64, gradients(step))
        norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(g)))
        shrink = 1.0 if adam.clip is None else min(1.0, adam.clip / norm)
        rate = adam.rate * float(adam.schedule(jnp.float32(step), of))
        m = jax.tree.map(lambda m, g: adam.b1 * m + (1 - adam.b1) * shrink * g, m, g)  # noqa: B023
        v = jax.tree.map(lambda v, g: adam.b2 * v + (1 - adam.b2) * (shrink * g) ** 2, v, g)  # noqa: B023

        def moved(path, p, m, v, rate=rate, n=step + 1):
            decay = adam.weight_decay * p if path[0].key in decayed else 0.0
            return p - rate * (m / (1 - adam.b1**n) / (np.sqrt(v / (1 - adam.b2**n)) + adam.epsilon) + decay)

        params = jax.tree_util.tree_map_with_path(moved, params, m, v)
    return params


@pytest.mark.parametrize(
    "adam",
    [
        Adam(1e-2),
        Adam(1e-2, b1=0.5, b2=0.9, epsilon=1e-3),
        Adam(1e-2, clip=0.5),
        Adam(1e-2, weight_decay=0.1),
        Adam(1e-1, Schedule("cosine", warmup=4, final=0.1), weight_decay=0.3, clip=1.0),
    ],
    ids=str,
)
def test_adam_as_written_out(adam):
    for got, wanted in zip(*(jax.tree.leaves(f(adam, 12, 10)) for f in (taken, written_out)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)


def test_muon_moves_kernels_by_an_orthogonal_matrix_of_the_size_of_adams_step():
    random = np.random.RandomState(0)
    params = {"kernel": random.randn(3, 3, 8, 24), "narrow": {"kernel": random.randn(12, 4)}, "bias": random.randn(24)}
    params = jax.tree.map(np.float32, params)
    muon, adam = Muon(1e-2, clip=None), Adam(1e-2)
    moved = {}
    for name, optimiser in (("muon", muon), ("adam", adam)):
        transform = optimiser.transform(100)
        moved[name] = transform.update(params, transform.init(params), params)[0]  # of a first gradient
    kernel = np.reshape(moved["muon"]["kernel"], (72, 24))
    left, _, right = np.linalg.svd(np.reshape(params["kernel"], (72, 24)), full_matrices=False)
    scale = np.diag(left.T @ kernel @ right.T) / (-1e-2 * 0.2 * np.sqrt(72))
    assert np.all((scale > 0.65) & (scale < 1.25))  # what five steps of the iteration leave
    turned = left.T @ kernel @ right.T
    np.testing.assert_allclose(turned - np.diag(np.diag(turned)), 0, atol=1e-5)
    for one in ("bias", "narrow"):
        signs = [np.sign(jax.tree.leaves(moved[name][one])[0]) for name in ("muon", "adam")]
        np.testing.assert_array_equal(*signs)
        assert np.ptp(np.abs(jax.tree.leaves(moved["muon"][one])[0])) < 1e-6  # the sign, as Adam's first step is


def test_muon_decays_weights_as_adam_does():
    plain, decayed = (taken(Muon(1e-2, weight_decay=decay), 1) for decay in (0.0, 0.5))
    np.testing.assert_allclose(plain["kernel"] - decayed["kernel"], 1e-2 * 0.5 * PARAMS["kernel"], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(plain["bias"], decayed["bias"])


def test_weight_decay_spares_norms_and_biases():
    decayed, plain = taken(Adam(1e-2, weight_decay=0.5), 5), taken(Adam(1e-2), 5)
    assert matrices(PARAMS) == {"kernel": True, "bias": False, "norm": {"scale": False}}
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])
    np.testing.assert_array_equal(decayed["norm"]["scale"], plain["norm"]["scale"])
    assert np.abs(decayed["kernel"] - plain["kernel"]).max() > 0.01


def shares(schedule, at, steps=1000):
    return [float(schedule(jnp.float32(step), steps)) for step in at]


def test_schedules():
    warm = Schedule(warmup=100)
    np.testing.assert_allclose(shares(warm, [0, 49, 99, 100, 999]), [0.01, 0.5, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(shares(Schedule(), [0, 500]), [1, 1])
    cosine = Schedule("cosine", warmup=200, final=0.1)
    np.testing.assert_allclose(shares(cosine, [99, 199, 200, 600, 1000, 1500]), [0.5, 1, 1, 0.55, 0.1, 0.1], rtol=1e-5)
    root = Schedule("inverse_sqrt", warmup=10, reference=400)
    np.testing.assert_allclose(shares(root, [4, 400, 1600, 40_000]), [0.5, 1, 0.5, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Adam(0.0), "rate > 0"),
        (lambda: Adam(math.inf), "finite rate > 0"),
        (lambda: Adam(1e39), "finite rate > 0"),  # infinite in float32
        (lambda: Adam(math.nan), "finite rate > 0"),
        (lambda: Adam(epsilon=math.inf), "finite rate > 0 and epsilon > 0"),
        (lambda: Adam(weight_decay=math.inf), "finite weight_decay >= 0"),
        (lambda: Adam(weight_decay=math.nan), "finite weight_decay >= 0"),
        (lambda: Adam(clip=math.nan), "finite clip > 0 or None"),
        (lambda: Adam(b2=math.nan), "0 <= b2 < 1"),
        (lambda: Schedule(warmup=10**20), "0 <= warmup < 2"),
        (lambda: Schedule(final=math.nan), "0 <= final <= 1"),
        (lambda: Ema(math.nan), "0 <= rate < 1"),
        (lambda: PowerEma(math.nan), "0 < width < 0.28"),
        (lambda: Adam(b1=1.0), "0 <= b1 < 1"),
        (lambda: Adam(weight_decay=-1.0), "weight_decay >= 0"),
        (lambda: Adam(clip=0.0), "clip > 0 or None"),
        (lambda: Schedule("linear"), "after one of constant, cosine, inverse_sqrt"),
        (lambda: Schedule(warmup=-1), "0 <= warmup"),
        (lambda: Schedule(final=2.0), "0 <= final <= 1"),
        (lambda: transform_of(lambda: optax.sgd(0.1), 10), r"must take \(steps\), it takes \(\)$"),
        (lambda: transform_of(lambda steps: 3, 10), "an optimiser that gives an optax transformation, got 3"),
    ],
)
def test_bad_optimisers_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
