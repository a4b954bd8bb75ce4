"""What a config.json says: the settings of a PyTorch class, each with its default and with what is legal."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxdiff.interop.names import Row
from jaxdiff.nets.bound import started
from jaxdiff.nets.layers import Dtype, Net

Settings = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """What is legal, in words and as a test."""

    what: str
    holds: Callable[[Any], bool]


def one_of(*values: Any) -> Rule:
    """One of these values."""
    return Rule(" or ".join(map(repr, values)), lambda value: value in values)


def row_of(rule: Rule) -> Rule:
    """A list, not empty, each entry of which keeps the rule."""

    def holds(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(rule.holds, value))

    return Rule(f"a row, each {rule.what}", holds)


def maybe(rule: Rule) -> Rule:
    """Null, or what keeps the rule."""
    return Rule(f"{rule.what}, or null", lambda value: value is None or rule.holds(value))


COUNT = Rule("a whole number from 1 to a million", lambda value: type(value) is int and 0 < value <= 1_000_000)
DEPTH = Rule("a whole number from 1 to 1000", lambda value: type(value) is int and 0 < value <= 1000)
NUMBER = Rule("a number", lambda value: type(value) in (int, float) and abs(value) < 1e30)
POSITIVE = Rule("a number above 0", lambda value: NUMBER.holds(value) and value > 1e-30)
FRACTION = Rule("a number from 0 to below 1", lambda value: NUMBER.holds(value) and 0 <= value < 1)
SWITCH = Rule("true or false", lambda value: type(value) is bool)
ANY = Rule("anything", lambda value: True)
SILU = ("silu", one_of("silu", "swish"))

# fields of a network that change nothing of what PyTorch's would be
FREE = {"remat": SWITCH, "dtype": one_of(*get_args(Dtype))}

# what the trainer of a moving average leaves in a config.json
_STRAY = {"decay", "min_decay", "inv_gamma", "power", "optimization_step", "update_after_step", "use_ema_warmup"}


@dataclass(frozen=True)
class TorchClass:
    """A PyTorch class, and how to go to a network of ours and back."""

    name: str
    network: type[Net]
    settings: Mapping[str, tuple[Any, Rule]]  # the value where config.json is silent, and what is legal
    build: Callable[[Settings, Mapping[str, np.ndarray]], Net]  # from checked settings and PyTorch's tensors
    describe: Callable[[Any, int], Settings]  # the inverse, for images of so many channels
    free: Mapping[str, Rule]  # fields that PyTorch does not have: networks that differ only in these are one to it
    table: Callable[[Any], Iterable[Row]]
    channels: Callable[[Any, Mapping[str, Any]], int]  # those of the image, as the parameters have them
    inputs: Callable[[Any, int], tuple]  # the smallest image that the network takes, and what else it takes

    def checked(self, config: Mapping[str, Any]) -> Settings:
        """All settings, refused unless they are legal."""
        for name, value in config.items():
            known = name in self.settings or name in _STRAY or name.startswith("_")
            if not known and value not in (None, False):
                raise ValueError(f"{self.name} has an unknown setting {name}={value!r}; drop it if it changes nothing")
        settings = {name: config.get(name, default) for name, (default, _) in self.settings.items()}
        for name, value in settings.items():
            rule = self.settings[name][1]
            if not rule.holds(value):
                raise ValueError(f"{self.name} is read with {name} {rule.what}, got {value!r}")
        return settings

    def shapes(self, net: Net, channels: int) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by path."""
        params = jax.eval_shape(partial(started, net), jax.random.key(0), *self.inputs(net, channels))
        return {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}


def image(side: int, channels: int) -> jax.ShapeDtypeStruct:
    """The shape of a square image."""
    return jax.ShapeDtypeStruct((side, side, channels), jnp.float32)


C_NOISE = jax.ShapeDtypeStruct((), jnp.float32)
LABEL = jax.ShapeDtypeStruct((), jnp.int32)


def only(values: Iterable[int], what: str) -> int:
    """The one value there is, where PyTorch has one setting and we have a value for each level."""
    first, *others = sorted(set(values))
    if others:
        raise ValueError(f"PyTorch has the same {what} everywhere, this network has {first} and {others[-1]}")
    return first


def multipliers(widths: Iterable[int]) -> tuple[float, ...]:
    """What the first width is multiplied by to make each of them, exactly, when rounded down."""
    first, *_ = widths = list(widths)
    ratios = (width / first if width % first else width // first for width in widths)
    pairs = zip(ratios, widths, strict=True)
    return tuple(ratio if int(first * ratio) == width else math.nextafter(ratio, math.inf) for ratio, width in pairs)
