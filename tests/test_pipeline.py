"""A pipeline read from a folder draws what diffusers draws with it, and what cannot be read is refused."""

import json
import shutil
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import interop
from jaxdiff.core import c_noise, predictions, tables
from jaxdiff.core.denoise import NetworkDenoiser
from jaxdiff.core.grids import Leading, Trailing
from jaxdiff.core.guidance import Clip
from jaxdiff.core.samplers import DDIM
from jaxdiff.core.sampling import walk
from jaxdiff.nets.dit import DiT
from jaxdiff.nets.unet import UNet


@contextmanager
def quiet():
    """The warnings within are theirs, not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


with quiet():
    import diffusers
    import torch

torch.set_num_threads(1)  # more are in the way of ours

SMALL = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8}
SMALL |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
VAE = {"block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 16, "scaling_factor": 0.5}
VAE |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
WIDE = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8, "num_embeds_ada_norm": 5}


class Latent(diffusers.DiffusionPipeline):
    """An unconditional pipeline on latents: those of diffusers have a codebook."""

    def __init__(self, unet, vae, scheduler):
        super().__init__()
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler)


def made(torch_class, settings):
    """A network of PyTorch's with no parameter at zero or one."""
    model, generator = torch_class(**settings).eval(), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def unet(**settings):
    return made(diffusers.UNet2DModel, SMALL | {"sample_size": 8} | settings)


def dit(**settings):
    return made(diffusers.DiTTransformer2DModel, WIDE | settings)


def vae(**settings):
    return made(diffusers.AutoencoderKL, VAE | settings)


def ddpm(network, **settings):
    return diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(**settings))


def ddim(network, **settings):
    return diffusers.DDIMPipeline(network, diffusers.DDIMScheduler(**settings))


# what makes the pipeline, the grid, the shape, and the fields of ours that are not as usual
CASES = {
    "noise": (lambda: ddpm(unet(), clip_sample=False), Leading(), (8, 8, 3), {}),
    "cosine": (
        lambda: ddpm(
            unet(sample_size=(8, 16), in_channels=1, out_channels=1),
            beta_schedule="squaredcos_cap_v2",
            num_train_timesteps=200,
            clip_sample=False,
        ),
        Leading(),
        (8, 16, 1),
        {"process": tables.Discrete(tables.CosineBetas(200))},
    ),
    "velocity, clipped": (
        lambda: ddpm(unet(), prediction_type="v_prediction"),
        Trailing(),
        (8, 8, 3),
        {"prediction": predictions.velocity, "clip": True},
    ),
    "data, labels, variances": (
        lambda: ddpm(
            unet(num_class_embeds=5, out_channels=6),
            prediction_type="sample",
            variance_type="learned_range",
            clip_sample=False,
        ),
        Leading(),
        (8, 8, 3),
        {"prediction": predictions.data, "labels": 5},
    ),
    "zero terminal SNR": (
        lambda: ddim(unet(), rescale_betas_zero_snr=True, prediction_type="v_prediction", clip_sample=False),
        Trailing(),
        (8, 8, 3),
        {"prediction": predictions.velocity, "process": tables.Discrete(tables.ZeroTerminalSNR(tables.LinearBetas()))},
    ),
    "dit": (
        lambda: diffusers.DiTPipeline(dit(out_channels=8), vae(), diffusers.DDIMScheduler(clip_sample=False)),
        Leading(),
        (8, 8, 4),
        {"labels": 5, "null": True, "codec": True},
    ),
    "latents": (
        lambda: Latent(
            unet(in_channels=4, out_channels=4),
            vae(shift_factor=0.25),
            diffusers.DDIMScheduler(
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction"
            ),
        ),
        Leading(),
        (8, 8, 4),
        {"prediction": predictions.velocity, "process": tables.Discrete(tables.ScaledLinearBetas()), "codec": True},
    ),
}
USUAL = {"process": tables.Discrete(), "prediction": predictions.noise, "c_noise": c_noise.index}
USUAL |= {"labels": None, "null": False, "clip": False, "codec": False, "classes": None}


@dataclass
class Case:
    """A pipeline of diffusers, what is read of it, and what should be."""

    theirs: Any
    pipeline: interop.Pipeline
    grid: Any
    fields: dict[str, Any]


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request, tmp_path_factory):
    make, grid, shape, fields = CASES[request.param]
    pipeline, folder = make(), tmp_path_factory.mktemp("theirs")
    save(pipeline, folder)
    return Case(pipeline, interop.read_pipeline(str(folder)), grid, USUAL | {"shape": shape} | fields)


def save(pipeline, folder):
    with quiet():
        pipeline.save_pretrained(folder)


STEPS = 5


