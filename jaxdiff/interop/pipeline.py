"""From a whole folder of diffusers to all that sampling needs: network, process, prediction, shape, autoencoder."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from jaxdiff.base.files import read_json
from jaxdiff.core.c_noise import CNoise, index
from jaxdiff.core.predictions import Prediction, data, noise, velocity
from jaxdiff.core.process import Process
from jaxdiff.core.tables import Betas, CosineBetas, Discrete, LinearBetas, ScaledLinearBetas, ZeroTerminalSNR
from jaxdiff.interop import files
from jaxdiff.interop.diffusers import read, read_codec
from jaxdiff.interop.dit import DIT
from jaxdiff.interop.settings import ANY, COUNT, POSITIVE, SWITCH, Rule, Settings, maybe, one_of, row_of
from jaxdiff.interop.unet import UNET
from jaxdiff.nets.autoencoder import Codec
from jaxdiff.nets.dit import DiT
from jaxdiff.nets.layers import Net
from jaxdiff.nets.unet import UNet

_INDEX, _SCHEDULER = "model_index.json", "scheduler_config.json"
_NETWORKS = ("unet", "transformer")
_READ = "read are pipelines of a UNet2DModel or a DiTTransformer2DModel, a scheduler and maybe an AutoencoderKL"


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A trained network, and what it was trained for. Its denoiser is

    network = jax.tree_util.Partial(pipeline.network.apply, {"params": pipeline.params})
    NetworkDenoiser(network, pipeline.process, pipeline.prediction, c_noise=pipeline.c_noise)
    """

    network: Net  # (x, c_noise), or (x, c_noise, label) if there are labels, -> F of the shape of x
    params: Any
    process: Process
    prediction: Prediction
    c_noise: CNoise
    shape: tuple[int, int, int]  # height, width, channels of what the network sees: latents, if there is a codec
    codec: Codec | None
    classes: tuple[str, ...] | None  # names of the labels from 0 on, as far as the folder has them
    labels: int | None  # it takes one of 0 .. labels - 1; None: it takes no label
    null: bool  # whether label `labels` stands for none, as classifier-free guidance needs it
    clip: bool  # whether the clean image expected is to be cut off at [-1, 1], by guidance.Clip; latents never are


def read_pipeline(folder: str | os.PathLike[str]) -> Pipeline:
    """All that sampling needs, from a folder that a pipeline of diffusers was saved to. Nothing in it is run.

    The folder has unet/ (a UNet2DModel) or transformer/ (a DiTTransformer2DModel), scheduler/, and vae/ (an
    AutoencoderKL) if the network sees latents; network and scheduler may also lie in the folder itself, as in 2022.
    Of the scheduler only the law of training is read, not how it walks: any sampler and grid of ours will do.
    A folder of a network alone, without a scheduler, is taken to be of DDPMScheduler's default: 1000 betas from 1e-4 to
    0.02, the noise predicted, pixels clipped. Where a network predicts variances too, they are left out: its last layer
    becomes half as wide. A UNet2DModel does not say whether its last label stands for none: `null` is True only if we
    wrote it so. Names of labels are those of id2label in model_index.json.
    """
    folder = Path(folder)
    listed = read_json(folder / _INDEX) if (folder / _INDEX).is_file() else {}
    parts = _parts(folder, listed)
    place = _network_folder(folder)
    law = _law(*_scheduler(folder, bare=not listed and place == folder))
    network, params, shape = _network(place)
    codec = _codec(folder / "vae", shape[-1]) if "vae" in parts else None
    labels = network.classes
    return Pipeline(
        network,
        params,
        law.process,
        law.prediction,
        index,
        shape,
        codec,
        _names(listed.get("id2label"), labels),
        labels,
        null=labels is not None and (isinstance(network, DiT) or network.null_label),
        clip=law.clip and codec is None,
    )


