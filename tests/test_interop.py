"""What is read from diffusers computes what diffusers computes, what is written it opens, and the rest is refused."""

import json
import logging
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import interop
from jaxdiff.interop import files
from jaxdiff.interop.settings import multipliers
from jaxdiff.interop.unet import UNET
from jaxdiff.nets.autoencoder import Autoencoder, Codec
from jaxdiff.nets.dit import DiT
from jaxdiff.nets.layers import GaussianFourier, Positional, to_patches
from jaxdiff.nets.small import MLP
from jaxdiff.nets.unet import DDPM_CIFAR10, UNet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, not ours
    import safetensors.torch as official
    import torch
    from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DModel

torch.set_num_threads(1)  # more are in the way of ours

SMALL = {"block_out_channels": (16, 24, 40), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
# as google/ddpm-cifar10-32 says it, in the words of 2022
OLD_CONFIG = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
CASES = {
    "unet": (
        UNet2DModel,
        SMALL
        | {"down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D")}
        | {"up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 8},
    ),
    "unet as DDPM's, with labels": (
        UNet2DModel,
        SMALL
        | {"down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), "block_out_channels": (16, 32, 32)}
        | {"up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), "attention_head_dim": None}
        | {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "num_class_embeds": 5}
        | {"in_channels": 1, "out_channels": 2, "time_embedding_dim": 48, "layers_per_block": 2, "dropout": 0.1},
    ),
    "unet as ADM's": (
        UNet2DModel,
        SMALL
        | {"down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")}
        | {"up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"), "attention_head_dim": 8}
        | {"downsample_type": "resnet", "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift"}
        | {"attn_norm_num_groups": 4, "num_class_embeds": 5},
    ),
    "unet without attention": (
        UNet2DModel,
        {"block_out_channels": (8, 8), "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        | {"norm_num_groups": 2, "layers_per_block": 1, "add_attention": False, "sample_size": 8},
    ),
    "autoencoder": (
        AutoencoderKL,
        SMALL
        | {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
        | {"scaling_factor": 0.5, "shift_factor": 0.25},
    ),
    "autoencoder without attention": (
        AutoencoderKL,
        {"block_out_channels": (8, 16), "norm_num_groups": 4, "in_channels": 1, "out_channels": 1, "sample_size": 8}
        | {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        | {"use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False}
        | {
            "latent_channels": 3,
            "latents_mean": (0.1, 0.2, 0.3),
            "latents_std": (1.0, 2.0, 3.0),
            "scaling_factor": 2.0,
        },
    ),
    "dit": (
        DiTTransformer2DModel,
        {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "in_channels": 3, "sample_size": 8}
        | {"num_embeds_ada_norm": 5, "out_channels": 6},
    ),
}


@dataclass
class Case:
    """A network of PyTorch's, its folder, and what is read of it."""

    torch_class: Any
    model: Any
    folder: Path
    net: Any
    variables: Any


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request, tmp_path_factory):
    torch_class, settings = CASES[request.param]
    model, folder = made(torch_class, settings), tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return Case(torch_class, model, folder, *interop.read(folder))


def made(torch_class, settings):
    """A network of PyTorch's with no parameter at zero or one."""
    model, generator = torch_class(**settings).eval(), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def pixels(model):
    """Two images, [2, height, width, channels]."""
    return np.random.default_rng(0).normal(size=(2, 8, 8, model.config.in_channels)).astype(np.float32)


TOLD, LABELS = np.array([3.0, 700.0], np.float32), np.array([1, 4])


def theirs(model, x):
    """What PyTorch computes of images, with channels last as ours."""
    x = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.no_grad():
        if isinstance(model, AutoencoderKL):
            latents = model.encode(x).latent_dist
            outputs = latents.mean, latents.logvar, model.decode(latents.mean).sample
        else:
            labelled = isinstance(model, DiTTransformer2DModel) or model.config.num_class_embeds
            labels = {"class_labels": torch.from_numpy(LABELS)} if labelled else {}
            outputs = (model(x, timestep=torch.from_numpy(TOLD), **labels).sample,)
    return [output.permute(0, 2, 3, 1).numpy() for output in outputs]


def ours(net, variables, x):
    if isinstance(net, Autoencoder):

        def compute(variables, x):
            latents = net.apply(variables, x, method="encode")
            return latents.mean, latents.log_variance, net.apply(variables, latents.mean, method="decode")

        return jax.jit(compute)(variables, x)
    return [jax.jit(net.apply)(variables, x, TOLD, *(() if net.classes is None else (LABELS,)))]


def agree(one, other, tolerance=1e-5):
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def same(one, other):
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_computes_what_pytorch_computes(case):
    x = pixels(case.model)
    agree(ours(case.net, case.variables, x), theirs(case.model, x))


def test_there_and_back_is_the_same(case, tmp_path):
    interop.write(tmp_path / "ours", case.net, case.variables, sample_size=8)
    net, variables = interop.read(tmp_path / "ours")
    assert net == case.net
    same(variables, case.variables)


def opened(torch_class, folder, caplog):
    """What PyTorch makes of a folder, if it says nothing at all about it."""
    log = logging.getLogger("diffusers")
    log.addHandler(caplog.handler)
    model, said = torch_class.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    log.removeHandler(caplog.handler)
    assert not caplog.records
    assert not any(said.values())
    return model.eval()


def test_pytorch_opens_what_is_written(case, tmp_path, caplog):
    interop.write(tmp_path / "ours", case.net, case.variables, sample_size=8)
    model = opened(case.torch_class, tmp_path / "ours", caplog)
    agree(theirs(model, pixels(model)), theirs(case.model, pixels(model)), tolerance=0)


def random_variables(net, *inputs):
    """Without the compilation of `net.init`."""
    shapes, draw = jax.eval_shape(net.init, jax.random.key(0), *inputs), np.random.default_rng(0)
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.mark.parametrize(
    ("torch_class", "net"),
    [
        (UNet2DModel, UNet(128, (1, 2), blocks=1, heads=2, attention=(), classes=3, remat=True, dtype="bfloat16")),
        (UNet2DModel, UNet(8, (1, 1), 1, (1, 0), heads=4, noise_width=8, groups=2, resample_in_block=True, classes=2)),
        (UNet2DModel, UNet(128, (1,), 1, (0,), out_channels=3, null_label=False, resample_in_block=True, dropout=0.5)),
        (AutoencoderKL, Autoencoder(channels=8, multipliers=(2, 2), blocks=1, remat=True)),
        (AutoencoderKL, Autoencoder(channels=8, multipliers=(1, 1), blocks=1, patch=2)),
        (
            DiTTransformer2DModel,
            DiT(16, 1, 2, noise_embedding=Positional(sine_first=False), classes=3, own_embedding=True),
        ),
        (DiTTransformer2DModel, DiT(16, 2, 2, noise_embedding=Positional(sine_first=False), classes=3)),
    ],
)
def test_fields_that_pytorch_has_no_word_for_come_back(torch_class, net, tmp_path, caplog):
    x = jnp.zeros((4, 4, 3))
    variables = random_variables(net, x, *(() if isinstance(net, Autoencoder) else (1.0, net.classes and 1)))
    interop.write(tmp_path / "ours", net, variables, sample_size=4)
    opened(torch_class, tmp_path / "ours", caplog)
    again, same_variables = interop.read(tmp_path / "ours")
    assert again == net
    same(same_variables, variables)


def test_to_pytorch_a_patch_is_a_pixel_of_more_channels(tmp_path, caplog):
    net = Autoencoder(channels=8, multipliers=(1, 2), blocks=1, patch=2, groups=4)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = jax.tree.map(lambda leaf: leaf / 4, random_variables(net, x[0]))
    interop.write(tmp_path / "ours", net, variables)
    *latents, decoded = ours(net, variables, x)
    model = opened(AutoencoderKL, tmp_path / "ours", caplog)
    agree([*latents, to_patches(decoded, 2)], theirs(model, np.asarray(to_patches(x, 2))))


def test_what_all_blocks_of_a_dit_embed_alike_is_read_once(tmp_path):
    model = made(*CASES["dit"])
    first, second = (block.norm1.emb for block in model.transformer_blocks)
    second.load_state_dict(first.state_dict())
    model.save_pretrained(tmp_path / "theirs")
    net, variables = interop.read(tmp_path / "theirs")
    assert not net.own_embedding
    agree(ours(net, variables, pixels(model)), theirs(model, pixels(model)))


def test_multipliers_are_exact():
    for first in range(1, 130):
        widths = [first, *range(1, 260)]
        assert [int(first * multiplier) for multiplier in multipliers(widths)] == widths


# --- the statistics of latents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["autoencoder", "autoencoder without attention"])
def test_codec_scales_latents_as_pipelines_do(name, tmp_path):
    model = made(*CASES[name])
    model.save_pretrained(tmp_path / "theirs")
    codec, said = interop.read_codec(tmp_path / "theirs"), model.config
    z = np.random.default_rng(0).normal(size=(4, 4, said.latent_channels)).astype(np.float32)
    mean = np.array(said.latents_mean or [said.shift_factor], np.float32)
    latents = (z - mean) * said.scaling_factor / np.array(said.latents_std or [1.0], np.float32)
    np.testing.assert_allclose((z - np.array(codec.mean)) / np.array(codec.deviation), latents, rtol=1e-6)
    interop.write_codec(tmp_path / "ours", codec)
    again = interop.read_codec(tmp_path / "ours")
    assert again.network == codec.network
    same(again, codec)


@pytest.fixture(scope="module")
def codec():
    net = Autoencoder(channels=8, multipliers=(1, 1), blocks=1, attention=False)
    variables = random_variables(net, jnp.zeros((2, 2, 3)))
    return Codec(net, variables, jnp.array([0.1, -0.3, 0, 2.0]), jnp.array([0.7, 1.3, 5, 1 / 3]))


def test_measured_statistics_come_back_bit_for_bit(codec, tmp_path, caplog):
    alike = codec.replace(mean=jnp.full(4, 0.1), deviation=jnp.full(4, 1 / 0.18215))
    for name, value in (("apart", codec), ("alike", alike)):
        interop.write_codec(tmp_path / name, value, sample_size=32)
        same(interop.read_codec(tmp_path / name), value)
    assert opened(AutoencoderKL, tmp_path / "alike", caplog).config.scaling_factor == pytest.approx(0.18215)


def test_an_autoencoder_without_statistics_scales_nothing(codec, tmp_path):
    interop.write(tmp_path / "ours", codec.network, codec.variables)
    plain = interop.read_codec(tmp_path / "ours")
    same((plain.mean, plain.deviation), (np.zeros(4), np.ones(4)))


# --- folders as they are found ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    net = UNet(8, (1, 2), blocks=1, attention=(1,), groups=2)
    return net, random_variables(net, jnp.zeros((2, 2, 3)), 0.0)


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "small"
    interop.write(folder, *small)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "small")


def change(folder, **settings):
    config = json.loads((folder / files.CONFIG).read_text())
    (folder / files.CONFIG).write_text(json.dumps(config | settings))


def rewrite(folder, change):
    """The tensors, changed by a function of them."""
    tensors = {name: np.array(tensor) for name, tensor in files.read_file(folder / files.WEIGHTS).items()}
    (folder / files.WEIGHTS).unlink()
    files.write_file(folder / files.WEIGHTS, change(tensors))


def test_a_network_outlives_its_file(small, folder):
    _, variables = interop.read(folder)
    with (folder / files.WEIGHTS).open("r+b") as file:
        file.write(bytes((folder / files.WEIGHTS).stat().st_size))
    same(variables, small[1])


def test_the_oldest_settings_are_understood():
    net = UNET.build(UNET.checked(OLD_CONFIG), {})
    assert net == DDPM_CIFAR10.clone(dropout=0.0, groups=32)


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.mark.parametrize("convolutions", [False, True])
def test_the_oldest_names_are_understood(small, folder, convolutions):
    def old(tensors):
        for new, name in OLD.items():
            tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
        looking = [name for name in tensors if re.search(r"(query|key|value|proj_attn)\.weight", name)]
        assert len(looking) == 16
        return tensors | {name: tensors[name][..., None, None] for name in looking if convolutions}

    rewrite(folder, old)
    net, variables = interop.read(folder)
    assert net == small[0]
    same(variables, small[1])


def test_a_dit_under_its_old_class(tmp_path):
    made(*CASES["dit"]).save_pretrained(tmp_path)
    new, _ = interop.read(tmp_path)
    change(tmp_path, _class_name="Transformer2DModel", cross_attention_dim=None, attention_type="default")
    assert interop.read(tmp_path)[0] == new
    change(tmp_path, norm_type="ada_norm")
    with pytest.raises(ValueError, match=r"can read _class_name .* got 'Transformer2DModel'"):
        interop.read(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_any_width_become_float32(dtype, tmp_path):
    model = made(*CASES["unet without attention"]).to(dtype)
    model.save_pretrained(tmp_path)
    _, variables = interop.read(tmp_path)
    kernel = model.conv_in.weight.detach().float().permute(2, 3, 1, 0).numpy()
    same(variables["params"]["first"]["kernel"], kernel)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_several_files(tmp_path):
    model = made(*CASES["unet without attention"])
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "several", max_shard_size="20KB")
    shards = sorted((tmp_path / "several").glob("*.safetensors"))
    assert len(shards) > 1
    same(interop.read(tmp_path / "several")[1], interop.read(tmp_path / "one")[1])
    shards[0].unlink()
    with pytest.raises(FileNotFoundError, match=f"no {shards[0].name}"):
        interop.read(tmp_path / "several")
    index = tmp_path / "several" / f"{files.WEIGHTS}.index.json"
    for listed in ({}, {"a": "../x.safetensors"}, {"a": 1}, None):
        index.write_text(json.dumps({"weight_map": listed}))
        with pytest.raises((ValueError, FileNotFoundError), match=r"weight_map must name files|has no 1"):
            interop.read(tmp_path / "several")


def test_the_folder_of_a_pipeline(small, folder, codec, tmp_path):
    shutil.move(folder, tmp_path / "pipeline" / "unet")
    assert interop.read(tmp_path / "pipeline")[0] == small[0]
    interop.write_codec(tmp_path / "pipeline" / "vae", codec)
    with pytest.raises(ValueError, match=r"several networks: name one of .*unet, .*vae"):
        interop.read(tmp_path / "pipeline")
    for place in (tmp_path / "pipeline", str(tmp_path / "pipeline" / "vae")):
        assert interop.read_codec(place).network == codec.network
    with pytest.raises(ValueError, match="no AutoencoderKL"):
        interop.read_codec(tmp_path / "pipeline" / "unet")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "can read _class_name UNet2DModel, .* got 'UNet2DConditionModel'"),
        ({"_class_name": ["UNet2DModel"]}, "can read _class_name"),
        ({"center_input_sample": True}, "center_input_sample False, got True"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type 'positional', got 'fourier'"),
        ({"freq_shift": 2}, "freq_shift 0 or 1, got 2"),
        ({"mid_block_type": None}, "mid_block_type 'UNetMidBlock2D', got None"),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor 1, got 2"),
        ({"act_fn": "gelu"}, "act_fn 'silu' or 'swish', got 'gelu'"),
        ({"class_embed_type": "timestep"}, "class_embed_type None, got 'timestep'"),
        ({"in_channels": "3"}, "in_channels a whole number from 1 to a million, got '3'"),
        ({"layers_per_block": 10**9}, "layers_per_block a whole number from 1 to 1000"),
        ({"norm_eps": -1}, "norm_eps a number from 0 to below 1, got -1"),
        ({"block_out_channels": []}, "block_out_channels a row, each a whole number"),
        ({"down_block_types": ["SkipDownBlock2D"] * 2}, "down_block_types a row, each 'DownBlock2D' or"),
        ({"down_block_types": ["AttnDownBlock2D"] * 2}, "attention at the same levels down and up"),
        ({"down_block_types": ["DownBlock2D"]}, "as many block types as block_out_channels"),
        ({"upsample_type": "resnet", "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"]}, "resample alike"),
        ({"attn_norm_num_groups": 4}, "attn_norm_num_groups 2 like the others, got 4"),
        (
            {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": None},
            "attn_norm_num_groups 2 .* got None",
        ),
        ({"dual_attention": True}, "unknown setting dual_attention=True"),
        ({"norm_num_groups": 3, "attn_norm_num_groups": None}, "groups that divide the 8 channels"),
        ({"_jaxdiff": {"epsilon": 1}}, "_jaxdiff may hold multipliers .* got {'epsilon': 1}"),
        ({"_jaxdiff": {"groups": None}}, "_jaxdiff makes no network, drop it: .* same groups everywhere"),
        ({"_jaxdiff": {"classes": "many"}}, "_jaxdiff may hold"),
        ({"_jaxdiff": {"multipliers": [1, 1]}}, "_jaxdiff contradicts"),
        ({"_jaxdiff": {"dtype": "evil"}}, "_jaxdiff may hold .* 'bfloat16' or .* got {'dtype': 'evil'}"),
        ({"_jaxdiff": 3}, "_jaxdiff may hold"),
    ],
)
def test_settings_that_are_refused(folder, settings, message):
    change(folder, **settings)
    with pytest.raises(ValueError, match=message) as refusal:
        interop.read(folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"out_channels": 1}, "in_channels like out_channels"),
        ({"use_post_quant_conv": False}, "use_quant_conv like use_post_quant_conv"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "down_block_types a row, each 'DownEncoderBlock2D'"),
        ({"latents_std": None}, "latents_mean and latents_std of all latent_channels, .* None"),
        ({"latents_std": [1.0]}, "latents_mean and latents_std of all latent_channels, .* [1.0]"),
        ({"shift_factor": 1.0}, "or with a shift_factor, or neither, .* and 1.0"),
        ({"scaling_factor": 0}, "scaling_factor a number above 0, got 0"),
    ],
)
def test_settings_of_an_autoencoder_that_are_refused(codec, tmp_path, settings, message):
    interop.write_codec(tmp_path / "vae", codec)
    change(tmp_path / "vae", **settings)
    with pytest.raises(ValueError, match=message):
        interop.read_codec(tmp_path / "vae")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {n: t for n, t in tensors.items() if "conv_in" not in n}, r"2 missing \(conv_in"),
        (lambda tensors: tensors | {"more.weight": np.zeros(3, np.float32)}, r"1 too many \(more.weight\)"),
        (
            lambda tensors: tensors | {"conv_in.weight": np.zeros((8, 3, 3, 1), np.float32)},
            r"1 unfit \(conv_in.weight is float32\[8, 3, 3, 1\], needed is float\[8, 3, 3, 3\]\)",
        ),
        (lambda tensors: tensors | {"conv_in.bias": np.zeros(8, np.int64)}, r"1 unfit \(conv_in.bias is int64"),
        (lambda tensors: tensors | {"conv_in.bias": np.zeros((8, 1, 1), np.float32)}, r"is float32\[8, 1, 1\]"),
        (lambda tensors: {}, r"\d+ missing \(.*, .*, .*\)$"),
    ],
)
def test_tensors_that_are_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        interop.read(folder)


