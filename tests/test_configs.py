"""Every config, made small: it trains, shows what it has learnt, and can be sampled from."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdiff.base import code
from jaxdiff.cli import sample
from jaxdiff.cli.options import parsed
from jaxdiff.core.tables import Discrete, LinearBetas
from jaxdiff.data import Folder, Tfds
from jaxdiff.models import Diffusion, Prompts
from jaxdiff.models.experiment import Experiment
from jaxdiff.nets import MLP, Autoencoder, DiT, Prompted, SmallUNet
from jaxdiff.training.metrics import read_metrics

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@functools.cache
def loaded(name):
    return code.load(ROOT / "configs" / f"{name}.py")


def small_network(net):
    if isinstance(net, Prompted):
        return net.clone(network=small_network(net.network), encoder=net.encoder.clone(width=16, depth=1))
    if isinstance(net, MLP):
        return net.clone(widths=(16, 16))
    if isinstance(net, SmallUNet):
        return net.clone(widths=(8, 8))
    if isinstance(net, DiT):
        return net.clone(width=16, depth=1, heads=2)
    few = {"channels": 8, "multipliers": (1,), "blocks": 1, "groups": 2}
    if isinstance(net, Autoencoder):
        return net.clone(**few)
    looks = {"attention": (0,), "middle_attention": False} if net.attention else {"attention": ()}
    return net.clone(**few, **looks, head_channels=None, heads=1)


def small(config, folder):
    """On twenty pictures of 8x8, of ten classes."""
    gray = isinstance(config.data, Tfds) and "mnist" in config.data.name
    data = Folder(str(folder), size=8, channels=1 if gray or not isinstance(config.data, Tfds | Folder) else 3)
    system = replace(config.system, network=small_network(config.system.network), shown=4)
    if isinstance(system, Diffusion):
        few = system.objective is not None and system.sampler.only_to_data
        system = replace(system, steps=2 if few else 3)
    training = replace(
        config.training, placing="jit", minutes=None, steps=2, log_every=1, show_every=2, save_every=2, keep_every=None
    )
    held_out = None if config.held_out is None else data
    return replace(config, system=system, data=data, held_out=held_out, batch_size=8, training=training)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("ankle boot", "bag", "cat", "dog", "frog", "horse", "shirt", "ship", "sneaker", "truck"):
        (folder / name).mkdir()
        for i in range(2):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_can_be_sampled_from(name, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))
    config = small(loaded(name), pictures)
    if getattr(config.system, "codec", None) is not None:
        under = config.system.codec.removeprefix("runs/")
        Experiment(small(loaded(under), pictures), tmp_path / under).train()
        config = replace(config, system=replace(config.system, codec=str(tmp_path / under)))
    if config.start is not None:
        under = config.start.removeprefix("runs/")
        Experiment(small(loaded(under), pictures), tmp_path / under).train()
        config = replace(config, start=str(tmp_path / under))
    run = Experiment(config, tmp_path / name)
    assert run.train() is None
    assert (run.folder / "samples" / "step_000002.png").stat().st_size > 0
    rows = read_metrics(run.folder / "metrics.csv")
    assert len(rows) == 2
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert ("held_out_loss" in rows[-1]) == (config.held_out is not None)
    flags = ["--workdir", str(run.folder), "--out", str(tmp_path / "out.png"), "--num", "4"]
    if isinstance(config.system, Diffusion):
        prompted = isinstance(config.system.condition, Prompts)
        assert sample.draw(parsed([*flags, *(["--prompt", "a cat"] if prompted else [])])) == 0
        assert (tmp_path / "out.png").stat().st_size > 0
    else:
        with pytest.raises(ValueError, match="draws no images"):
            sample.draw(parsed(flags))


def test_the_small_ones_are_as_published():
    process, training = loaded("mnist_mlp").system.process, loaded("mnist_small_unet").training
    assert process == Discrete(LinearBetas(20, 0.001, 0.7))
    assert loaded("mnist_small_unet").system.process == Discrete(LinearBetas(300, 1e-4, 0.02))
    assert training.steps == round(5 * 60_000 / 128) + 1
    assert loaded("mnist_small_unet").batch_size == 128
    assert loaded("cifar10_ddpm").system.process == Discrete(LinearBetas(1000, 1e-4, 0.02))


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_what_it_is(name):
    text = (ROOT / "configs" / f"{name}.py").read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 70
