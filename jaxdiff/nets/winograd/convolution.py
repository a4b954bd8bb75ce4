"""3x3 convolutions, by the fewest multiplications where that is what costs (Winograd 1980, Lavin & Gray 2016).

A tile of 4x4 pixels is the inverse transform of a product of transforms: 36 multiplications for each pair of
channels where the sum over nine neighbours takes 144, and all of them in one batched matrix product. On a CPU that
makes the convolution and both of its gradients more than twice as fast. Accelerators have convolutions of their own.

The transforms evaluate polynomials at five points and infinity; the points 0, +-3/4, +-3/2 keep float32 about three
times as exact as the usual 0, +-1, +-2: the error is within 4e-6 of the largest number in reach of a tile. Ask for
`jax.default_matmul_precision("highest")` and the plain sum is taken. Under `jax.shard_map` say check_vma=False.

Other gradients of kernels, and both of strided convolutions, are matrix products on a CPU: XLA's are slow in loops.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from jaxdiff.nets import machine

TILE = 4
CACHE = 10_000_000  # bytes
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def _toom_cook() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, G, B with y = A^T ((G g) * (B^T d)): four outputs y of the three taps g on the six inputs d."""

    def powers(count):
        return np.array([[p**k for k in range(count)] for p in _POINTS] + [[0.0] * (count - 1) + [1.0]])

    others = [[q for q in _POINTS if q != p] for p in _POINTS]
    scale = np.array([np.prod([p - q for q in rest]) for p, rest in zip(_POINTS, others, strict=True)] + [1.0])
    rows = [np.append(np.poly(rest)[::-1], 0.0) for rest in others] + [np.poly(_POINTS)[::-1]]
    return powers(TILE), powers(3) / scale[:, None], np.array(rows).T


_A, _G, _B = _toom_cook()
_GG = np.einsum("ik,jl->jikl", _G, _G).reshape(36, 9)  # columns first, as the tiles are


def _mixed(matrix: np.ndarray, parts: list[Array]) -> Array:
    """matrix @ parts, as sums: a product with a matrix this small would be all overhead."""
    return jnp.stack([sum(float(m) * part for m, part in zip(row, parts, strict=True) if m) for row in matrix])


