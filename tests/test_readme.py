"""The programs of the README and of the docs run as they stand, and their results are what is said of them."""

import re
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import jaxdiff
import sample
import train
from jaxdiff.base import environment
from jaxdiff.models import from_python

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "RESULTS.md", ROOT / "CONTRIBUTING.md"]


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
    assert scope["images"].shape == (80, 8, 8, 1)
    shown = re.findall(r"\]\((learn_\w+\.png)\)", (ROOT / "docs/learn.md").read_text())
    assert sorted(shown) == sorted(path.name for path in tmp_path.glob("*.png"))


def test_the_page_on_photos(tmp_path, monkeypatch, called):
    """Its config for captions, made small, on two photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda distributed=False: None)
    (tmp_path / "my_images").mkdir()
    for name, gray in (("a.png", 60), ("b.jpg", 200)):
        Image.new("RGB", (40, 30), (gray, 90, 120)).save(tmp_path / "my_images" / name)
    (tmp_path / "my_images" / "captions.csv").write_text("file,caption\na.png,a dog on a beach\nb.jpg,a red car\n")
    (program,) = programs("docs/photos.md")
    (tmp_path / "mine.py").write_text(program)
    net = "system.network.network"
    small = (
        f"{net}.channels=8",
        f"{net}.multipliers=(1,)",
        f"{net}.blocks=1",
        f"{net}.attention=(0,)",
        f"{net}.groups=4",
    )
    small += f"{net}.head_channels=8", "system.network.encoder.width=16", "data.size=8", "batch_size=2"
    short = "training.steps=1", "training.save_every=1", "training.placing=jit", "system.steps=1", "system.shown=2"
    code, _, err = called(train.main, "--config", "mine.py", *small, *short)
    assert code == 0, err
    code, _, err = called(sample.main, "--prompt", "a dog on a beach", "--guidance_scale", 3, "--num", 1)
    assert code == 0, err


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
    """All of it is one file, from which a model is trained and sampled; each class in it has less than 20 lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda distributed=False: None)
    *classes, config = programs("docs/extending.md")
    (tmp_path / "mine.py").write_text("\n".join([*classes, config]))
    assert all(len(source.split("\n\n\n")[-1].strip().splitlines()) < 20 for source in classes)
    short = (
        "training.steps=2",
        "training.save_every=2",
        "training.log_every=2",
        "batch_size=8",
        "training.placing=jit",
    )
    code, _, err = called(train.main, "--config", "mine.py", "system.steps=3", "system.shown=2", *short)
    assert code == 0, err
    (tmp_path / "later.py").write_text("from mine import config\n")
    code, _, err = called(train.main, "--config", "later.py", "--dry_run", *short)
    assert code == 0, err
    flags = ("--code", "mine.py", "--labels", "3,9", "--guidance_scale", 2, "--num", 2)
    code, _, err = called(sample.main, *flags, "--sampler", "mine.py:EulerAncestral(eta=0.5)")
    assert code == 0, err
    assert "EulerAncestral(eta=0.5), 3 steps, guidance_scale=2" in err


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]*)\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link.partition("#")[0]).exists(), link
