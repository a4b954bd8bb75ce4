"""A network with its parameters, as the mathematics asks for it: a function that is a tree of arrays."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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


MOST_CALLS = 2000  # of layers: four times what the deepest networks have, and a few seconds


def started(module: nn.Module, key: Array, *inputs: Any) -> Any:
    """New parameters of a module, for inputs of these shapes."""
    try:
        with nn.intercept_methods(_counted(module)):
            variables = jax.jit(module.init)(key, *inputs)
    except (ValueError, RuntimeError, MemoryError):
        raise
    except Exception as error:  # parts that do not fit lead to errors of many classes
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        ours = type(module).__module__.startswith("jaxdiff.")
        fails = "cannot be made of these fields" if ours else f"fails on one image, of shape {jnp.shape(inputs[0])}"
        raise ValueError(f"{type(module).__name__} {fails}, {why}") from error
    more = variables.keys() - {"params"}
    if more:
        name = type(module).__name__
        raise ValueError(f"{name} keeps {', '.join(sorted(more))} beside its parameters: use layers without such state")
    return variables.get("params", {})


def _counted(module: nn.Module) -> Callable[..., Any]:
    """Refuses a network of so many layers that it would never be ready."""
    calls = itertools.count()

    def call(method: Callable[..., Any], arguments: tuple, named: dict[str, Any], _: Any) -> Any:
        if next(calls) > MOST_CALLS:
            raise ValueError(f"{type(module).__name__} has more than {MOST_CALLS} layers: make it less deep")
        return method(*arguments, **named)

    return call