def test_folders_that_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        interop.read("google/ddpm-cifar10-32")
    with pytest.raises(FileNotFoundError, match="is a file"):
        interop.read(folder / files.CONFIG)
    with pytest.raises(FileNotFoundError, match=r"no config.json, nor a folder"):
        interop.read(tmp_path)
    weights = folder / files.WEIGHTS
    weights.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no diffusion_pytorch_model.safetensors, only .*fp16.safetensors$"):
        interop.read(folder)
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"only diffusion_pytorch_model.bin: a pickle can run code"):
        interop.read(folder)
    for text in ("{", "[]", "\xff", "[" * 100_000):
        (folder / files.CONFIG).write_text(text, encoding="latin1")
        with pytest.raises(ValueError, match=r"config.json is damaged"):
            interop.read(folder)


REFUSED = {
    "text": True,
    "attend_last": True,
    "residual_input": True,
    "skip_scale": 0.5,
    "taps": (1.0, 3.0, 3.0, 1.0),
    "project_resampled": True,
    "noise_embedding": GaussianFourier(),
    "down_padding": (1, 0),
    "patch": 2,
    "multipliers": (2, 2),
    "noise_width": 6,
    "channels": 10,
}


@pytest.mark.parametrize("field", REFUSED)
def test_networks_that_pytorch_has_no_class_for(small, tmp_path, field):
    net, variables = small
    with pytest.raises(ValueError, match=field) as refusal:
        interop.write(tmp_path / "ours", net.clone(**{field: REFUSED[field]}), variables)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_one_setting_for_all_levels(small, tmp_path):
    net, variables = small
    with pytest.raises(ValueError, match="same groups everywhere, this network has 2 and 8"):
        interop.write(tmp_path / "ours", net.clone(groups=None), variables)
    with pytest.raises(ValueError, match="same head_channels everywhere, this network has 4 and 8"):
        interop.write(tmp_path / "ours", net.clone(attention=(0, 1), heads=2), variables)


