"""Prompts: from text to tokens, from tokens to what an image network attends to, learned along with it."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.nets.blocks import Text
from jaxdiff.nets.layers import Dtype, Embed, Net, Rate, attend, dense, layer_norm

NOTHING, BEGIN, UNKNOWN, FIRST = 0, 1, 2, 3  # the first tokens of every vocabulary


class Tokens(Protocol):
    """A way to write a text as `length` integers: BEGIN, the text, and NOTHING to the end."""

    length: int

    @property
    def count(self) -> int:
        """How many tokens there are."""

    def __call__(self, text: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Bytes:
    """A token for each byte of UTF-8: any text, no vocabulary."""

    length: int = 64

    def __post_init__(self) -> None:
        require(2 <= self.length <= 2**16, "a length from 2 to 65536", self.length)

    @property
    def count(self) -> int:
        return FIRST + 256

    def __call__(self, text: str) -> np.ndarray:
        return _filled([FIRST + byte for byte in text.encode()], self.length, text)


@dataclass(frozen=True)
class Words:
    """A token for each word of a known vocabulary, in small letters; UNKNOWN for any other."""

    vocabulary: tuple[str, ...]
    length: int = 16

    def __post_init__(self) -> None:
        require(2 <= self.length <= 2**16, "a length from 2 to 65536", self.length)
        require(isinstance(self.vocabulary, tuple), "a tuple of words; Words.of makes one of texts", self.vocabulary)
        require(self.vocabulary == tuple(split(" ".join(self.vocabulary))), "words in small letters", self.vocabulary)
        require(len(set(self.vocabulary)) == len(self.vocabulary), "each word once", self.vocabulary)

    @classmethod
    def of(cls, texts: list[str], length: int = 16) -> "Words":
        """The vocabulary of some texts."""
        return cls(tuple(sorted({word for text in texts for word in split(text)})), length)

    @property
    def count(self) -> int:
        return FIRST + len(self.vocabulary)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: FIRST + i for i, word in enumerate(self.vocabulary)}

    def __call__(self, text: str) -> np.ndarray:
        return _filled([self._number.get(word, UNKNOWN) for word in split(text)], self.length, text)


def split(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation."""
    return re.findall(r"\w+", text.lower())


def _filled(tokens: list[int], length: int, text: str) -> np.ndarray:
    if len(tokens) >= length:
        raise ValueError(f"a text of at most {length - 1} tokens is needed, this has {len(tokens)}: {text!r}")
    return np.array([BEGIN, *tokens] + [NOTHING] * (length - 1 - len(tokens)), np.int32)


class TransformerBlock(Net):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    heads: int
    dropout: Rate = 0.0
    dtype: Dtype = "auto"

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        width, drop = x.shape[-1], nn.Dropout(self.dropout, deterministic=not self.training())

        def linear(name, features=width, zero=False):
            return dense(features, zero, dtype=self.dtype, name=name)

        h = layer_norm(dtype=self.dtype, name="norm_0")(x)
        h = attend(linear("q")(h), linear("k")(h), linear("v")(h), self.heads, mask)
        x = x + drop(linear("out", zero=True)(h))
        h = nn.gelu(linear("mlp_0", 4 * width)(layer_norm(dtype=self.dtype, name="norm_1")(x)))
        return x + drop(linear("mlp_1", zero=True)(h))


class TextEncoder(Net):
    """Tokens [..., length] -> Text. The pooled vector is that of BEGIN; a text of BEGIN alone is the null condition."""

    count: int | None = None  # of tokens: Bytes().count, say; by default that of the prompts' tokens
    width: int = 128
    depth: int = 2
    heads: int = 4
    dropout: Rate = 0.0
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width % self.heads == 0, "a width that the heads divide", self)

    @nn.compact
    def __call__(self, tokens: Array) -> Text:
        require(self.count is not None, "the count of tokens, such as TextEncoder(Bytes().count)", self)
        tokens = jnp.asarray(tokens)
        mask = tokens != NOTHING
        place = self.param("place", nn.initializers.normal(0.02), (tokens.shape[-1], self.width), jnp.float32)
        x = Embed(self.count or 0, self.width, dtype=self.dtype, name="token")(tokens)
        x = x + jnp.broadcast_to(place, x.shape).astype(x.dtype)
        for i in range(self.depth):
            x = TransformerBlock(self.heads, self.dropout, self.dtype, name=f"block_{i}")(x, mask)
        x = layer_norm(dtype=self.dtype, name="last_norm")(x)
        return Text(x, mask, x[..., 0, :])


class Prompted(Net):
    """An image network and the encoder of its prompts, trained as one: the condition is tokens, or (label, tokens)."""

    network: nn.Module
    encoder: nn.Module

    def __call__(self, x: Array, c_noise: Array, condition: object) -> Array:
        if isinstance(condition, tuple):
            label, tokens = condition
            return self.network(x, c_noise, (label, self.encoder(tokens)))
        return self.network(x, c_noise, self.encoder(condition))