def labels_of(pipeline):
    """A label each of two images, one of them none, if there are labels and one of them says so."""
    return None if pipeline.labels is None else np.array([1, pipeline.labels if pipeline.null else 3])


def ours(pipeline, grid, x):
    network = jax.tree_util.Partial(pipeline.network.apply, {"params": pipeline.params})
    model = NetworkDenoiser(network, pipeline.process, pipeline.prediction, c_noise=pipeline.c_noise)
    model = Clip(model) if pipeline.clip else model
    times, key, labels = grid(pipeline.process, STEPS), jax.random.key(0), labels_of(pipeline)

    def one(x, *label):
        return walk(lambda x, t: model(x, t, *label), pipeline.process, DDIM(), times, key, x)

    return jax.jit(jax.vmap(one))(x, *(() if labels is None else (labels,)))


def theirs(pipeline, spacing, labels, x):
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    settings = pipeline.scheduler.config
    clips = settings.clip_sample and not hasattr(pipeline, "vae")  # as we do: theirs clips latents if nobody minds
    scheduler = diffusers.DDIMScheduler.from_config(settings, timestep_spacing=spacing, clip_sample=clips)
    scheduler.set_timesteps(STEPS)
    given = {} if labels is None else {"class_labels": torch.from_numpy(labels)}
    x = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.no_grad():
        for t in scheduler.timesteps:
            F = network(x, timestep=t.expand(len(x)), **given).sample[:, : x.shape[1]]
            x = scheduler.step(F, t, x, use_clipped_model_output=True).prev_sample
    return x.permute(0, 2, 3, 1).numpy()


def agree(one, other, tolerance=1e-4):
    assert one.shape == other.shape
    assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def test_draws_what_diffusers_draws(case):
    pipeline = case.pipeline
    x = np.random.default_rng(0).normal(size=(2, *pipeline.shape)).astype(np.float32)
    spacing = type(case.grid).__name__.lower()
    latents = ours(pipeline, case.grid, x)
    agree(latents, theirs(case.theirs, spacing, labels_of(pipeline), x))
    if pipeline.codec is not None:
        settings = case.theirs.vae.config
        z = torch.from_numpy(np.array(latents)).permute(0, 3, 1, 2)
        with torch.no_grad():
            images = case.theirs.vae.decode(z / settings.scaling_factor + (settings.shift_factor or 0)).sample
        agree(pipeline.codec.decode(latents), images.permute(0, 2, 3, 1).numpy())


def test_reads_what_the_folder_says(case):
    pipeline = case.pipeline
    for name, value in case.fields.items():
        read = getattr(pipeline, name)
        assert (read is not None if name == "codec" else read) == value, name
    given = () if pipeline.labels is None else (1,)
    F = jax.eval_shape(
        pipeline.network.apply, {"params": pipeline.params}, jnp.zeros(pipeline.shape), jnp.zeros(()), *given
    )
    assert F.shape == pipeline.shape


# --- the scheduler ----------------------------------------------------------------------------------------------------

READ = ["DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "EulerDiscrete"]
READ += ["EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "DEISMultistep"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    save(ddpm(unet()), folder := tmp_path_factory.mktemp("saved"))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A pipeline to change."""
    return Path(shutil.copytree(saved, tmp_path / "pipeline"))


def scheduler_of(name, **settings):
    with quiet():
        return getattr(diffusers, f"{name}Scheduler")(**settings)


def change(path, **values):
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | values))


def schedule(folder, **settings):
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("name", READ)
def test_defaults_are_those_of_the_class(folder, name):
    schedule(folder, _class_name=f"{name}Scheduler")
    scheduler, pipeline = scheduler_of(name), interop.read_pipeline(folder)
    assert pipeline.process.steps == scheduler.config.num_train_timesteps
    np.testing.assert_allclose(pipeline.process.alpha_bar, scheduler.alphas_cumprod, rtol=1e-4)
    assert pipeline.prediction is predictions.noise
    assert pipeline.clip == scheduler.config.get("clip_sample", False)