def test_other_networks_are_not_written(codec, small, tmp_path):
    net, variables = small
    with pytest.raises(ValueError, match="only a UNet, an Autoencoder or a DiT"):
        interop.write(tmp_path / "ours", MLP(), {"params": {}})
    dit = DiT(16, 1, 2, noise_embedding=Positional(sine_first=False), classes=3)
    made = jax.eval_shape(dit.init, jax.random.key(0), jnp.zeros((2, 2, 3)), 0.0, 0)
    for wrong, match in (
        (dit.clone(classes=None), "cannot say classes=None"),
        (dit.clone(noise_embedding=Positional(shift=0, sine_first=False)), "cannot say noise_embedding=Positional"),
        (dit, "needs sample_size="),
    ):
        with pytest.raises(ValueError, match=match):
            interop.write(tmp_path / "ours", wrong, made)
    with pytest.raises(ValueError, match="cannot say epsilon="):
        interop.write(tmp_path / "ours", codec.network.clone(epsilon=1e-5), codec.variables)
    for wrong in (variables["params"], {"params": {}}, codec.variables, {}, None):
        with pytest.raises(ValueError, match="variables must be"):
            interop.write(tmp_path / "ours", net, wrong)
    with pytest.raises(ValueError, match=r"\d+ are not: down_1_0/conv_0/bias \(16,\) for \(8,\)"):
        interop.write(tmp_path / "ours", net.clone(multipliers=(1, 1), attention=()), variables)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_written_whole_or_not_at_all(small, folder, tmp_path, monkeypatch):
    with pytest.raises(FileExistsError, match="is there already"):
        interop.write(folder, *small)
    (tmp_path / "empty").mkdir()
    interop.write(tmp_path / "empty", *small)
    interop.write(tmp_path / "new" / "unet", *small)
    assert interop.read(tmp_path / "new")[0] == interop.read(tmp_path / "empty")[0] == small[0]

    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "write_file", full)
    with pytest.raises(OSError, match="no space left"):
        interop.write(tmp_path / "half", *small)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new", "small"]


