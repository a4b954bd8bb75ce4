"""The programs of the README and of the docs run as they stand, and their results are what is said of them."""

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import sample
import train
from jaxdiff.base import environment

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "RESULTS.md", ROOT / "CONTRIBUTING.md"]


def programs(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def run(name):
    scope = {}
    for program in programs(name):
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
