"""What classifiers are made of whose features compare images. They are read and never trained, so the batch norm that
followed each convolution is folded into its kernel and bias."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jaxtyping import Array


class Convolution(nn.Module):
    """x * kernel + bias."""

    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: str | tuple[int, int] = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)
        kernel, bias = _parameters(self, (*size, x.shape[-1], self.channels))
        if kernel.shape[:2] == (1, 1) and self.stride == 1:
            return x @ kernel[0, 0] + _beside(x, bias)  # several times as fast on a CPU
        padding = self.padding if isinstance(self.padding, str) else [(p, p) for p in self.padding]
        form = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, kernel, (self.stride,) * 2, padding, dimension_numbers=form)
        return y + _beside(y, bias)


class Depthwise(nn.Module):
    """Each channel convolved by itself, as a sum of shifted images: of that XLA makes one loop, fast on a CPU too."""

    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _parameters(self, (self.kernel, self.kernel, 1, x.shape[-1]))
        y = _beside(x, bias)
        rows, columns = (-(-size // self.stride) for size in x.shape[-3:-1])
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [self._edges(size) for size in x.shape[-3:-1]] + [(0, 0)])
        for i in range(self.kernel):
            for j in range(self.kernel):
                y = y + x[..., self._from(i, rows), self._from(j, columns), :] * _beside(x, kernel[i, j, 0])
        return y

    def _edges(self, size: int) -> tuple[int, int]:
        """How much is put before and after, where the padding is SAME."""
        more = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
        return more // 2, more - more // 2

    def _from(self, first: int, count: int) -> slice:
        return slice(first, first + (count - 1) * self.stride + 1, self.stride)


def _parameters(module: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array]:
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    return kernel, module.param("bias", nn.initializers.zeros_init(), shape[-1:])


def _beside(x: Array, numbers: Array) -> Array:
    """One for each channel, of as many axes as x."""
    return numbers.reshape(*(1,) * (x.ndim - 1), -1)


def from_torch(tensors: Mapping[str, np.ndarray], like: Any, norm: Callable[[str], tuple[str, str]]) -> Any:
    """Parameters of the shapes `like` from PyTorch's tensors; `norm` gives, for the path of a convolution, PyTorch's
    names of the convolution and of the norm after it."""
    made, shapes = {}, flatten_dict(like)
    for path, leaf in shapes.items():
        where, kind = ".".join(path[:-1]), path[-1]
        try:
            if len(shapes[(*path[:-1], "kernel")].shape) == 4:
                tensor = _folded(tensors, *norm(where))[kind]
            else:
                tensor = tensors[f"{where}.weight"].T if kind == "kernel" else tensors[f"{where}.bias"]
        except KeyError as error:
            raise ValueError(f"the weights have no {error.args[0]}: they are of another network") from None
        if tensor.shape != leaf.shape:
            raise ValueError(f"{where} should have the shape {leaf.shape}, the weights have {tensor.shape}")
        made[path] = np.asarray(tensor, np.float32)
    return unflatten_dict(made)


def _folded(tensors: Mapping[str, np.ndarray], conv: str, norm: str) -> dict[str, np.ndarray]:
    """scale (x * kernel - mean) / deviation + bias, as one kernel and one bias."""
    scale = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}.running_var"].astype(np.float64) + 1e-3)
    kernel = tensors[f"{conv}.weight"] * scale[:, None, None, None]
    return {
        "kernel": kernel.transpose(2, 3, 1, 0),
        "bias": tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale,
    }