def _names(named: Any, labels: int | None) -> tuple[str, ...] | None:
    if not isinstance(named, dict) or labels is None:
        return None
    known = takewhile(lambda label: isinstance(named.get(str(label)), str), range(labels))
    return tuple(named[str(label)] for label in known) or None


# --- the parts --------------------------------------------------------------------------------------------------------


def _parts(folder: Path, listed: Mapping[str, Any]) -> set[str]:
    """What the pipeline is made of; refused if that is more than we read."""
    parts = {name for name, entry in listed.items() if name[:1] != "_" and isinstance(entry, list) and any(entry)}
    parts |= {name for name in (*_NETWORKS, "vae", "vqvae") if (folder / name).is_dir()}
    more = sorted(parts - {*_NETWORKS, "vae", "scheduler"})
    if more:
        raise ValueError(f"{folder} has {', '.join(more)}, and neither prompts nor codebooks are read: {_READ}")
    return parts


def _network_folder(folder: Path) -> Path:
    found = [folder / name for name in _NETWORKS if (folder / name / files.CONFIG).is_file()]
    return found[0] if len(found) == 1 else files.of_one_network(folder)


def _network(folder: Path) -> tuple[UNet | DiT, Any, tuple[int, int, int]]:
    """The network without the variances that it may predict, its parameters, and the shape of what it sees."""
    config = read_json(folder / files.CONFIG)
    if config.get("_class_name") == "UNet2DConditionModel":
        raise ValueError(f"{folder} is a UNet2DConditionModel, whose text encoder is not read: {_READ}")
    network, variables = read(folder)
    if not isinstance(network, UNet | DiT):
        raise ValueError(f"{folder} is an autoencoder, which draws nothing alone: {_READ}")
    settings = (UNET if isinstance(network, UNet) else DIT).checked(config)
    channels, out = settings["in_channels"], network.out_channels
    shape = (*_size(folder, settings["sample_size"]), channels)
    if out in (None, channels):
        return network, variables["params"], shape
    if out != 2 * channels:
        raise ValueError(
            f"{folder} returns {out} channels of {channels}: read are networks that return as many, or twice as many, "
            "the second half of them variances"
        )
    return network.clone(out_channels=None), _without_variances(variables["params"], out), shape


