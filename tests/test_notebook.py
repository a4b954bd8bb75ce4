"""The notebook, run by a kernel as Colab runs it, on small networks: killed in the middle, and run again."""

import contextlib
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxdiff
from jaxdiff.models import Diffusion

with warnings.catch_warnings(action="ignore"):  # of Jupyter itself
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(os.name == "nt", reason="kills a process"),
]
ROOT = Path(__file__).parent.parent
NOTEBOOK = nbformat.read(ROOT / "notebooks" / "jaxdiff.ipynb", 4)
SMALL = [
    "system.network=MLP(widths=(32,), classes=10)",
    "data=Digits()",
    "held_out=None",
    "training.steps=60",
    "training.log_every=10",
]
OFTEN = ["training.show_every=30", "training.save_every=10", "batch_size=16"]
CHANGES = {
    "digits": SMALL + OFTEN,
    "mnist": SMALL + OFTEN,
    "cifar10": [*SMALL, *OFTEN, "system.sampler=DDIM()", "system.steps=4"],
    "folder128": [*OFTEN, "system.network=MLP(widths=(32,))", "data.size=16", "training.steps=20"],
}


def of_parameters(cell):
    return "parameters" in cell.metadata.get("tags", ())


def prepared(folder, steps):
    """With small networks, in a folder of its own; MNIST's takes so many steps."""
    book = nbformat.from_dict(NOTEBOOK)
    changes = CHANGES | {"mnist": [*CHANGES["mnist"], "training.schedule_steps=60", f"training.steps={steps}"]}
    (cell,) = [cell for cell in book.cells if of_parameters(cell)]
    chosen = str(folder / "runs"), str(folder / "images"), changes, True
    cell.source = f"RUNS, IMAGES, CHANGES, ON_CPU = {chosen!r}"
    return book


def images(folder):
    (folder / "images").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")


@contextlib.contextmanager
def kernel(book, folder):
    """Runs in the folder of the project, as Colab does after the installation."""
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(ROOT)}})
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAXDIFF_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    with client.setup_kernel(env=environment):
        yield client


def killed_when(client, is_time):
    def wait():
        while not is_time():
            time.sleep(0.05)
        client.km.provisioner.process.kill()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()


def saved(checkpoints):
    return [int(path.name) for path in checkpoints.glob("*") if path.name.isdecimal()]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The notebook and its folder, after it was killed while it trained on MNIST and run again."""
    folder = tmp_path_factory.mktemp("notebook")
    images(folder)
    first = prepared(folder, steps=10**6)
    kept = folder / "runs" / "mnist" / "checkpoints"
    with contextlib.suppress(DeadKernelError), kernel(first, folder) as client:
        killed_when(client, lambda: saved(kept))
        for number, cell in enumerate(first.cells):
            client.execute_cell(cell, number)
    at = max(saved(kept))
    book = prepared(folder, steps=at + 60)
    with kernel(book, folder) as client:
        for number, cell in enumerate(book.cells):
            client.execute_cell(cell, number)  # an error in a cell is raised
    return folder, at, {cell.id: cell for cell in book.cells}


def test_the_same_cell_resumes(done):
    folder, at, cells = done
    said = "".join(output.text for output in cells["mnist"].outputs if output.output_type == "stream")
    assert f"mnist resumes at step {at}: " in said
    assert "digits is trained to its end, step 60" in "".join(o.get("text", "") for o in cells["digits"].outputs)
    rows = (folder / "runs" / "mnist" / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows[1:]] == [str(step) for step in range(10, at + 61, 10)]


def test_progress_loss_and_samples_are_below_the_cell(done):
    progress, loss, samples, picture = (o for o in done[2]["mnist"].outputs if o.output_type != "stream")
    assert '<progress value="' in progress.data["text/html"]
    assert "60 steps done" in progress.data["text/html"]
    for output in (loss, samples, picture):
        assert output.data["image/png"]


def test_each_cell_shows_what_it_is_for(done):
    shown = {
        name: sum("image/png" in o.get("data", {}) for o in cell.outputs)
        for name, cell in done[2].items()
        if cell.cell_type == "code"
    }
    assert shown["guidance"] == 3
    assert shown["sampling"] == 4
    assert shown["editing"] == 2
    assert all(shown[name] for name in ("digits", "mnist", "cifar10", "mine"))
    assert "export.deserialize" in done[2]["export"].outputs[0].text
    assert {"digits.png", "digits.jaxdiff", "digits", "mnist", "cifar10", "folder128"} == {
        path.name for path in (done[0] / "runs").iterdir()
    }


def test_it_says_what_each_training_costs():
    told = [cell.source for cell in NOTEBOOK.cells if "T4: " in cell.source]
    trained = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code" and 'train("' in cell.source]
    assert len(told) == len(trained) == 4
    assert all(" v5e-1: " in text.replace("\n", " ") and "CPU: " in text for text in told)


def test_what_takes_a_cpu_more_than_a_day_is_left_out_there(capsys):
    cells = {cell.id: cell.source for cell in NOTEBOOK.cells}
    scope = {"os": os}
    for name in ("choices", "begin", "own"):  # the last would ask for images
        exec(cells[name], scope)
    scope["train"] = None
    for name in ("cifar10", "mine"):
        capsys.readouterr()
        exec(cells[name], scope)
        assert capsys.readouterr().out.startswith("left out: this takes more than a day on a CPU")


def test_it_is_kept_without_outputs():
    assert not any(cell.get("outputs") for cell in NOTEBOOK.cells)
    assert [cell.id for cell in NOTEBOOK.cells if of_parameters(cell)] == ["choices"]


# --- from Python ------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr("jaxdiff.models.from_python._prepare", lambda: None)
    from toy import config

    return config


def test_training_from_python_gives_the_model(toy, tmp_path, capsys):
    model = jaxdiff.train(toy, tmp_path / "run", "training.steps=10")
    assert isinstance(model.system, Diffusion)
    assert model.name == f"{tmp_path / 'run'} at step 10"
    again = jaxdiff.train(toy, tmp_path / "run", "training.steps=10")
    assert "is trained to its end, step 10" in capsys.readouterr().err
    np.testing.assert_array_equal(again.sample(3), model.sample(3, progress=True))
    assert "0/3" in capsys.readouterr().err
    assert jaxdiff.show(model.sample(20), ["a", "b"]).size[0] > 10 * 64
    assert jaxdiff.show(np.zeros((4, 8, 8, 3), np.uint8)).mode == "RGB"


def test_a_picture_has_a_row_for_each_text():
    levels = np.broadcast_to(np.array([0, 0, 90, 90], np.uint8)[:, None, None, None], (4, 32, 32, 1))
    for images, texts in ((levels, ["a", "a", "b", "b"]), (levels[[0, 2, 1, 3]], ["a", "b"])):
        shown = np.asarray(jaxdiff.show(images, texts).convert("L"))
        heights = [np.flatnonzero((shown == level).sum(1) >= 64) for level in (0, 90)]
        assert heights[0].max() < heights[1].min()


def test_bad_calls_are_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="a Config has no name: give the run a folder"):
        jaxdiff.train(toy)
    with pytest.raises(ValueError, match="no config file mnits; did you mean"):
        jaxdiff.train("mnits", tmp_path / "run")
    with pytest.raises(ValueError, match="batch_sise"):
        jaxdiff.train(toy, tmp_path / "run", "batch_sise=3")
    with pytest.raises(ValueError, match=r"an override has the form field\.subfield=value"):
        jaxdiff.train(toy, tmp_path / "run", "3")
    assert not (tmp_path / "run").exists()
