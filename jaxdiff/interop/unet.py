"""UNet2DModel: a UNet for images, with or without labels."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from jaxdiff.interop.names import Row, pyramid
from jaxdiff.interop.settings import (
    ANY,
    C_NOISE,
    COUNT,
    DEPTH,
    FRACTION,
    FREE,
    LABEL,
    POSITIVE,
    SILU,
    SWITCH,
    Rule,
    Settings,
    TorchClass,
    image,
    maybe,
    multipliers,
    one_of,
    only,
    row_of,
)
from jaxdiff.nets.layers import Positional, default_groups
from jaxdiff.nets.unet import UNet

_DOWN = {"DownBlock2D": "conv", "ResnetDownsampleBlock2D": "resnet", "AttnDownBlock2D": None}
_UP = {"UpBlock2D": "conv", "ResnetUpsampleBlock2D": "resnet", "AttnUpBlock2D": None}
_PADDING = ((0, 1), (1, 1))  # of the strided convolutions, by downsample_padding

_SETTINGS = {
    "in_channels": (3, COUNT),
    "out_channels": (3, COUNT),
    "sample_size": (None, ANY),
    "center_input_sample": (False, one_of(False)),
    "time_embedding_type": ("positional", one_of("positional")),
    "time_embedding_dim": (None, maybe(COUNT)),
    "freq_shift": (0, one_of(0, 1)),
    "flip_sin_to_cos": (True, SWITCH),
    "down_block_types": (("DownBlock2D", *["AttnDownBlock2D"] * 3), row_of(one_of(*_DOWN))),
    "mid_block_type": ("UNetMidBlock2D", one_of("UNetMidBlock2D")),
    "up_block_types": ((*["AttnUpBlock2D"] * 3, "UpBlock2D"), row_of(one_of(*_UP))),
    "block_out_channels": ((224, 448, 672, 896), row_of(COUNT)),
    "layers_per_block": (2, DEPTH),
    "mid_block_scale_factor": (1, one_of(1)),
    "downsample_padding": (1, one_of(0, 1)),
    "downsample_type": ("conv", one_of("conv", "resnet")),
    "upsample_type": ("conv", one_of("conv", "resnet")),
    "dropout": (0.0, FRACTION),
    "act_fn": SILU,
    "attention_head_dim": (8, maybe(COUNT)),
    "norm_num_groups": (32, COUNT),
    "attn_norm_num_groups": (None, maybe(COUNT)),
    "norm_eps": (1e-5, FRACTION),
    "resnet_time_scale_shift": ("default", one_of("default", "scale_shift")),
    "add_attention": (True, SWITCH),
    "class_embed_type": (None, one_of(None)),
    "num_class_embeds": (None, maybe(COUNT)),
    "num_train_timesteps": (None, ANY),
}
_FREE = {
    "multipliers": row_of(POSITIVE),
    "attention": row_of(Rule("a level", lambda value: type(value) is int)),
    "heads": COUNT,
    "head_channels": maybe(COUNT),
    "noise_width": maybe(COUNT),
    "out_channels": maybe(COUNT),
    "classes": maybe(COUNT),
    "null_label": SWITCH,
    "groups": maybe(COUNT),
    **FREE,
}


def _build(settings: Settings, tensors: Mapping[str, np.ndarray]) -> UNet:
    del tensors
    scale_shift, groups = settings["resnet_time_scale_shift"] == "scale_shift", settings["norm_num_groups"]
    middle_groups = settings["attn_norm_num_groups"] or (None if scale_shift else groups)
    if settings["add_attention"] and middle_groups != groups:
        raise ValueError(f"UNet2DModel is read with attn_norm_num_groups {groups} like the others, got {middle_groups}")
    attention, resample = _levels(settings)
    classes = settings["num_class_embeds"]
    return UNet(
        channels=settings["block_out_channels"][0],
        multipliers=multipliers(settings["block_out_channels"]),
        blocks=settings["layers_per_block"],
        attention=attention,
        head_channels=settings["attention_head_dim"],
        middle_attention=settings["add_attention"],
        dropout=settings["dropout"],
        noise_embedding=Positional(shift=settings["freq_shift"], sine_first=not settings["flip_sin_to_cos"]),
        embedding_width=settings["time_embedding_dim"],
        scale_shift=scale_shift,
        resample_in_block=resample == "resnet",
        down_padding=_PADDING[settings["downsample_padding"]],
        groups=groups,
        epsilon=settings["norm_eps"],
        out_channels=None if settings["out_channels"] == settings["in_channels"] else settings["out_channels"],
        classes=classes,
        null_label=classes is None,  # PyTorch does not know which label stands for none
    )


def _levels(settings: Settings) -> tuple[tuple[int, ...], str]:
    """The levels with attention, and how they resample: we have both ways alike."""
    down, up = settings["down_block_types"], settings["up_block_types"]
    if not len(down) == len(up) == len(settings["block_out_channels"]):
        raise ValueError(f"UNet2DModel needs as many block types as block_out_channels, got {down} and {up}")
    down_attention, up_attention = (
        tuple(level for level, kind in enumerate(kinds) if "Attn" in kind) for kinds in (down, up[::-1])
    )
    if down_attention != up_attention:
        raise ValueError(f"UNet2DModel is read with attention at the same levels down and up, got {down} and {up}")
    resample = {_DOWN[kind] or settings["downsample_type"] for kind in down[:-1]}
    resample |= {_UP[kind] or settings["upsample_type"] for kind in up[:-1]}
    if len(resample) > 1:
        raise ValueError(f"UNet2DModel is read if all levels resample alike, by conv or by resnet, got {down} and {up}")
    return down_attention, resample.pop() if resample else settings["downsample_type"]


def _describe(net: UNet, channels: int) -> Settings:
    widths, embedding = net.widths, net.noise_embedding
    if widths[0] != net.channels or net.noise_width not in (None, net.channels):
        raise ValueError("UNet2DModel has no multipliers but those that begin with 1, and no noise_width but channels")
    norms = (*widths, *(2 * width for width in widths), *map(sum, pairwise(widths)))
    groups = only((net.groups or default_groups(width) for width in norms), "groups")
    looking = {widths[level] for level in net.attention} | ({widths[-1]} if net.middle_attention else set())
    heads = net.head_channels
    if heads is None and any(net.heads_of(width) > 1 for width in looking):
        heads = only((width // net.heads_of(width) for width in looking), "head_channels")
    resample = "resnet" if net.resample_in_block else "conv"
    plain = [next(kind for kind, how in kinds.items() if how == resample) for kinds in (_DOWN, _UP)]
    levels = range(len(widths))
    settings = {
        "in_channels": channels,
        "out_channels": net.out_channels or channels,
        "block_out_channels": widths,
        "layers_per_block": net.blocks,
        "down_block_types": ["AttnDownBlock2D" if level in net.attention else plain[0] for level in levels],
        "up_block_types": ["AttnUpBlock2D" if level in net.attention else plain[1] for level in reversed(levels)],
        "downsample_type": resample,
        "upsample_type": resample,
        "downsample_padding": int(net.down_padding == (1, 1)),
        "attention_head_dim": heads,
        "add_attention": net.middle_attention,
        "dropout": net.dropout,
        "time_embedding_dim": net.embedding_width,
        "resnet_time_scale_shift": "scale_shift" if net.scale_shift else "default",
        "norm_num_groups": groups,
        "attn_norm_num_groups": groups,
        "norm_eps": net.epsilon,
        "num_class_embeds": None if net.classes is None else net.classes + net.null_label,
    }
    if isinstance(embedding, Positional):
        settings |= {"freq_shift": embedding.shift, "flip_sin_to_cos": not embedding.sine_first}
    return settings


def _table(net: UNet) -> Iterator[Row]:
    yield from pyramid(len(net.widths), net.blocks)
    yield "embedding/noise_0", "time_embedding.linear_1", 0
    yield "embedding/noise_1", "time_embedding.linear_2", 0
    yield "embedding/label", "class_embedding", 0


def _inputs(net: UNet, channels: int) -> tuple[Any, ...]:
    label = () if net.classes is None else (LABEL,)
    return image(2 ** (len(net.widths) - 1), channels), C_NOISE, *label


UNET = TorchClass(
    "UNet2DModel",
    UNet,
    _SETTINGS,
    _build,
    _describe,
    _FREE,
    _table,
    lambda net, parameters: parameters["first/kernel"].shape[2],
    _inputs,
)
