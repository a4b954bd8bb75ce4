"""DiTTransformer2DModel: the diffusion transformer, always with labels."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxdiff.interop.names import Row, parts
from jaxdiff.interop.settings import (
    ANY,
    C_NOISE,
    COUNT,
    DEPTH,
    FRACTION,
    FREE,
    LABEL,
    SWITCH,
    Settings,
    TorchClass,
    image,
    maybe,
    one_of,
)
from jaxdiff.nets.dit import DiT
from jaxdiff.nets.layers import Positional

_BLOCK = {
    "embedding": "norm1.linear",
    "q": "attn1.to_q",
    "k": "attn1.to_k",
    "v": "attn1.to_v",
    "out": "attn1.to_out.0",
    "mlp_0": "ff.net.0.proj",
    "mlp_1": "ff.net.2",
}
_EMBEDDING = {
    "noise_0": "timestep_embedder.linear_1",
    "noise_1": "timestep_embedder.linear_2",
    "label": "class_embedder.embedding_table",
}
_SETTINGS = {
    "num_attention_heads": (16, COUNT),
    "attention_head_dim": (72, COUNT),
    "in_channels": (4, COUNT),
    "out_channels": (None, maybe(COUNT)),
    "num_layers": (28, DEPTH),
    "dropout": (0.0, FRACTION),
    "norm_num_groups": (32, ANY),
    "attention_bias": (True, one_of(True)),
    "attention_type": ("default", one_of("default")),  # of the class until 2024
    "sample_size": (32, ANY),
    "patch_size": (2, COUNT),
    "activation_fn": ("gelu-approximate", one_of("gelu-approximate")),
    "num_embeds_ada_norm": (1000, COUNT),
    "upcast_attention": (False, ANY),
    "norm_type": ("ada_norm_zero", one_of("ada_norm_zero")),
    "norm_elementwise_affine": (False, one_of(False)),
    "norm_eps": (1e-5, FRACTION),
}


def _build(settings: Settings, tensors: Mapping[str, np.ndarray]) -> DiT:
    heads, channels = settings["num_attention_heads"], settings["out_channels"]
    return DiT(
        width=heads * settings["attention_head_dim"],
        depth=settings["num_layers"],
        heads=heads,
        patch=settings["patch_size"],
        out_channels=None if channels == settings["in_channels"] else channels,
        dropout=settings["dropout"],
        noise_embedding=Positional(sine_first=False),
        classes=settings["num_embeds_ada_norm"],
        own_embedding=not _embedded_alike(tensors),
        mlp_epsilon=settings["norm_eps"],
    )


def _embedded_alike(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether all blocks of PyTorch's network have the same copy of what ours can have once."""
    first: dict[str, np.ndarray] = {}
    copies = (name.partition(".norm1.emb.") for name in tensors if ".norm1.emb." in name)
    return all(
        np.array_equal(tensors[block + infix + part], first.setdefault(part, tensors[block + infix + part]))
        for block, infix, part in copies
    )


def _describe(net: DiT, channels: int) -> Settings:
    return {
        "num_attention_heads": net.heads,
        "attention_head_dim": net.width // net.heads,
        "in_channels": channels,
        "out_channels": net.out_channels or channels,
        "num_layers": net.depth,
        "dropout": net.dropout,
        "patch_size": net.patch,
        "num_embeds_ada_norm": net.classes or 1,
        "norm_eps": net.mlp_epsilon,
    }


def _table(net: DiT) -> Iterator[Row]:
    for i in range(net.depth):
        yield from parts(_BLOCK, f"block_{i}", f"transformer_blocks.{i}")
        yield from parts(
            _EMBEDDING, f"embedding_{i}" if net.own_embedding else "embedding", f"transformer_blocks.{i}.norm1.emb"
        )
    yield "first", "pos_embed.proj", net.patch
    yield "last_embedding", "proj_out_1", 0
    yield "last", "proj_out_2", 0


def _inputs(net: DiT, channels: int) -> tuple[Any, ...]:
    return image(net.patch, channels), C_NOISE, *(() if net.classes is None else (LABEL,))


DIT = TorchClass(
    "DiTTransformer2DModel",
    DiT,
    _SETTINGS,
    _build,
    _describe,
    {"out_channels": maybe(COUNT), "own_embedding": SWITCH, **FREE},
    _table,
    lambda net, parameters: parameters["first/kernel"].shape[0] // net.patch**2,
    _inputs,
)
