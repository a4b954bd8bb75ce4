"""A model that is shared: its folder, read from here and from the cache of the Hugging Face Hub; none of it is run."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from test_hub import Handler, StandIn
from toy import config

import evaluate
import jaxdiff
import sample
from jaxdiff import interop
from jaxdiff.base import environment
from jaxdiff.base.plain import CodeNeededError
from jaxdiff.cli.main import main
from jaxdiff.cli.report import Report
from jaxdiff.data import Digits
from jaxdiff.data.augment import Augment
from jaxdiff.interop.files import read_file, write_file
from jaxdiff.models.experiment import Experiment
from jaxdiff.nets import Autoencoder, Codec, UNet
from jaxdiff.training import Training

ROOT = Path(__file__).parent.parent
TINY = Autoencoder(1, 2, 4, (1, 2), 1, attention=False, groups=2)
NETWORK = UNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, classes=10)
SHORT = Training(steps=4, save_every=2, show_every=4, log_every=2, placing="jit")
FEATURES = """
def corner(images):
    return images[:, :2, :2, 0].reshape(len(images), -1).astype("float32")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A latent model with labels, so that there is something of everything, with a name that YAML would misread."""
    folder = tmp_path_factory.mktemp("runs")
    variables = jax.jit(TINY.init)(jax.random.key(0), np.zeros((8, 8, 1), np.float32))
    interop.write_codec(folder / "codec", Codec(TINY, variables, np.zeros(2, np.float32), np.ones(2, np.float32)))
    system = replace(config.system, network=NETWORK, codec=str(folder / "codec"))
    own = replace(config, system=system, data=Digits(split="train"), augment=Augment(), training=SHORT)
    Experiment(own, folder / "123").train()
    return folder


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    """Its folder, after it was evaluated as it is, and with another average."""
    here = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "prepare", lambda *_: None)
        patch.chdir(here)
        Path("corners.py").write_text(FEATURES)
        asked = ("--workdir", runs / "123", "--features", "corners.py:corner", "--num", 16)
        for average in ("0", "none"):
            patch.setattr(sys, "argv", ["evaluate.py", *map(str, asked), "--average", average])
            assert evaluate.main() == 0
        report = Report(runs / "123" / "evaluation.json")
        drawn = next(each["of"]["samples"] for each in report.results if "parameters" in each["of"]["samples"])
        bits = {"bits per dimension": {"value": 1.5, "error": 0.1}}  # a model of pixels would have some
        report.add({"count": 4, "how": "Likelihood()", "parameters": drawn["parameters"]}, bits)
        patch.setattr(sys, "argv", ["jaxdiff", "publish", str(runs / "123"), "123", "--license", "cc-by-4.0"])
        assert main() == 0
    return here / "123"


@pytest.fixture
def copied(published, tmp_path):
    return shutil.copytree(published, tmp_path / "copy")


def test_it_draws_what_the_run_draws(published, runs):
    model, own = jaxdiff.load(published), jaxdiff.load(runs / "123")
    assert (model.classes, model.image_shape, model.name) == (own.classes, (8, 8, 1), f"{published} at step 4")
    np.testing.assert_array_equal(model.sample(4, labels=3), own.sample(4, labels=3))
    chosen = {"step": 2, "average": 1}
    for name, value in chosen.items():
        with pytest.raises(ValueError, match="with one set of parameters: leave out checkpoint and average"):
            jaxdiff.load(published, **{name: value})


def test_the_card_says_what_it_is(published, runs):
    yaml = pytest.importorskip("yaml")
    _, front, text = (published / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        **{"license": "cc-by-4.0", "library_name": "jaxdiff", "pipeline_tag": "unconditional-image-generation"},
        "tags": ["jax", "diffusion", "jaxdiff"],
    }
    for fact in (
        "# 123\n",
        "    UNet with ",
        "for 4 steps of 16 images",
        "labels='0'",
        "\n16 images, Euler(), 2 steps, ",
    ):
        assert fact in text, fact
    numbers = json.loads((published / "evaluation.json").read_text())["results"]
    assert len(numbers) == 2  # not those of the other average
    assert len(json.loads((runs / "123" / "evaluation.json").read_text())["results"]) > 1
    with Image.open(published / "samples.png") as picture:
        assert picture.width > 64


def test_what_is_in_it(published, runs):
    assert {path.name for path in published.iterdir()} == {
        *("README.md", "config.json", "data.json", "model.safetensors", "evaluation.json", "samples.png"),
        *("codec", "diffusers"),
    }
    net, variables = interop.read(published / "diffusers")
    assert net == NETWORK
    jax.tree.map(np.testing.assert_array_equal, variables["params"], jaxdiff.load(runs / "123").params)


def test_what_is_there_is_not_written_over(published, runs, called, monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    publish = partial(called, main, "publish")
    for given, said in (
        ((runs / "123", published), f"{published} is there already: name another, or remove it first"),
        ((tmp_path, tmp_path / "new"), "is not the folder of a run"),
        ((runs / "123", tmp_path / "new", "--license", "MIT License"), "must be a name as the Hub has it"),
        ((runs / "123", tmp_path / "new", "--average", 7), "got 7"),
    ):
        code, _, err = publish(*given)
        assert (code, said in err, err.count("\n")) == (2, True, 1), err
    assert list(tmp_path.iterdir()) == []


# --- what others wrote ------------------------------------------------------------------------------------------------


def test_nothing_of_such_a_folder_is_run(copied, tmp_path):
    evil = f"open({str(tmp_path / 'run')!r}, 'w')\n"
    for name in ("mine.py", "jaxdiff.py", "config.py", "conftest.py"):
        (copied / name).write_text(evil)
    known = json.loads((copied / "config.json").read_text())
    known["config"]["system"]["sampler"] = {"is": "mine:Own", "from": str(copied / "mine.py")}
    (copied / "config.json").write_text(json.dumps(known))
    with pytest.raises(CodeNeededError, match="is code, which runs only if you name it"):
        jaxdiff.load(copied)
    assert not (tmp_path / "run").exists()


def test_what_is_damaged_is_refused(copied):
    path, tensors = copied / "model.safetensors", read_file(copied / "model.safetensors")
    name = next(iter(tensors))
    for change, said in (
        ({name: None}, f"{name} must be float32.*, is absent"),
        ({"more": np.zeros(2)}, r"more must be absent, is float64\[2\]"),
        ({name: tensors[name].astype(np.float16)}, f"{name} must be float32.*, is float16"),
        ({name: tensors[name][None]}, f"{name} must be float32.*, is float32"),
    ):
        write_file(path, {each: tensor for each, tensor in (tensors | change).items() if tensor is not None})
        with pytest.raises(ValueError, match=said):
            jaxdiff.load(copied)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is damaged, or no safetensors file"):
        jaxdiff.load(copied)


def test_a_step_that_is_none_is_refused(copied):
    known = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(known | {"step": "4"}))
    with pytest.raises(ValueError, match="is damaged: step must be a whole number, got '4'"):
        jaxdiff.load(copied)


# --- the Hub ----------------------------------------------------------------------------------------------------------

ASK = """
import sys
from pathlib import Path
import numpy as np
import jaxdiff, sample
images = jaxdiff.load("hub:me/digits").sample(2, labels=3)
np.save("images.npy", images)
for wrong in ("hub:me/none", "hub:digits/of/me", "hub:me/digits@v7"):
    try:
        jaxdiff.load(wrong)
    except ValueError as error:
        print(error)