# --- files of tensors ------------------------------------------------------------------------------------------------


def test_safetensors_are_those_of_the_official_library(tmp_path):
    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names}
    tensors |= {"empty": torch.zeros(0, 4), "number": torch.tensor(3.0)}
    official.save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    read = files.read_file(tmp_path / "theirs")
    assert {name: tensor.shape for name, tensor in read.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name].astype(np.float64), tensor.double().numpy())
    files.write_file(tmp_path / "ours", read)
    again = official.load_file(tmp_path / "ours")
    assert again.keys() == tensors.keys()
    assert all(
        torch.equal(again[name], tensor) and again[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


@pytest.fixture
def whole(tmp_path):
    files.write_file(tmp_path / "file", {"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 1), np.int16)})
    return tmp_path / "file"


def test_a_damaged_file_is_refused_wherever_it_ends(whole):
    data = whole.read_bytes()
    for cut in [*range(len(data)), len(data) + 1]:
        whole.with_name("cut").write_bytes((data + b"\0")[:cut])
        with pytest.raises(ValueError, match="damaged"):
            files.read_file(whole.with_name("cut"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"data_offsets":[0,16]', '"data_offsets":[0,20]'),
        ('"data_offsets":[16,20]', '"data_offsets":[12,16]'),  # overlapping
        ('"data_offsets":[16,20]', '"data_offsets":[18,22]'),  # a hole
        ('"shape":[4]', '"shape":[5]'),
        ('"shape":[4]', '"shape":[4.0]'),
        ('"shape":[2,1]', '"shape":[-2,-1]'),
        ('"dtype":"F32"', '"dtype":"F4"'),
        ('"dtype":"F32"', '"dtype":[]'),
        ('"dtype":"F32",', ""),
        ('{"dtype":"F32","shape":[4],"data_offsets":[0,16]}', "3"),
    ],
)
def test_a_header_that_lies_is_refused(whole, old, new):
    data = whole.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].decode().replace(old, new).encode()
    assert header.decode() != data[8 : 8 + length].decode()
    whole.with_name("lie").write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    with pytest.raises(ValueError, match="damaged"):
        files.read_file(whole.with_name("lie"))