def _tiles(x: Array) -> Array:
    """B^T d B of every tile with its border: [N, H, W, C] -> [36, tiles, C]."""
    N, H, W, C = x.shape
    h, w = -(-H // TILE), -(-W // TILE)
    x = jnp.pad(x, ((0, 0), (1, 1 + h * TILE - H), (1, 1 + w * TILE - W), (0, 0)))
    rows = _mixed(_B.T, [x[:, k : k + h * TILE - 3 : TILE] for k in range(6)])
    return _mixed(_B.T, [rows[:, :, :, k : k + w * TILE - 3 : TILE] for k in range(6)]).reshape(36, N * h * w, C)


def _pixels(products: Array, shape: tuple[int, ...]) -> Array:
    """A^T m A of every tile: [36, tiles, C] -> [N, H, W, C]."""
    N, H, W, C = shape
    h, w = -(-H // TILE), -(-W // TILE)
    m = _mixed(_A.T, list(products.reshape(6, 6, N, h, w, C)))  # width: [4, 6, N, h, w, C]
    m = _mixed(_A.T, list(m.swapaxes(0, 1)))  # height: [4, 4, N, h, w, C]
    return m.transpose(2, 3, 0, 4, 1, 5).reshape(N, h * TILE, w * TILE, C)[:, :H, :W]


def _spread(y: Array) -> Array:
    """A y A^T of every tile, the transpose of `_pixels`: [N, H, W, C] -> [36, tiles, C]."""
    N, H, W, C = y.shape
    h, w = -(-H // TILE), -(-W // TILE)
    y = jnp.pad(y, ((0, 0), (0, h * TILE - H), (0, w * TILE - W), (0, 0))).reshape(N, h, TILE, w, TILE, C)
    rows = _mixed(_A, [y[:, :, k] for k in range(TILE)])
    return _mixed(_A, [rows[:, :, :, :, k] for k in range(TILE)]).reshape(36, N * h * w, C)


def _worth_it(x: Array, features: int) -> bool:
    """Few pixels do not pay for the transform of the kernel; few channels or half precision gain nothing."""
    N, H, W, C = x.shape
    enough = min(C, features) >= 16 and (not isinstance(N, int) or N * H * W >= 100 * TILE**2)  # N may be left open
    return enough and x.dtype == jnp.float32 and jax.config.jax_default_matmul_precision is None  # type: ignore[attr-defined]


def _neighbours(x: Array, stride: int = 1, padding: tuple[int, int] = (1, 1)) -> Array:
    """The 3x3 pixels around every `stride`-th one, beside each other: [..., H, W, C] -> [..., h, w, 9 C]."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [padding, padding, (0, 0)])
    h, w = (max((size - 3) // stride * stride + 1, 0) for size in x.shape[-3:-1])
    parts = [x[..., i : i + h : stride, j : j + w : stride, :] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, -1)


def _direct(x: Array, kernel: Array, stride: int = 1, padding: tuple[int, int] = (1, 1)) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [padding, padding], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _in_cache(x: Array, other: int) -> tuple[int, int]:
    """How many times how many images at once, so that their transforms stay in the cache."""
    N, H, W, C = x.shape
    most = max(CACHE // (-(-H // TILE) * -(-W // TILE) * 36 * 4 * (C + other)), 1)
    if isinstance(N, int):
        at_once = max(n for n in range(1, N + 1) if N % n == 0 and n <= most)
        return N // at_once, at_once
    times = -(-N // most)  # exported with the batch size left open, which has no divisors: a few images too many
    return times, -(-N // times)


def _parts(x: Array, times: int, at_once: int) -> Array:
    """[N, H, W, C] -> [times, at_once, H, W, C], filled up with zeros."""
    missing = times * at_once - x.shape[0]
    return jnp.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0))).reshape(times, at_once, *x.shape[1:])


def _by_tiles(x: Array, kernel: Array) -> Array:
    C, K = kernel.shape[2:]
    if not _worth_it(x, K):
        return _direct(x, kernel)
    kernels = jnp.dot(_GG.astype(x.dtype), kernel.reshape(9, C * K)).reshape(36, C, K)

    def some(x):
        return _pixels(jnp.einsum("ktc,kco->kto", _tiles(x), kernels), (*x.shape[:3], K))

    y = lax.map(some, _parts(x, *_in_cache(x, K)))
    return y.reshape(-1, *x.shape[1:3], K)[: x.shape[0]]


def _gradient_direct(x: Array, dy: Array) -> Array:
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.linear_transpose(partial(_direct, x), kernel)(dy)[0]


def _gradient_by_neighbours(x: Array, dy: Array) -> Array:
    """Matrix products of the narrower of both. In a loop XLA's own takes fifty times as long on a CPU."""
    C, K = x.shape[-1], dy.shape[-1]

    def some(total: Array, images: tuple[Array, Array]) -> tuple[Array, None]:
        a, b = images
        a, b = (_neighbours(a), b) if C <= K else (a, _neighbours(b))
        product = jnp.dot(a.reshape(-1, a.shape[-1]).T, b.reshape(-1, b.shape[-1]), preferred_element_type=total.dtype)
        return total + product, None

    size = _in_cache(x, K)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    zero = jnp.zeros((9 * C, K) if C <= K else (C, 9 * K), wide)
    total = lax.scan(some, zero, (_parts(x, *size), _parts(dy, *size)))[0].astype(x.dtype)
    if C <= K:
        return total.reshape(3, 3, C, K)
    return jnp.flip(total.reshape(C, 3, 3, K), (1, 2)).transpose(1, 2, 0, 3)


def _gradient_by_tiles(x: Array, dy: Array) -> Array:
    C, K = x.shape[-1], dy.shape[-1]
    if not _worth_it(x, K):
        as_written = machine.kind().platform == "any"  # a loop's multiplications would be counted once
        return (_gradient_direct if as_written else _gradient_by_neighbours)(x, dy)

    def some(kernels, images):
        x, dy = images
        return kernels + jnp.einsum("ktc,kto->kco", _tiles(x), _spread(dy)), None

    size = _in_cache(x, K)
    kernels, _ = lax.scan(some, jnp.zeros((36, C, K), x.dtype), (_parts(x, *size), _parts(dy, *size)))
    return jnp.dot(_GG.T.astype(x.dtype), kernels.reshape(36, C * K)).reshape(3, 3, C, K)


def _primitive(name, shape, direct, by_tiles, transpose_x, transpose_other) -> Primitive:  # type: ignore[no-untyped-def]
    """A bilinear primitive of a batch of images and one other thing; vmap makes the batch larger."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind))
    primitive.def_abstract_eval(lambda x, other: x.update(shape=shape(x.shape, other.shape)))
    mlir.register_lowering(primitive, mlir.lower_fun(direct, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(by_tiles, multiple_results=False), platform="cpu")
    ad.defbilinear(primitive, transpose_x, transpose_other)
    return primitive


def _flipped(kernel: Array) -> Array:
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


_convolution: Primitive = _primitive(
    "convolution_3x3",
    lambda x, kernel: (*x[:3], kernel[3]),
    _direct,
    _by_tiles,
    lambda dy, x, kernel: _convolution.bind(dy, _flipped(kernel)),
    lambda dy, x, kernel: _gradient.bind(x, dy),
)
_gradient: Primitive = _primitive(
    "convolution_3x3_gradient",
    lambda x, dy: (3, 3, x[3], dy[3]),
    _gradient_direct,
    _gradient_by_tiles,
    lambda kernel, x, dy: _convolution.bind(dy, _flipped(kernel)),
    lambda kernel, x, dy: _convolution.bind(x, kernel),
)


def _batched_convolution(args, dims):
    (x, kernel), (i, j) = args, dims
    if j is not None:  # a kernel for each example: what XLA makes of it
        return jax.vmap(_direct, dims)(x, kernel), 0
    x = jnp.moveaxis(x, i, 0)
    y = _convolution.bind(x.reshape(-1, *x.shape[2:]), kernel)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


batching.primitive_batchers[_convolution] = _batched_convolution
batching.primitive_batchers[_gradient] = lambda args, dims: (jax.vmap(_gradient_direct, dims)(*args), 0)


def convolve(x: Array, kernel: Array) -> Array:
    """The 3x3 convolution of [..., height, width, C] with [3, 3, C, features], zeros around; keeps the size."""
    y = _convolution.bind(x.reshape(-1, *x.shape[-3:]), kernel)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def convolve_strided(x: Array, kernel: Array, stride: int, padding: tuple[int, int]) -> Array:
    """The 3x3 convolution at every `stride`-th pixel, with so many zeros before and after."""
    y = _direct(x.reshape(-1, *x.shape[-3:]), kernel, stride, padding)
    return y.reshape(*x.shape[:-3], *y.shape[-3:])


def _strided_jvp(stride: int, padding: tuple[int, int], at: Any, tangent: Any) -> tuple[Array, Any]:
    """On a CPU both gradients are matrix products, for the reason of `_gradient_by_neighbours`.

    A program for all machines has convolutions.
    """
    (x, kernel), (dx, dkernel) = at, tangent

    def along(x: Array, kernel: Array) -> Array:
        if machine.kind().platform != "cpu":
            return convolve_strided(x, kernel, stride, padding)
        return _neighbours(x, stride, padding) @ kernel.reshape(-1, kernel.shape[-1])

    pairs = [(dx, kernel), (x, dkernel)]
    parts = [along(*pair) for pair in pairs if not any(isinstance(each, SymbolicZero) for each in pair)]
    return convolve_strided(x, kernel, stride, padding), sum(parts)


convolve_strided.defjvp(_strided_jvp, symbolic_zeros=True)