ODD = {"num_train_timesteps": 100, "beta_start": 0.002, "beta_end": 0.03}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, ODD | {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}) for name in READ),
        ("DDIM", ODD | {"beta_schedule": "linear"}),
        ("DDIM", ODD | {"beta_schedule": "squaredcos_cap_v2"}),
        ("DDPM", {"num_train_timesteps": 3, "trained_betas": [0.1, 0.3, 0.2]}),
        *(
            (name, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
            for name in (
                "DDPM",
                "DDIM",
                "DPMSolverMultistep",
                "UniPCMultistep",
                "EulerDiscrete",
                "EulerAncestralDiscrete",
            )
        ),
    ],
)
def test_tables_are_those_of_the_class(folder, name, settings):
    scheduler = scheduler_of(name, **settings)
    scheduler.save_pretrained(folder / "scheduler")
    pipeline = interop.read_pipeline(folder)
    assert pipeline.process.steps == scheduler.config.num_train_timesteps
    # some of theirs have 2^-24 at the end, where zero is meant
    np.testing.assert_allclose(pipeline.process.alpha_bar, scheduler.alphas_cumprod, rtol=1e-4, atol=1e-7)
    if settings.get("rescale_betas_zero_snr"):
        assert pipeline.process.alpha_bar[-1] == 0
    assert (pipeline.prediction is predictions.velocity) == (scheduler.config.prediction_type == "v_prediction")
    hash(pipeline.process)


def test_only_a_class_that_clips_does(folder):
    schedule(folder, _class_name="PNDMScheduler", clip_sample=True)
    assert not interop.read_pipeline(folder).clip
    schedule(folder, _class_name="HeunDiscreteScheduler", clip_sample=True)
    assert interop.read_pipeline(folder).clip
    schedule(folder, _class_name="DDIMScheduler", clip_sample=False, clip_sample_range=2.0)
    assert not interop.read_pipeline(folder).clip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "can read _class_name DDPMScheduler, .* got 'ScoreSdeVeScheduler'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "got 'FlowMatchEulerDiscreteScheduler'"),
        ({"_class_name": "EDMEulerScheduler"}, "got 'EDMEulerScheduler'"),
        ({"_class_name": ["DDPMScheduler"]}, r"can read .* got \['DDPMScheduler'\]"),
        ({"num_train_timesteps": 0}, "num_train_timesteps a whole number from 1 to a million, got 0"),
        ({"beta_start": "small"}, "beta_start a number above 0, got 'small'"),
        ({"beta_end": -1}, "beta_end a number above 0, got -1"),
        ({"beta_end": 2}, r"betas must lie within \(0, 1\)"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'linear' or 'scaled_linear' or .* got 'sigmoid'"),
        ({"trained_betas": []}, r"trained_betas a row, each a number above 0, or null, got \[\]"),
        ({"trained_betas": [0.1, 0.2]}, "as many as num_train_timesteps, 1000, got 2"),
        ({"rescale_betas_zero_snr": 1}, "rescale_betas_zero_snr true or false, got 1"),
        (
            {"_class_name": "PNDMScheduler", "rescale_betas_zero_snr": True, "prediction_type": "sample"},
            "PNDMScheduler does not know rescale_betas_zero_snr",
        ),
        ({"prediction_type": "flow_prediction"}, "prediction_type 'epsilon' or .* got 'flow_prediction'"),
        ({"clip_sample": None}, "clip_sample true or false, got None"),
        ({"clip_sample_range": 2.0}, "clip_sample_range 1, got 2.0"),
        ({"thresholding": True}, "thresholding False, and guidance.DynamicThreshold for it, got True"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas False, got True"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type 'discrete', got"),
    ],
)
def test_schedulers_that_are_refused(folder, settings, message):
    schedule(folder, **({"_class_name": "DDPMScheduler"} | settings))
    refused(folder, message)