def _without_variances(params: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """The first half of the channels that the last layer makes, of each pixel if it makes a patch of them."""

    def first_half(leaf: Any) -> Any:
        pixels = leaf.reshape(*leaf.shape[:-1], -1, channels)
        return pixels[..., : channels // 2].reshape(*leaf.shape[:-1], -1)

    return {**params, "last": {name: first_half(leaf) for name, leaf in params["last"].items()}}


def _size(folder: Path, size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    if not (COUNT.holds(height) and COUNT.holds(width)):
        raise ValueError(
            f'{folder / files.CONFIG} must say the size of the images, as "sample_size": 32 or [32, 48] for height and '
            f"width: put in what it was trained on, got {size!r}"
        )
    return height, width


def _codec(folder: Path, channels: int) -> Codec:
    codec = read_codec(folder)
    latent = codec.network.latent_channels
    if latent != channels:
        raise ValueError(f"{folder} has latents of {latent} channels, but the network beside it sees {channels}")
    return codec


# --- the scheduler ----------------------------------------------------------------------------------------------------

_PREDICTIONS: Mapping[str, Prediction] = {"epsilon": noise, "v_prediction": velocity, "sample": data}
_SETTINGS: Mapping[str, tuple[Any, Rule]] = {
    "num_train_timesteps": (1000, COUNT),
    "beta_start": (1e-4, POSITIVE),
    "beta_end": (0.02, POSITIVE),
    "beta_schedule": ("linear", one_of("linear", "scaled_linear", "squaredcos_cap_v2")),
    "trained_betas": (None, maybe(row_of(POSITIVE))),
    "rescale_betas_zero_snr": (False, SWITCH),
    "prediction_type": ("epsilon", one_of(*_PREDICTIONS)),
    "clip_sample": (False, SWITCH),
    "clip_sample_range": (1.0, ANY),
    # what would make another law of training, or another denoiser
    "thresholding": (False, Rule("False, and guidance.DynamicThreshold for it", lambda value: value is False)),
    "use_flow_sigmas": (False, one_of(False)),
    "timestep_type": ("discrete", one_of("discrete")),
}
_RESCALES = {"rescale_betas_zero_snr": False}
_CLIPS = {"clip_sample": True, **_RESCALES}
# by class: defaults that are its own, and settings that not all classes have
_CLASSES: Mapping[str, Settings] = {
    "DDPMScheduler": _CLIPS,
    "DDIMScheduler": _CLIPS,
    "PNDMScheduler": {},
    "DPMSolverMultistepScheduler": _RESCALES,
    "DPMSolverSinglestepScheduler": {},
    "UniPCMultistepScheduler": _RESCALES,
    "EulerDiscreteScheduler": _RESCALES,
    "EulerAncestralDiscreteScheduler": _RESCALES,
    "HeunDiscreteScheduler": {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False},
    "LMSDiscreteScheduler": {},
    "DEISMultistepScheduler": {},
}


class _Law(NamedTuple):
    """What a scheduler says of the training."""

    process: Discrete
    prediction: Prediction
    clip: bool


def _scheduler(folder: Path, bare: bool) -> tuple[Path, Settings]:
    """Where it is, and what it says."""
    for path in (folder / "scheduler" / _SCHEDULER, folder / _SCHEDULER):
        if path.is_file():
            return path, read_json(path)
    if not bare:
        raise FileNotFoundError(f"{folder} has no scheduler/{_SCHEDULER}, which says what the network was trained for")
    return folder, {"_class_name": "DDPMScheduler"}


def _law(path: Path, config: Settings) -> _Law:
    try:
        settings = _checked(config)
        process, prediction = Discrete(_betas(settings)), _PREDICTIONS[settings["prediction_type"]]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return _Law(process, prediction, settings["clip_sample"])


def _checked(config: Settings) -> Settings:
    """The settings that matter, as this class has them. All others say how it walks, which we choose ourselves."""
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise ValueError(f"can read _class_name {', '.join(_CLASSES)}, got {kind!r}")
    own = _CLASSES[kind]
    settings = {name: config.get(name, own.get(name, default)) for name, (default, _) in _SETTINGS.items()}
    for name, value in settings.items():
        rule = _SETTINGS[name][1]
        if not rule.holds(value):
            raise ValueError(f"{kind} is read with {name} {rule.what}, got {value!r}")
    if settings["rescale_betas_zero_snr"] and "rescale_betas_zero_snr" not in own:
        raise ValueError(f"{kind} does not know rescale_betas_zero_snr: drop it, or name DDIMScheduler, which does")
    settings["clip_sample"] &= "clip_sample" in own  # as PyTorch's classes pass over what they do not know
    if settings["clip_sample"] and settings["clip_sample_range"] != 1:
        raise ValueError(f"{kind} is read with clip_sample_range 1, got {settings['clip_sample_range']!r}")
    return settings


def _betas(settings: Settings) -> Betas:
    steps, first, last = (settings[name] for name in ("num_train_timesteps", "beta_start", "beta_end"))
    tables: Mapping[str, Betas] = {
        "linear": LinearBetas(steps, first, last),
        "scaled_linear": ScaledLinearBetas(steps, first, last),
        "squaredcos_cap_v2": CosineBetas(steps),
    }
    trained = settings["trained_betas"]
    if trained is not None and len(trained) != steps:
        raise ValueError(f"trained_betas must be as many as num_train_timesteps, {steps}, got {len(trained)}")
    betas = tables[settings["beta_schedule"]] if trained is None else tuple(trained)
    return ZeroTerminalSNR(betas) if settings["rescale_betas_zero_snr"] else betas
