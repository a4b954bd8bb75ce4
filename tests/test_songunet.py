"""NCSN++ as Karras et al. 2022 describe it, written down once more in float64 numpy, against the UNet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.nets import unet

FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def silu(x):
    return x / (1 + np.exp(-x))


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def conv(p, x, border=1):
    x = np.pad(x, ((border, border), (border, border), (0, 0)))
    H, W = x.shape[0] - 2, x.shape[1] - 2
    return sum(x[i : i + H, j : j + W] @ p["kernel"][i, j] for i in range(3) for j in range(3)) + p["bias"]


def norm(p, x):
    groups = min(32, x.shape[-1] // 4)
    g = x.reshape(*x.shape[:2], groups, -1)
    mean, variance = g.mean((0, 1, 3), keepdims=True), g.var((0, 1, 3), keepdims=True)
    return ((g - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape) * p["scale"] + p["bias"]


def halved(x, border=1):
    x = np.pad(x, ((border, border), (border, border), (0, 0)))
    rows, columns = ((n - 4) // 2 + 1 for n in x.shape[:2])
    return np.array(
        [
            [np.tensordot(FILTER, x[2 * i : 2 * i + 4, 2 * j : 2 * j + 4], 2) for j in range(columns)]
            for i in range(rows)
        ]
    )


def doubled(x):
    H, W, C = x.shape
    y = np.zeros((2 * H + 2, 2 * W + 2, C))
    for i in range(H):
        for j in range(W):
            y[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += 4 * FILTER[..., None] * x[i, j]
    return y[1:-1, 1:-1]


def block(p, x, embedding, resample=lambda x: x):
    h = conv(p["conv_0"], resample(silu(norm(p["norm_0"], x)))) + dense(p["embedding"], embedding)
    h = conv(p["conv_1"], silu(norm(p["norm_1"], h)))
    x = resample(x)
    return ((dense(p["skip"], x) if "skip" in p else x) + h) / np.sqrt(2)


def attention(p, x):
    tokens = norm(p["norm"], x).reshape(-1, x.shape[-1])
    q, k, v = (dense(p[name], tokens) for name in "qkv")
    logits = q @ k.T / np.sqrt(x.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (x + dense(p["out"], weights @ v).reshape(x.shape)) / np.sqrt(2)


def ncsnpp(p, x, c_noise):
    """Two levels with one block each on the way down and two on the way up, attention at the second."""
    angle = 2 * np.pi * c_noise * 16 * np.random.RandomState(0).standard_normal(16)
    embedding = silu(dense(p["embedding"]["noise_0"], np.concatenate([np.sin(angle), np.cos(angle)])))
    embedding = silu(dense(p["embedding"]["noise_1"], embedding))
    first = conv(p["first"], x)
    fine = block(p["down_0_0"], first, embedding)
    image = halved(conv(p["image_1"], x, border=2), border=0)  # the filter sees what the convolution says of outside
    coarse = (block(p["down_1"], fine, embedding, halved) + image) / np.sqrt(2)
    coarsest = attention(p["down_1_0_attention"], block(p["down_1_0"], coarse, embedding))
    h = attention(p["middle_attention"], block(p["middle_0"], coarsest, embedding))
    h = block(p["middle_1"], h, embedding)
    h = block(p["up_1_0"], np.concatenate([h, coarsest], -1), embedding)
    h = attention(p["up_1_1_attention"], block(p["up_1_1"], np.concatenate([h, coarse], -1), embedding))
    h = block(p["up_1"], h, embedding, doubled)
    h = block(p["up_0_0"], np.concatenate([h, fine], -1), embedding)
    h = block(p["up_0_1"], np.concatenate([h, first], -1), embedding)
    return conv(p["last"], silu(norm(p["last_norm"], h)))


@pytest.mark.parametrize("c_noise", [0.05, 0.3])
def test_ncsnpp_is_the_published_network(c_noise):
    net = unet.NCSNPP.clone(channels=16, multipliers=(1, 2), blocks=1, noise_width=32, dropout=0.0)
    x, random = np.random.default_rng(1).standard_normal((6, 8, 3)), np.random.default_rng(2)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(x.shape), 0.0)["params"]
    params = jax.tree.map(lambda s: random.standard_normal(s.shape) / np.sqrt(max(np.prod(s.shape[:-1]), 4)), shapes)
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    found, exact = (
        jax.jit(net.apply)({"params": single}, jnp.asarray(x, jnp.float32), c_noise),
        ncsnpp(params, x, c_noise),
    )
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())
