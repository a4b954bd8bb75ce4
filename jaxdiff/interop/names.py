"""Which module of PyTorch's is which of ours, and how the numbers of one are laid out in the other.

A table is rows (our module, PyTorch's module, size): where ours is a matrix, a size says that PyTorch's is a
convolution of that size. A table names all that there could be; which modules there are, the parameters say.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

Row = tuple[str, str, int]

_BLOCK = {
    "norm_0": "norm1",
    "conv_0": "conv1",
    "embedding": "time_emb_proj",
    "norm_1": "norm2",
    "conv_1": "conv2",
    "skip": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}


def parts(names: Mapping[str, str], ours: str, theirs: str) -> Iterator[Row]:
    """The rows of modules within a module."""
    for part, name in names.items():
        yield f"{ours}/{part}", f"{theirs}.{name}", int(name == "conv_shortcut")


def pyramid(levels: int, blocks: int, ours: str = "", theirs: str = "") -> Iterator[Row]:
    """What a UNet, an encoder and a decoder have in common."""
    for level in range(levels):
        for side, at in (("down", level), ("up", levels - 1 - level)):
            for i in range(blocks + 1):
                yield from parts(_BLOCK, f"{ours}{side}_{level}_{i}", f"{theirs}{side}_blocks.{at}.resnets.{i}")
                attention = f"{ours}{side}_{level}_{i}_attention"
                yield from parts(_ATTENTION, attention, f"{theirs}{side}_blocks.{at}.attentions.{i}")
            # on the way down PyTorch's resampling ends a level, ours begins the next
            resampler = f"{ours}{side}_{level + (side == 'down')}"
            yield from parts(_BLOCK, resampler, f"{theirs}{side}_blocks.{at}.{side}samplers.0")
            yield resampler, f"{theirs}{side}_blocks.{at}.{side}samplers.0.conv", 0
    for i in (0, 1):
        yield from parts(_BLOCK, f"{ours}middle_{i}", f"{theirs}mid_block.resnets.{i}")
    yield from parts(_ATTENTION, f"{ours}middle_attention", f"{theirs}mid_block.attentions.0")
    for module, name in (("first", "conv_in"), ("last_norm", "conv_norm_out"), ("last", "conv_out")):
        yield f"{ours}{module}", f"{theirs}{name}", 0


@dataclass(frozen=True)
class Place:
    """Where a parameter of ours stands in PyTorch."""

    path: str
    shape: tuple[int, ...]
    name: str
    size: int  # of the convolution that PyTorch has for a matrix of ours, or 0

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        """[in, out] -> [out, in]; [height, width, in, out] -> [out, in, height, width]."""
        if not self.path.endswith("/kernel"):
            return value
        if self.size:
            value = value.reshape(self.size, self.size, -1, value.shape[-1])
        return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T

    def from_torch(self, tensor: np.ndarray) -> np.ndarray:
        """The inverse; a matrix may also be a convolution of 1x1."""
        if not self.path.endswith("/kernel"):
            return tensor
        return (tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T).reshape(self.shape)

    @property
    def torch_shape(self) -> tuple[int, ...]:
        return self.to_torch(np.broadcast_to(np.float32(0), self.shape)).shape

    def fits(self, tensor: np.ndarray) -> bool:
        """Whether a tensor of PyTorch's can stand here."""
        legal = [self.torch_shape]
        if self.path.endswith("/kernel") and len(self.torch_shape) == 2:
            legal.append((*self.torch_shape, 1, 1))
        return jnp.issubdtype(tensor.dtype, jnp.floating) and tensor.shape in legal


def places(table: Iterable[Row], shapes: Mapping[str, tuple[int, ...]]) -> list[Place]:
    """Where each of our parameters, given by path and shape, stands in PyTorch."""
    leaves: dict[str, list[str]] = {}
    for path in shapes:
        module, leaf = path.rsplit("/", 1)
        leaves.setdefault(module, []).append(leaf)
    found = []
    for module, name, size in table:
        for leaf in leaves.get(module, []):
            path, theirs = f"{module}/{leaf}", "bias" if leaf == "bias" else "weight"
            found.append(Place(path, shapes[path], f"{name}.{theirs}", size))
    nameless = sorted(shapes.keys() - {place.path for place in found})
    if nameless:
        raise ValueError(f"PyTorch has no names for {', '.join(nameless[:3])}, {len(nameless)} parameters in all")
    return found
