"""A network with its parameters, as the mathematics asks for it: a function that is a tree of arrays."""

from typing import Any

import jax
from flax import linen as nn
from flax import struct
from jaxtyping import Array


@struct.dataclass
class Bound:
    """F = module(x, c_noise, *condition), with dropout if there is a key for it.

        denoise = NetworkDenoiser(Bound(UNet(), params), VP(), c_noise=c_noise.time)

    The parameters are inputs of a compiled program, the module is a part of it: new parameters compile nothing.
    """

    module: nn.Module = struct.field(pytree_node=False)
    params: Any
    dropout: Array | None = None

    def __call__(self, *inputs: Any) -> Any:
        rngs = None if self.dropout is None else {"dropout": self.dropout}
        return self.module.apply({"params": self.params}, *inputs, rngs=rngs)


def started(module: nn.Module, key: Array, *inputs: Any) -> Any:
    """New parameters of a module, for inputs of these shapes."""
    variables = jax.jit(module.init)(key, *inputs)
    more = variables.keys() - {"params"}
    if more:
        name = type(module).__name__
        raise ValueError(f"{name} keeps {', '.join(sorted(more))} beside its parameters: use layers without such state")
    return variables.get("params", {})
