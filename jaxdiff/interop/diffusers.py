"""From a folder of diffusers to a network and its variables, and back."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdiff.base.files import read_json
from jaxdiff.interop import files
from jaxdiff.interop.autoencoder import AUTOENCODER, latent_settings, latents
from jaxdiff.interop.dit import DIT
from jaxdiff.interop.names import Place, places
from jaxdiff.interop.settings import Settings, TorchClass
from jaxdiff.interop.unet import UNET
from jaxdiff.nets.autoencoder import Autoencoder, Codec
from jaxdiff.nets.layers import Net

Folder = str | os.PathLike[str]
Variables = dict[str, Any]

_CLASSES = (UNET, AUTOENCODER, DIT)
_OURS = "_jaxdiff"  # in config.json: fields of ours that PyTorch has no word for; it passes over such names


def read(folder: Folder) -> tuple[Net, Variables]:
    """The network in a folder of diffusers, and its variables in float32, as `net.apply` takes them.

    The folder is that of a UNet2DModel, an AutoencoderKL or a DiTTransformer2DModel, or of a pipeline with one of them.
    A UNet2DModel does not say which label stands for none: where it is the last one, tell the network by
    `net.clone(classes=net.classes - 1, null_label=True)`. A DiT computes what PyTorch's does for images of its
    sample_size: ours counts positions by patches whatever the size, PyTorch's by fractions of that one.
    """
    net, variables, _ = _read(Path(folder))
    return net, variables


def read_codec(folder: Folder) -> Codec:
    """The autoencoder in a folder of diffusers, with the mean and deviation of its latents."""
    inner = Path(folder) / "vae"  # of a pipeline, which has other networks too
    net, variables, settings = _read(inner if (inner / files.CONFIG).is_file() else Path(folder))
    if not isinstance(net, Autoencoder):
        raise ValueError(f"{folder} holds no AutoencoderKL: `read` reads it, as {net!r}")
    return Codec(net, variables, *map(jnp.asarray, latents(settings)))


def write(folder: Folder, net: Net, variables: Mapping[str, Any], sample_size: Any = None) -> None:
    """A new folder that diffusers opens with `from_pretrained`: a network that has a PyTorch class, and its variables.

    The folder must be new, or empty; all of it is written or nothing. `sample_size` is the side of the images, or
    (height, width), for PyTorch's pipelines; a DiT must have it. An autoencoder gets a scaling_factor of 1: see
    `write_codec`.
    """
    settings = latent_settings(np.zeros(1), np.ones(1)) if isinstance(net, Autoencoder) else {}
    _write(Path(folder), net, variables, sample_size, settings)


def write_codec(folder: Folder, codec: Codec, sample_size: int | None = None) -> None:
    """A new folder with an autoencoder and the mean and deviation of its latents.

    They become scaling_factor and shift_factor where all channels have the same, else latents_mean and latents_std,
    which not all of PyTorch's pipelines look at.
    """
    settings = latent_settings(np.asarray(codec.mean), np.asarray(codec.deviation))
    _write(Path(folder), codec.network, codec.variables, sample_size, settings)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(folder: Path) -> tuple[Net, Variables, Settings]:
    folder = files.of_one_network(folder)
    config, tensors = read_json(folder / files.CONFIG), files.read_tensors(folder)
    try:
        torch_class = _class_of(config)
        settings = torch_class.checked(config)
        net = _with_ours(torch_class, settings, torch_class.build(settings, tensors), config.get(_OURS, {}))
        wanted = places(torch_class.table(net), torch_class.shapes(net, settings["in_channels"]))
        _compare(wanted, tensors)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    parameters = {}
    for place in wanted:  # copied: a change of the file must not change the network
        parameters[place.path] = jnp.array(place.from_torch(tensors[place.name]), jnp.float32)
    return net, {"params": unflatten_dict(parameters, sep="/")}, settings


def _class_of(config: Mapping[str, Any]) -> TorchClass:
    name = config.get("_class_name")
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":  # until 2024
        return DIT
    for torch_class in _CLASSES:
        if torch_class.name == name:
            return torch_class
    raise ValueError(f"can read _class_name {', '.join(c.name for c in _CLASSES)}, got {name!r}")


def _with_ours(torch_class: TorchClass, settings: Settings, net: Net, fields: Any) -> Net:
    """The network with the fields that only we have a word for, if to PyTorch it is still the same."""
    known = torch_class.free
    if not isinstance(fields, dict) or not all(name in known and known[name].holds(fields[name]) for name in fields):
        legal = ", ".join(f"{name} ({rule.what})" for name, rule in known.items())
        raise ValueError(f"{_OURS} may hold {legal}, got {fields!r}")
    ours: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    try:
        full = net.clone(**ours)
        one, other = (torch_class.describe(each, settings["in_channels"]) for each in (net, full))
    except ValueError as error:
        raise ValueError(f"{_OURS} makes no network, drop it: {fields!r}, {error}") from None
    if one != other:
        raise ValueError(f"{_OURS} contradicts the settings beside it, drop it: {fields!r}")
    return full


def _compare(wanted: list[Place], tensors: files.Tensors) -> None:
    """Refuses tensors that are missing, too many, or not what the network needs."""
    needed = {place.name: place for place in wanted}
    problems = {
        "missing": [name for name in needed if name not in tensors],
        "too many": [name for name in tensors if name not in needed],
        "unfit": [
            f"{name} is {tensors[name].dtype}{list(tensors[name].shape)}, needed is float{list(place.torch_shape)}"
            for name, place in needed.items()
            if name in tensors and not place.fits(tensors[name])
        ],
    }
    found = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in problems.items() if names]
    if found:
        raise ValueError(f"the tensors are not those of the settings: {'; '.join(found)}")


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(folder: Path, net: Net, variables: Mapping[str, Any], sample_size: Any, more: Mapping[str, Any]) -> None:
    torch_class = next((c for c in _CLASSES if type(net) is c.network), None)
    if torch_class is None:
        raise ValueError(f"only a UNet, an Autoencoder or a DiT can be written for PyTorch, not {net!r}")
    parameters = _flat(variables)
    try:
        channels = torch_class.channels(net, parameters)
    except (KeyError, IndexError):
        raise ValueError(f"variables must be those of {net!r}, got {', '.join(list(parameters)[:3])}") from None
    settings = torch_class.describe(net, channels)
    ours = _ours(torch_class, net, settings)
    if torch_class is DIT and isinstance(sample_size, tuple):
        raise ValueError(f"a DiT of PyTorch draws squares, this one {sample_size[0]}x{sample_size[1]}")
    if sample_size is None and torch_class is DIT:
        raise ValueError("a DiT needs sample_size=..., the side of the images it was made for")
    if sample_size is not None:
        settings["sample_size"] = sample_size
    shapes = torch_class.shapes(net, channels)
    got = {path: np.shape(value) for path, value in parameters.items()}
    odd = sorted(path for path in shapes.keys() | got.keys() if shapes.get(path) != got.get(path))
    if odd:
        wrong = ", ".join(f"{path} {got.get(path)} for {shapes.get(path)}" for path in odd[:3])
        raise ValueError(f"variables must be those of {net!r}, {len(odd)} are not: {wrong}")
    wanted = places(torch_class.table(net), shapes)
    tensors = {place.name: place.to_torch(np.asarray(parameters[place.path], np.float32)) for place in wanted}
    config = {"_class_name": torch_class.name, **settings, **more, **({_OURS: ours} if ours else {})}
    files.write_folder(folder, config, tensors)


def _flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ValueError('variables must be what net.init makes, {"params": ...}')
    return flatten_dict(variables["params"], sep="/")


def _ours(torch_class: TorchClass, net: Net, settings: Settings) -> dict[str, Any]:
    """The fields that the settings do not tell; refused where PyTorch's network would be another."""
    plain = torch_class.build(torch_class.checked(settings), {})
    names = [field.name for field in dataclasses.fields(net) if field.name not in ("parent", "name")]
    differing = {name: getattr(net, name) for name in names if getattr(net, name) != getattr(plain, name)}
    for name, value in differing.items():
        if name not in torch_class.free:
            raise ValueError(f"{torch_class.name} cannot say {name}={value!r}: it would be {getattr(plain, name)!r}")
    return differing