def refused(folder, message, error=ValueError):
    """In one line that says where."""
    with pytest.raises(error, match=message) as refusal:
        interop.read_pipeline(folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_network_alone_is_taken_to_be_ddpms(folder):
    pipeline = interop.read_pipeline(folder / "unet")
    assert (pipeline.process, pipeline.prediction) == (tables.Discrete(), predictions.noise)
    assert pipeline.clip


def test_all_in_one_folder_as_in_2022(folder):
    schedule(folder, _class_name="DDIMScheduler", num_train_timesteps=50, prediction_type="sample")
    for part in ("unet", "scheduler"):
        for path in (folder / part).iterdir():
            path.rename(folder / path.name)
        (folder / part).rmdir()
    pipeline = interop.read_pipeline(folder)
    assert pipeline.process == tables.Discrete(tables.LinearBetas(50))
    assert pipeline.prediction is predictions.data
    (folder / "scheduler_config.json").unlink()
    refused(folder, "has no scheduler/scheduler_config.json", FileNotFoundError)


def test_latents_are_not_clipped(tmp_path):
    save(Latent(unet(in_channels=4, out_channels=4), vae(), diffusers.DDPMScheduler()), tmp_path)
    assert not interop.read_pipeline(tmp_path).clip


@pytest.mark.parametrize(
    ("named", "classes"),
    [
        ({"0": "cat", "1": "tench, Tinca tinca"}, ("cat", "tench, Tinca tinca")),
        ({"1": "dog", "0": "cat", "2": "too many"}, ("cat", "dog")),
        ({"0": "cat", "1": 3}, ("cat",)),
        ({"1": "dog"}, None),
        ("cat, dog", None),
    ],
)
def test_names_of_labels(tmp_path, named, classes):
    save(ddpm(unet(num_class_embeds=2)), tmp_path)
    change(tmp_path / "model_index.json", id2label=named)
    assert interop.read_pipeline(tmp_path).classes == classes


def test_a_network_without_labels_has_no_names(folder):
    change(folder / "model_index.json", id2label={"0": "cat"})
    assert interop.read_pipeline(folder).classes is None


def zeros(net, shape):
    """Parameters of a network with labels."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(()), 0)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def test_a_label_for_none_that_we_wrote(tmp_path):
    net = UNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, classes=3, out_channels=1)
    variables = zeros(net, (8, 8, 1))
    interop.write(tmp_path / "ours", net, variables, sample_size=8)
    pipeline = interop.read_pipeline(tmp_path / "ours")
    assert (pipeline.labels, pipeline.null, pipeline.shape) == (3, True, (8, 8, 1))


def test_a_dit_of_ours(tmp_path):
    net = DiT(width=8, depth=1, heads=2, classes=3)
    variables = zeros(net, (8, 8, 3))
    interop.write(tmp_path / "ours", net, variables, sample_size=8)
    pipeline = interop.read_pipeline(tmp_path / "ours")
    assert (pipeline.network, pipeline.null) == (net, True)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, "has text_encoder, and neither prompts nor codebooks"),
        ({"tokenizer_2": ["t", "T5"], "mel": ["diffusers", "Mel"]}, "has mel, tokenizer_2, .* read are pipelines of a"),
        ({"vqvae": ["diffusers", "VQModel"]}, "has vqvae, .* maybe an AutoencoderKL"),
    ],
)
def test_parts_that_are_refused(folder, listed, message):
    change(folder / "model_index.json", **listed)
    shutil.rmtree(folder / "unet")  # it was not even looked at
    refused(folder, message)


def test_parts_that_are_absent_are_no_matter(folder):
    change(folder / "model_index.json", safety_checker=[None, None], vae=[None, None], requires_safety_checker=False)
    assert interop.read_pipeline(folder).codec is None


def test_a_codebook_that_is_not_listed_is_refused(folder):
    (folder / "model_index.json").unlink()
    (folder / "vqvae").mkdir()
    refused(folder, "has vqvae")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "a UNet2DConditionModel, whose text encoder is not read"),
        ({"_class_name": "FluxTransformer2DModel"}, "can read _class_name .* got 'FluxTransformer2DModel'"),
        ({"sample_size": None}, r'must say the size of the images, as "sample_size": 32 or \[32, 48\] .* got None'),
        ({"sample_size": [8]}, r"must say the size of the images, .* got \[8\]"),
        ({"sample_size": 0}, "must say the size of the images, .* got 0"),
        ({"in_channels": 0}, "in_channels a whole number"),
    ],
)
def test_networks_that_are_refused(folder, settings, message):
    change(folder / "unet" / "config.json", **settings)
    refused(folder, message)


def test_a_network_that_returns_other_channels_is_refused(tmp_path):
    save(ddpm(unet(in_channels=3, out_channels=4)), tmp_path)
    refused(tmp_path, "returns 4 channels of 3: read are networks that return as many, or twice as many")


def test_an_autoencoder_alone_is_refused(tmp_path):
    vae().save_pretrained(tmp_path / "vae")
    (tmp_path / "scheduler").mkdir()
    schedule(tmp_path, _class_name="DDPMScheduler")
    refused(tmp_path, "an autoencoder, which draws nothing alone")


def test_an_autoencoder_of_other_latents_is_refused(folder):
    vae().save_pretrained(folder / "vae")
    refused(folder, "latents of 4 channels, but the network beside it sees 3")


def test_what_is_missing_is_said(folder, tmp_path):
    refused(tmp_path / "nowhere", "is not there, and nothing is downloaded", FileNotFoundError)
    shutil.rmtree(folder / "scheduler")
    refused(folder, "has no scheduler/scheduler_config.json", FileNotFoundError)
    (folder / "model_index.json").unlink()
    refused(folder, "has no scheduler/scheduler_config.json", FileNotFoundError)
    (folder / "model_index.json").write_text("{")
    refused(folder, "model_index.json is damaged")


def test_a_listed_autoencoder_must_be_there(folder):
    change(folder / "model_index.json", vae=["diffusers", "AutoencoderKL"])
    refused(folder, "vae is not there", FileNotFoundError)


def test_no_pickle_is_opened(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(folder, "a pickle can run code and is not read", FileNotFoundError)
