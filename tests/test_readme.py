"""The programs of the README and of the docs run as they stand, and their results are what is said of them."""

import re
import shlex
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import evaluate
import jaxdiff
import sample
import train
from jaxdiff.base import environment
from jaxdiff.models import from_python
from jaxdiff.training.metrics import read_metrics

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "RESULTS.md", ROOT / "CONTRIBUTING.md"]


SHORT = ("training.steps=1", "training.save_every=1", "training.placing=jit")


def programs(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def run(name, **shorter):
    """Its programs, one after the other; with these numbers where it has others."""
    scope = {}
    for program in programs(name):
        for number, value in shorter.items():
            program = re.sub(rf"^{number} = \d+$", f"{number} = {value}", program, flags=re.MULTILINE)
        exec(program, scope)
    return scope


def test_the_readme(tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    points = run("README.md")["points"]
    angles = np.arange(8) * np.pi / 4
    centres = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances = np.linalg.norm(points[:, None] - centres, axis=2)
    assert distances.min(axis=1).mean() < 0.2  # 0.125 expected, of modes 1.5 apart
    np.testing.assert_allclose(np.bincount(distances.argmin(axis=1)) / 2000, 1 / 8, atol=4 * (7 / 64 / 2000) ** 0.5)
    assert (tmp_path / "mixture.png").stat().st_size > 5000


def test_the_page_to_learn_from(tmp_path, monkeypatch, optimised):
    """In full it takes minutes: here the networks are hardly trained, and that of the digits is a small one."""
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(from_python, "_prepare", lambda: None)
    small = [f"system.network.{change}" for change in ("channels=8", "multipliers=(1,)", "attention=()", "groups=4")]
    training = partial(from_python.train, "digits", "runs/digits", *small, "batch_size=8", "system.shown=10")
    monkeypatch.setattr(jaxdiff, "train", lambda _, __, steps: training(steps, "training.placing=jit"))
    scope = run("docs/learn.md", STEPS=150, DIGITS=1)
    errors, centres = scope["errors"], scope["centres"]
    assert errors["DPMpp2M", 20] < errors["Euler", 20] < errors["Euler", 5]  # order two, order one
    free, _, sharp = (np.asarray(points) for points in scope["guided"])
    angle = (np.arange(2000) % 4 * 2 + 0.5) * np.pi / 4  # of the middle of the two clusters that a label stands for
    along = [np.mean(np.sum(points * np.stack([np.cos(angle), np.sin(angle)], 1), 1)) for points in (free, sharp)]
    assert abs(along[0]) < 0.2
    assert along[1] > 1.5
    assert scope["history"][-20:].mean() < 0.6 * scope["history"][:5].mean()
    arrived = np.asarray(scope["places"][-1])
    assert np.linalg.norm(arrived[:, None] - centres, axis=2).min(axis=1).mean() < 0.2
    assert scope["images"].shape == (80, 32, 32, 1)
    shown = re.findall(r"\]\((learn_\w+\.png)\)", (ROOT / "docs/learn.md").read_text())
    assert sorted(shown) == sorted(path.name for path in tmp_path.glob("*.png"))


def tiny(size, net):
    net = [f"{net}.{change}" for change in ("channels=8", "multipliers=(1,)", "blocks=1", "groups=4")]
    return *net, f"data.size={size}", "batch_size=2", "system.shown=2", *SHORT


def unet(net):
    return f"{net}.attention=(0,)", f"{net}.head_channels=8"


def edited_as_its_page_says(done):
    """The commands on runs/mine."""
    Image.new("RGB", (4, 4)).save("small.png")
    for name in ("photo.jpg", "other.jpg", "mask.png"):
        Image.new("RGB", (40, 30), "white").save(name)
    page = (ROOT / "docs/editing.md").read_text()
    commands = re.findall(r"^    python sample.py (--workdir runs/mine .*)", page, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        done(sample, *re.sub(r"(--steps|--resample) \d+", r"\1 2", command).split(), "--out", "edited.png")


def test_the_page_on_photos(tmp_path, monkeypatch, called):
    """Its configs, made small, on two photographs; and the commands of the page on editing, on one of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    for folder in ("my_images", "held_out"):
        (tmp_path / folder).mkdir()
        for name, gray in (("a.png", 60), ("b.jpg", 200)):
            Image.new("RGB", (40, 30), (gray, 90, 120)).save(tmp_path / folder / name)
    for name in ("mine", "captions", "latent"):
        (program,) = (text for text in programs("docs/photos.md") if text.startswith(f"# {name}.py\n"))
        (tmp_path / f"{name}.py").write_text(program)

    def done(command, *flags):
        code, _, err = called(command.main, *flags)
        assert code == 0, err

    net = "system.network"
    drawn = *tiny(16, net), *unet(net), "system.steps=2"
    done(train, "--config", "mine.py", *drawn, "held_out.size=16")
    edited_as_its_page_says(done)

    (tmp_path / "my_images" / "captions.csv").write_text("file,caption\na.png,a dog on a beach\nb.jpg,a red car\n")
    inner = f"{net}.network"
    drawn = *tiny(8, inner), *unet(inner), f"{net}.encoder.width=16", "system.steps=1"
    done(train, "--config", "captions.py", *drawn)
    done(sample, "--workdir", "runs/captions", "--prompt", "a dog on a beach", "--guidance_scale", 3, "--num", 1)

    (given,) = re.findall(r"--config cifar10_autoencoder (.*)", (ROOT / "docs/photos.md").read_text())
    done(train, "--config", "cifar10_autoencoder", *shlex.split(given), *tiny(8, net), "held_out=None")
    done(train, "--config", "latent.py", *tiny(8, net), f"{net}.attention=()", "system.steps=2")
    done(sample, "--workdir", "runs/latent", "--num", 1)


def test_the_page_on_diffusers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("docs/diffusers.md")["unet"].channels == 16
    assert (tmp_path / "my-unet" / "config.json").exists()


def test_the_library_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = run("docs/library.md")
    assert scope["images"].shape == (20, 32, 32, 3)
    assert np.isfinite(scope["value"])
    assert scope["gradient"] < 0  # the weight wants to grow from zero


def test_the_page_on_extending(tmp_path, monkeypatch, called):
    """It is two files, from which models are trained, sampled and evaluated; each class has less than 20 lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    sources = programs("docs/extending.md")
    last = next(i for i, source in enumerate(sources) if "config = Config(" in source) + 1
    for name, some in (("mine.py", sources[:last]), ("parts.py", sources[last:])):
        (tmp_path / name).write_text("\n".join(some))
        for source in some[:-1]:
            assert all(len(each.strip().splitlines()) < 20 for each in source.split("\n\n\n"))
    small = ("batch_size=8", "training.placing=jit", "system.steps=3", "system.shown=2")
    short = ("training.steps=2", "training.save_every=2", "training.log_every=1", *small)

    def done(command, *flags):
        code, _, err = called(command.main, *flags)
        assert code == 0, err
        return err

    done(train, "--config", "mine.py", *short)
    (tmp_path / "later.py").write_text("from mine import config\n")
    done(train, "--config", "later.py", "--dry_run", *short)
    flags = ("--code", "mine.py", "--labels", "3,9", "--guidance_scale", 2, "--num", 2)
    said = done(sample, *flags, "--sampler", "mine.py:EulerAncestral(eta=0.5)", "--out", "mine.png")
    assert "EulerAncestral(eta=0.5), 3 steps, guidance_scale=2" in said
    done(sample, *flags, "--sampler", "DDIM(eta=0.5)", "--out", "ddim.png")
    mine, ddim = (np.asarray(Image.open(tmp_path / f"{name}.png"), int) for name in ("mine", "ddim"))
    assert abs(mine - ddim).max() <= 1  # gray levels

    done(train, "--config", "parts.py", *short)
    rates = [row["learning_rate"] for row in read_metrics(tmp_path / "runs/parts/metrics.csv")]
    np.testing.assert_allclose(rates, [1e-4, 5e-5], rtol=1e-5)
    code = ("--workdir", "runs/parts", "--code", "mine.py", "--code", "parts.py")
    done(sample, *code, "--guidance_scale", 2, "--num", 2)
    done(evaluate, *code, "--features", "parts.py:thumbnails", "--num", 20)
    few = "system.times=UniformTimes()", "system.sampler=Consistency()"
    objective = "system.objective=parts.py:Earlier(gap=0.05)"
    done(train, "--config", "parts.py", "--workdir", "runs/earlier", *short, *few, objective)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]*)\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link.partition("#")[0]).exists(), link
