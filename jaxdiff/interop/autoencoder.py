"""AutoencoderKL: Stable Diffusion's kind of autoencoder."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxdiff.interop.names import Row, pyramid
from jaxdiff.interop.settings import (
    ANY,
    COUNT,
    DEPTH,
    FREE,
    NUMBER,
    POSITIVE,
    SILU,
    SWITCH,
    Settings,
    TorchClass,
    image,
    maybe,
    multipliers,
    one_of,
    only,
    row_of,
)
from jaxdiff.nets.autoencoder import Autoencoder
from jaxdiff.nets.layers import default_groups

_SETTINGS = {
    "in_channels": (3, COUNT),
    "out_channels": (3, COUNT),
    "down_block_types": (("DownEncoderBlock2D",), row_of(one_of("DownEncoderBlock2D"))),
    "up_block_types": (("UpDecoderBlock2D",), row_of(one_of("UpDecoderBlock2D"))),
    "block_out_channels": ((64,), row_of(COUNT)),
    "layers_per_block": (1, DEPTH),
    "act_fn": SILU,
    "latent_channels": (4, COUNT),
    "norm_num_groups": (32, COUNT),
    "sample_size": (32, ANY),
    "scaling_factor": (0.18215, POSITIVE),
    "shift_factor": (None, maybe(NUMBER)),
    "latents_mean": (None, maybe(row_of(NUMBER))),
    "latents_std": (None, maybe(row_of(POSITIVE))),
    "force_upcast": (True, SWITCH),
    "use_quant_conv": (True, SWITCH),
    "use_post_quant_conv": (True, SWITCH),
    "mid_block_add_attention": (True, SWITCH),
}
_ALIKE = (("in_channels", "out_channels"), ("use_quant_conv", "use_post_quant_conv"))


def _build(settings: Settings, tensors: Mapping[str, np.ndarray]) -> Autoencoder:
    del tensors
    for one, other in _ALIKE:
        if settings[one] != settings[other]:
            raise ValueError(f"AutoencoderKL is read with {one} like {other}, got {settings[one]}, {settings[other]}")
    widths = settings["block_out_channels"]
    if not len(widths) == len(settings["down_block_types"]) == len(settings["up_block_types"]):
        raise ValueError(f"AutoencoderKL needs as many block types as block_out_channels, got {widths}")
    shift, *each = (settings[name] for name in ("shift_factor", "latents_mean", "latents_std"))
    counts = {None if row is None else len(row) for row in each}
    if counts not in ({None}, {settings["latent_channels"]}) or (shift is not None and None not in counts):
        raise ValueError(
            "AutoencoderKL is read with latents_mean and latents_std of all latent_channels, or with a shift_factor, "
            f"or neither, got {each[0]}, {each[1]} and {shift}"
        )
    return Autoencoder(
        image_channels=settings["in_channels"],
        latent_channels=settings["latent_channels"],
        channels=widths[0],
        multipliers=multipliers(widths),
        blocks=settings["layers_per_block"],
        attention=settings["mid_block_add_attention"],
        quant=settings["use_quant_conv"],
        groups=settings["norm_num_groups"],
    )


def _describe(net: Autoencoder, channels: int) -> Settings:
    channels = net.patch**2 * net.image_channels  # PyTorch has no word for patches: it is one of their values
    return {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(net.widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(net.widths),
        "block_out_channels": net.widths,
        "layers_per_block": net.blocks,
        "latent_channels": net.latent_channels,
        "norm_num_groups": only((net.groups or default_groups(width) for width in net.widths), "groups"),
        "use_quant_conv": net.quant,
        "use_post_quant_conv": net.quant,
        "mid_block_add_attention": net.attention,
    }


def latents(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the latents, by channel."""
    count = settings["latent_channels"]
    mean = settings["latents_mean"] or [settings["shift_factor"] or 0.0] * count
    deviation = [each / settings["scaling_factor"] for each in settings["latents_std"] or [1.0] * count]
    return np.array(mean, np.float32), np.array(deviation, np.float32)


def latent_settings(mean: np.ndarray, deviation: np.ndarray) -> Settings:
    """The inverse: one factor and shift where all channels have the same, as all of PyTorch's pipelines can."""
    if np.ptp(mean) == np.ptp(deviation) == 0:
        return {"scaling_factor": 1 / float(deviation[0]), "shift_factor": float(mean[0]) or None}
    return {"scaling_factor": 1.0, "latents_mean": mean.tolist(), "latents_std": deviation.tolist()}


def _table(net: Autoencoder) -> Iterator[Row]:
    for half in ("encoder", "decoder"):
        yield from pyramid(len(net.multipliers), net.blocks, f"{half}/", f"{half}.")
    yield "encoder/quant", "quant_conv", 1
    yield "decoder/quant", "post_quant_conv", 1


def _inputs(net: Autoencoder, channels: int) -> tuple[Any, ...]:
    return (image(net.patch * 2 ** (len(net.multipliers) - 1), net.image_channels),)


_PATCHES = {"patch": COUNT, "image_channels": COUNT}

AUTOENCODER = TorchClass(
    "AutoencoderKL",
    Autoencoder,
    _SETTINGS,
    _build,
    _describe,
    {"channels": COUNT, "multipliers": row_of(POSITIVE), "groups": maybe(COUNT), **_PATCHES, **FREE},
    _table,
    lambda net, parameters: net.image_channels,
    _inputs,
)
