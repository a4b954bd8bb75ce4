"""The fast 3x3 convolution against the sum over nine neighbours, and under each of JAX's transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from jaxdiff.nets import SmallUNet, UNet
from jaxdiff.nets.machine import Kind, compiled_for
from jaxdiff.nets.winograd import convolution
from jaxdiff.nets.winograd.convolution import convolve, convolve_strided


def images(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def nine_neighbours(x, kernel):
    """In float64, spelled out."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    H, W = x.shape[-3:-1]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    return sum(padded[..., i : i + H, j : j + W, :] @ kernel[i, j] for i in range(3) for j in range(3))


# the first are large enough for tiles, cut by the border or not; the last are not
SHAPES = [
    (8, 16, 16, 24, 16),
    (12, 14, 13, 16, 24),
    (1, 40, 44, 16, 16),
    (2, 4, 4, 16, 16),
    (3, 16, 16, 3, 16),
    (3, 9, 5, 16, 3),
    (2, 1, 7, 5, 4),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_sum_over_nine_neighbours(shape):
    x, kernel = images(*shape[:4]), images(3, 3, *shape[3:], seed=1)
    exact = nine_neighbours(x, kernel)
    np.testing.assert_allclose(jax.jit(convolve)(x, kernel), exact, atol=4e-6 * np.abs(exact).max(), rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_its_gradients_are_the_adjoints_of_that_sum(shape):
    x, kernel, y = images(*shape[:4]), images(3, 3, *shape[3:], seed=1), images(*shape[:3], shape[4], seed=2)
    dx, dkernel = jax.jit(lambda x, kernel, y: jax.vjp(convolve, x, kernel)[1](y))(x, kernel, y)
    # <y, x * k> is linear in each: compare with the sum on the flipped kernel, and with each tap of the kernel
    exact = nine_neighbours(y, np.flip(kernel, (0, 1)).swapaxes(2, 3))
    np.testing.assert_allclose(dx, exact, atol=4e-6 * np.abs(exact).max(), rtol=0)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    H, W = shape[1:3]
    taps = [[np.einsum("nhwc,nhwk->ck", padded[:, i : i + H, j : j + W], y) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(dkernel, taps, atol=4e-6 * np.abs(taps).max(), rtol=0)


def test_a_batch_by_vmap_is_the_same_program():
    x, kernel = images(8, 16, 16, 16), images(3, 3, 16, 16, seed=1)
    batched, mapped = (jax.jit(f).lower(x, kernel) for f in (convolve, jax.vmap(convolve, (0, None))))
    np.testing.assert_array_equal(batched.compile()(x, kernel), mapped.compile()(x, kernel))
    flops = [lowered.compile().cost_analysis()["flops"] for lowered in (batched, mapped)]
    assert flops[0] == flops[1]
    plain = jax.jit(convolution._direct).lower(x, kernel).compile().cost_analysis()["flops"]
    assert flops[0] < 0.8 * plain


def test_as_written_it_is_counted_whole():
    """FLOPs that a dry run tells: two for each tap within the image, of each image, in the gradients too."""
    x, kernel, y = images(64, 32, 32, 16), images(3, 3, 16, 8, seed=1), images(64, 32, 32, 8, seed=2)
    with compiled_for(Kind("any")), jax.default_matmul_precision("highest"):
        lowered = jax.jit(lambda x, kernel, y: jax.vjp(convolve, x, kernel)[1](y)).lower(x, kernel, y)
        flops = lowered.cost_analysis()["flops"]
    assert flops == pytest.approx(2 * 2 * 64 * (3 * 32 - 2) ** 2 * 16 * 8, rel=0.01)  # of each of two gradients


def test_every_transformation_goes_through():
    x, kernel, y = images(8, 16, 16, 16), images(3, 3, 16, 16, seed=1), images(8, 16, 16, 16, seed=2)
    exact = nine_neighbours(y, kernel)
    tangent = jax.jit(lambda x, k, y: jax.jvp(lambda x: convolve(x, k), (x,), (y,))[1])(x, kernel, y)
    np.testing.assert_allclose(tangent, exact, atol=4e-6 * np.abs(exact).max(), rtol=0)

    def energy(f, x, kernel):
        return jnp.sum(f(x, kernel) ** 2)

    def twice(f):  # second derivatives, and kernels of their own for each of two images
        hessian = jax.jvp(lambda k: jax.grad(energy, 2)(f, x[:2], k), (kernel,), (kernel,))[1]
        each = jax.vmap(lambda x, k: jax.grad(energy, 2)(f, x, k))(x[:2, None], jnp.stack([kernel, 2 * kernel]))
        return hessian, each

    for fast, plain in zip(
        jax.jit(lambda: twice(convolve))(), jax.jit(lambda: twice(convolution._direct))(), strict=True
    ):
        np.testing.assert_allclose(fast, plain, atol=1e-5 * float(jnp.abs(plain).max()), rtol=0)


def test_highest_precision_takes_the_plain_sum():
    x, kernel = images(8, 16, 16, 16), images(3, 3, 16, 16, seed=1)
    with jax.default_matmul_precision("highest"):
        exact = jax.jit(convolve)(x, kernel)
        np.testing.assert_array_equal(exact, jax.jit(convolution._direct)(x, kernel))
    assert bool(jnp.any(exact != jax.jit(convolve)(x, kernel)))


@pytest.mark.parametrize("at_once", [1, 3])
def test_it_is_exported_with_the_batch_left_open(monkeypatch, at_once):
    monkeypatch.setattr(convolution, "CACHE", at_once * 4 * 4 * 36 * 4 * (16 + 16))  # room for so many images
    kernel = images(3, 3, 16, 16, seed=1)

    def both_ways(x, y):
        out, back = jax.vjp(convolve, x, kernel)
        return out, *back(y)

    (n,) = export.symbolic_shape("n")
    like = jax.ShapeDtypeStruct((n, 16, 16, 16), np.float32)
    program = export.export(jax.jit(both_ways), platforms=["cpu", "cuda", "tpu"])(like, like)
    for count in (1, 5):
        x, y = images(count, 16, 16, 16), images(count, 16, 16, 16, seed=2)
        for open_batch, known in zip(program.call(x, y), jax.jit(both_ways)(x, y), strict=True):
            np.testing.assert_allclose(open_batch, known, atol=1e-5 * np.abs(known).max(), rtol=0)


def test_a_batch_left_open_is_taken_in_parts(monkeypatch):
    """As many at once as the cache has room for; what the last part lacks is filled up."""
    monkeypatch.setattr(convolution, "CACHE", 3 * 36 * 4 * (16 + 16))
    (n,) = export.symbolic_shape("n")
    sizes = jax.jit(lambda x: [jnp.asarray(size) for size in convolution._in_cache(x, 16)])
    program = export.export(sizes, platforms=["cpu"])(jax.ShapeDtypeStruct((n, 4, 4, 16), np.float32))
    found = [tuple(map(int, program.call(images(count, 4, 4, 16)))) for count in range(1, 9)]
    assert found == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (2, 3), (3, 3), (3, 3)]


# --- strided, and in loops -------------------------------------------------------------------------------------------

STRIDED = [(stride, padding) for stride in (1, 2, 3) for padding in ((0, 1), (1, 1), (1, 0), (0, 0), (2, 3))]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(("stride", "padding"), STRIDED, ids=str)
@pytest.mark.parametrize("size", [(6, 8), (7, 3)], ids=str)
def test_a_strided_one_and_its_gradients_are_sums_spelled_out(size, stride, padding, platform):
    x, kernel = images(2, *size, 3, seed=3), images(3, 3, 3, 4, seed=4)
    h, w = ((length + sum(padding) - 3) // stride + 1 for length in size)

    def spelled_out(x, kernel):
        padded = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
        rows = [[padded[:, i * stride :, j * stride :][:, :3, :3] for j in range(w)] for i in range(h)]
        return jnp.stack([jnp.stack([jnp.einsum("nijc,ijck->nk", at, kernel) for at in row], 1) for row in rows], 1)

    def ours(x, kernel):  # each image for itself, as networks are written
        return jax.vmap(lambda x: convolve_strided(x, kernel, stride, padding))(x)

    dx, dkernel = images(*x.shape, seed=5), images(*kernel.shape, seed=6)
    with jax.default_matmul_precision("highest"), compiled_for(Kind(platform)):
        for way in (lambda f: jax.jvp(f, (x, kernel), (dx, dkernel)), lambda f: jax.vjp(f, x, kernel)[1](f(x, kernel))):
            for mine, exact in zip(way(ours), way(spelled_out), strict=True):
                np.testing.assert_allclose(mine, exact, atol=1e-5 * float(jnp.abs(exact).max()), rtol=0)


@pytest.mark.parametrize(
    "net", [UNet(16, (1, 2), blocks=1, attention=()), SmallUNet(widths=(8, 16))], ids=lambda net: net.__class__.__name__
)
def test_no_gradient_of_a_kernel_is_left_to_xla_in_a_loop(net):
    """There it takes fifty times as long on a CPU: XLA brings only convolutions outside of loops into its form."""
    x = images(4, 2, 8, 8, 1)
    params = net.init(jax.random.key(0), x[0, 0], jnp.zeros(()))

    def gradient(x):
        return jax.grad(lambda params: jnp.sum(jax.vmap(lambda x: net.apply(params, x, jnp.zeros(())))(x) ** 2))(params)

    def summed(x):
        return lax.scan(lambda total, x: (jax.tree.map(jnp.add, total, gradient(x)), None), gradient(x[0]), x)[0]

    program = jax.jit(summed).lower(x).compile().as_text()
    assert " convolution(" in program
    assert "f01b" not in program  # batch and channels changed places
    assert "lhs_dilate" not in program


def test_of_a_tangent_that_is_zero_nothing_is_computed():
    x, kernel = images(2, 8, 8, 3), images(3, 3, 3, 4, seed=1)
    for platform in ("cpu", "tpu"):
        with compiled_for(Kind(platform)):
            along = jax.make_jaxpr(lambda x: jax.jvp(lambda x: convolve_strided(x, kernel, 2, (0, 1)), (x,), (x,)))(x)
        assert str(along).count("conv_general_dilated") + str(along).count("dot_general") == 2


def test_where_no_pixel_is_left_gradients_are_zero():
    x, kernel = images(2, 1, 4, 3), images(3, 3, 3, 4, seed=1)
    y, back = jax.vjp(lambda x, kernel: convolve_strided(x, kernel, 2, (0, 1)), x, kernel)
    assert y.size == 0
    assert not any(jnp.any(gradient) for gradient in back(y))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_gradient_of_another_type_takes_parts_of_a_batch_too(dtype):
    """Not the neighbours of all pixels at once, which are nine times the images."""

    def workspace(count):
        x, kernel = jax.ShapeDtypeStruct((count, 32, 32, 16), dtype), jax.ShapeDtypeStruct((3, 3, 16, 16), dtype)
        gradient = jax.grad(lambda kernel, x: jnp.sum(convolve(x, kernel)))
        return jax.jit(gradient).lower(kernel, x).compile().memory_analysis().temp_size_in_bytes

    more_images = (256 - 64) * 32 * 32 * 16 * jnp.dtype(dtype).itemsize
    assert workspace(256) - workspace(64) < 6 * more_images