sys.argv = ["sample.py", "--workdir", "hub:me/digits", "--num", "2"]
print(sample.main(), Path("samples.png").exists())
"""


def test_a_model_of_the_hub_is_read_from_its_cache(published, tmp_path):
    pytest.importorskip("huggingface_hub")
    cache = tmp_path / "home" / "hub" / "models--me--digits"
    snapshot = cache / "snapshots" / ("0123456789" * 4)
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(snapshot.name)
    for path in (path for path in published.rglob("*") if path.is_file()):  # each a link to what is named by its hash
        blob, link = cache / "blobs" / str(len(list(cache.rglob("*")))), snapshot / path.relative_to(published)
        blob.parent.mkdir(exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    known = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tmp_path, env=os.environ | known, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    none, wrong, revision, drawn = [line for line in done.stdout.splitlines() if not line.endswith(".png")]
    missing = "is not in the cache of the Hub, which cannot be reached: connect once, or copy $HF_HOME"
    assert none == f"hub:me/none {missing}"
    assert wrong == "hub:digits/of/me must be hub:owner/name, or hub:owner/name@revision"
    assert revision == f"hub:me/digits@v7 {missing}"
    assert drawn == "0 True"
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), jaxdiff.load(published).sample(2, labels=3))


class Models(Handler):
    """The stand-in for the Hub has data sets alone: models are asked for by other paths."""

    def do_GET(self):
        of_models = "/api/models/"
        begins = of_models if self.path.startswith(of_models) else "/"
        self.path = self.path.replace(begins, "/api/datasets/" if begins == of_models else "/datasets/", 1)
        super().do_GET()

    do_HEAD = do_POST = do_GET


DOWNLOAD = """
from jaxdiff.models.published import folder_of
for name in ("hub:me/digits", "hub:me/none", "hub:me/digits@v7", "hub:me/gated"):
    try:
        folder = folder_of(name)
        print(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    except ValueError as error:
        print(error)
"""


def test_only_what_is_read_is_downloaded(published, tmp_path):
    pytest.importorskip("huggingface_hub")
    with StandIn() as hub:
        hub.RequestHandlerClass = Models
        there = {str(path.relative_to(published)): path for path in published.rglob("*") if path.is_file()}
        hub.commit("me/digits", {name: path.read_bytes() for name, path in there.items()} | {"run.py": b"1 / 0"})
        hub.gated.add("me/gated")
        known = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOAD], cwd=ROOT, env=os.environ | known, capture_output=True, text=True
        )
        hub.shutdown()
    assert done.returncode == 0, done.stderr
    kept, none, revision, gated = done.stdout.splitlines()
    codec = "codec/config.json codec/diffusion_pytorch_model.safetensors"
    assert kept == f"{codec} config.json data.json model.safetensors"
    assert none.startswith("hub:me/none is not on the Hub, or is private: ")
    assert revision.startswith("hub:me/digits@v7 has no such revision: ")
    assert gated.startswith("hub:me/gated is gated: ask for access")


def test_without_its_library_one_line_says_so(called, monkeypatch):
    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, out, err = called(sample.main, "--workdir", "hub:me/digits")
    said = "sample.py: hub:me/digits needs the library huggingface_hub: pip install huggingface_hub\n"
    assert (code, out, err) == (2, "", said)
