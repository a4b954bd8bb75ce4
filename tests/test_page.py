"""report.html: what it says of a run, how large it gets, and that it is quiet, still and whole in a browser."""

import html
import json
import math
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import toy
from PIL import Image
from systems import exact_system

from jaxdiff.base import pictures
from jaxdiff.models import Labels, about, exhibits
from jaxdiff.models.config import written
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.model import Model
from jaxdiff.training import page
from jaxdiff.training.metrics import COLUMNS, seconds

ATTACK = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\"><!--"
TEMPLATE = Path(page.__file__).with_name("page.html").read_text()
NOISE = np.random.default_rng(0)


def metrics(folder, count, every=10):
    lines = [",".join((*COLUMNS, "held_out_loss", "held_out_loss_1", "held_out_loss_2"))]
    for step in range(every, count * every + 1, every):
        seen = f"{2 / step + 0.1},0.5,0.75" if step % (10 * every) == 0 else ",,"
        lines.append(f"{step},{step / 50},{1 / step + 0.1},0.5,0.001,0,100,{seen}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def made(folder, rows=40, shown=3, shape=(40, 60, 3), name="toy"):
    """The folder of a run, as training and evaluation leave it."""
    folder.mkdir()
    (folder / "config.json").write_text(written(toy.config))
    about = {"model": name, "commands": {"resume": f"python train.py --config {name}"}}
    (folder / "about.json").write_text(json.dumps(about))
    metrics(folder, rows)
    for step in range(1, shown + 1):
        pictures.save(folder / "samples" / f"step_{10 * step:06}.png", NOISE.integers(0, 256, shape, np.uint8))
        pictures.save(
            folder / "drawn" / "step_000040" / f"denoising_{step:04}_of_{shown:04}.png", np.full((9, 9), step / shown)
        )
    pictures.save(folder / "nearest.png", np.zeros((9, 9)))
    numbers = {"frechet": {"value": 3.14159, "error": 0.0271}, "which": [1], "accuracy": {"value": 0.5}}
    of = {"samples": {"how": f"DDIM, {name}", "count": 2000}, "features": {"name": "runs/judge"}}
    results = [{"of": of, "numbers": numbers}, {"of": {"samples": {"real images": "train 9"}}, "numbers": {}}]
    (folder / "evaluation.json").write_text(json.dumps({"form": 1, "results": results}))
    page.write(folder)
    return folder / page.NAME


def data_of(file):
    return json.loads(re.search(r'<script type="application/json" id="run">(.*?)</script>', file.read_text())[1])


def picture_of(frame):
    kind, _, content = frame["source"].partition(";base64,")
    assert kind in ("data:image/png", "data:image/webp")
    return Image.open(BytesIO(b64decode(content)))


# --- what it says ---------------------------------------------------------------------------------------------------


def test_a_run_on_its_page(tmp_path):
    said = data_of(made(tmp_path / "mine"))
    assert said["name"] == "mine"
    assert said["facts"]["step"] == "400 / 80"
    assert said["facts"]["held-out loss"] == "0.105"
    assert said["facts"]["time in steps"] == "64 s"
    loss, *others = said["charts"]
    assert list(loss["lines"]) == ["each row", "mean", "held out"]
    assert loss["lines"]["each row"][0] == [10, 0.2]
    assert loss["lines"]["mean"][-1][1] == pytest.approx(0.1 + (1 / 400 + 1 / 390) / 2, rel=1e-4)
    titles = ["gradient norm", "learning rate", "images per second", "held out loss, from little noise, 1, to much, 8"]
    assert [chart["title"] for chart in others] == titles
    seen = range(100, 401, 100)
    assert others[-1]["lines"] == {"1": [[step, 0.5] for step in seen], "2": [[step, 0.75] for step in seen]}
    samples, forming, nearest = said["films"]
    assert [frame["caption"] for frame in samples["frames"]] == ["step 10", "step 20", "step 30"]
    assert [frame["caption"] for frame in forming["frames"]] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert forming["title"] == "How images form, at step 40"
    assert len(nearest["frames"]) == 1
    (table,) = said["tables"]
    assert table["head"] == ["Fréchet", "labels right"]
    assert table["rows"][0] == ["DDIM, toy, 2,000 images, by judge", "3.142 ± 0.027", "0.5"]
    assert table["rows"][1] == ["real images (train)", "", ""]
    assert "system: Diffusion\n  network: MLP\n    widths: 16" in said["config"]


def test_small_pictures_stay_as_they_are(tmp_path):
    said = data_of(made(tmp_path / "run"))
    for frame, stored in zip(said["films"][0]["frames"], sorted((tmp_path / "run/samples").iterdir()), strict=True):
        np.testing.assert_array_equal(picture_of(frame), Image.open(stored))


def test_nothing_comes_from_outside(tmp_path):
    text = made(tmp_path / "run").read_text()
    assert set(re.findall(r"\w+://[\w./]*", text)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert not re.findall(r"<link|<iframe|@import|url\(|src=|href=", text)  # the script sets the sources of pictures
    assert "default-src 'none'; img-src data:" in text


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    page.write(tmp_path)
    said = data_of(tmp_path / page.NAME)
    assert not any(said[name] for name in ("facts", "charts", "films", "tables", "commands", "about", "config"))


def test_a_name_that_would_be_markup_is_text(tmp_path):
    file = made(tmp_path / "run", name=ATTACK)
    assert file.read_text().count("<script") == TEMPLATE.count("<script")
    assert "<!--" not in file.read_text()
    assert data_of(file)["about"]["model"] == ATTACK


# --- how large it gets ----------------------------------------------------------------------------------------------


def test_a_long_run_has_a_page_of_two_megabytes_at_most(tmp_path):
    metrics(tmp_path, 30_000)
    for step in range(1, 21):
        picture = NOISE.integers(0, 256, (220, 220, 3), np.uint8)  # nothing takes more space than noise
        pictures.save(tmp_path / "samples" / f"step_{step:06}.png", picture)
        pictures.save(tmp_path / "drawn" / "step_000020" / f"denoising_{step:04}_of_0020.png", picture)
    pictures.save(tmp_path / "drawn" / "step_000020" / "guidance.png", picture)
    for name in ("nearest", "evaluation_steps", "evaluation_eta", "evaluation_sampler", "evaluation_guidance_scale"):
        pictures.save(tmp_path / f"{name}.png", picture)
    result = {"of": {"samples": {"how": "DDIM" * 20}}, "numbers": {f"number {n}": {"value": n} for n in range(10)}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": [result] * 1000}))
    (tmp_path / "config.json").write_text(json.dumps({"config": {f"field{n}": "x" * 100 for n in range(10_000)}}))
    page.write(tmp_path)
    file = tmp_path / page.NAME
    assert 1_000_000 < file.stat().st_size < 2_000_000
    said = data_of(file)
    captions = [frame["caption"] for frame in said["films"][0]["frames"]]
    assert len(captions) == page.FRAMES
    assert (captions[0], captions[-1]) == ("step 1", "step 20")
    assert said["charts"][0]["lines"]["each row"][-1][0] == 300_000
    assert all(picture_of(frame).size[0] >= 75 for film in said["films"] for frame in film["frames"])


def test_a_second_page_costs_next_to_nothing(tmp_path, monkeypatch):
    made(tmp_path / "run", shape=(300, 300, 3))
    monkeypatch.setattr(Image, "open", None)  # no picture is read again
    before = (tmp_path / "run" / page.NAME).read_text()
    (tmp_path / "run" / page.NAME).unlink()
    page.write(tmp_path / "run")
    assert data_of(tmp_path / "run" / page.NAME)["films"] == json.loads(json.dumps(_films(before)))


def _films(text):
    return json.loads(re.search(r'id="run">(.*?)</script>', text)[1])["films"]


# --- what it costs a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluation.json", b"{"),
        ("evaluation.json", b'{"results": [{"of": 3}]}'),
        ("about.json", b'{"commands": 1'),
        ("config.json", b"\xff"),
        ("samples/step_000010.png", b"no picture" * 9000),
    ],
    ids=str,
)
def test_what_is_damaged_costs_a_warning(tmp_path, capsys, name, content):
    before = made(tmp_path / "run").read_text()
    (tmp_path / "run" / name).write_bytes(content)
    page.write(tmp_path / "run")
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {tmp_path / 'run' / page.NAME} could not be written: ")
    assert err.count("\n") == 1
    assert (tmp_path / "run" / page.NAME).read_text() == before


def test_a_run_writes_its_page_as_it_goes(tmp_path, monkeypatch):
    seen, real, folder = [], page.write, tmp_path / "run"
    monkeypatch.setattr(page, "write", lambda folder: (real(folder), seen.append(data_of(folder / page.NAME))))
    config = replace(toy.config, training=replace(toy.config.training, placing="jit"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    (tmp_path / "sample.py").touch()  # and no evaluate.py
    Experiment(config, folder, again="python train.py").train()
    assert [said["facts"].get("step") for said in seen] == [None, "40 / 80", "80 / 80", "80 / 80", "80 / 80"]
    assert seen[0]["commands"]["resume"] == "python train.py"
    assert seen[0]["commands"]["sample"] == f"python sample.py --workdir {folder}"
    assert seen[0]["commands"]["evaluate"] == f"jaxdiff evaluate --workdir {folder}"
    assert [len(said["films"][0]["frames"]) for said in seen[1:]] == [1, 2, 2, 2]
    assert not (folder / "drawn").exists()  # it took less than a minute
    monkeypatch.setattr(exhibits, "SHORT", 0)
    Experiment(config, folder).train()  # of a finished run, what it lacks
    forming, guided = seen[-1]["films"][1:]
    assert [frame["caption"] for frame in forming["frames"]] == ["step 1 of 2", "step 2 of 2"]
    assert guided["title"] == "Guidance scales, at step 80"


def test_a_run_of_a_class_from_a_notebook_has_its_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(about, "modules_of", lambda config: {ModuleType("__main__")})  # which has no file there
    few = replace(toy.config.training, steps=2, save_every=2, log_every=2, show_every=2)
    Experiment(replace(toy.config, training=few), tmp_path).train()
    assert json.loads((tmp_path / "about.json").read_text())["commands"]["sample"].endswith(str(tmp_path))


def test_seconds_of_a_run():
    rows = [{"step": 10, "images_per_second": 50.0}, {"step": 30, "images_per_second": 100.0}]
    assert seconds([*rows, {"step": 40, "images_per_second": 0.0}], 5) == pytest.approx(1 + 1)
    assert seconds([], 5) == 0


# --- the trained model ----------------------------------------------------------------------------------------------

CONDITIONAL = exact_system(condition=Labels(3, drop=0.1))


def test_what_is_drawn_of_a_trained_model(tmp_path):
    exhibits.draw(Model(CONDITIONAL, {}, (4, 4, 1)), tmp_path / "drawn" / "step_7")
    drawn = sorted(path.name for path in (tmp_path / "drawn/step_7").iterdir())
    assert drawn == [*(f"denoising_{step:04}_of_0010.png" for step in range(1, 11)), "guidance.png"]
    last = np.array(Image.open(tmp_path / "drawn/step_7/denoising_0010_of_0010.png"))
    noisy, expected = (last[top : top + 64, -500:] for top in (26, 92))  # below a title, of 64 pixels and 2 between
    np.testing.assert_array_equal(noisy, expected)  # at the end
    assert noisy.std() > 20


def test_many_steps_are_some_frames(tmp_path):
    exhibits.draw(Model(exact_system(steps=100), {}, (4, 4, 1)), tmp_path / "one")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == math.ceil(100 / 7) <= exhibits.FRAMES  # and no guidance, which it does not know
    assert names[-1] == "denoising_0100_of_0100.png"


def test_what_cannot_be_drawn_costs_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exhibits, "guided", lambda *_: 1 / 0)
    exhibits.draw(Model(CONDITIONAL, {}, (4, 4, 1)), tmp_path / "drawn")
    assert "could not be drawn: division by zero" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- in a browser ---------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=5000 --dump-dom"
FRAME = """<iframe src="probed.html" width="{}" height="900" style="border: 0"></iframe><pre id="probe"></pre>
<script>onmessage = (event) => document.getElementById("probe").textContent = event.data;</script>"""
PROBE = """<script type="module">
const images = [...document.images].map((image) => image.src);
for (const slider of document.querySelectorAll("input")) {
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
}
const chart = document.querySelector("svg") || document.createElement("svg");
const [name, command] = document.querySelectorAll(".pairs :is(th, td)");
setTimeout(() => {
  for (const _ of [1, 2]) chart.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", cancelable: true}));
  parent.postMessage(JSON.stringify({
    title: document.title, text: document.body.innerText,
    moved: [...document.images].map((image, i) => image.src !== images[i]),
    whole: [...document.images].every((image) => image.complete && image.naturalWidth > 0),
    told: [...document.querySelectorAll("output")].map((output) => output.value),
    read: document.querySelector(".read")?.textContent, lines: chart.querySelectorAll("path").length,
    fits: document.documentElement.scrollWidth <= innerWidth,
    below: name?.getBoundingClientRect().bottom <= command?.getBoundingClientRect().top,
    broken: [...document.querySelectorAll(".flag")].some((flag) => flag.getClientRects().length > 1),
  }), "*");
}, 1000);
</script>"""


def visited(file, tmp_path, width):
    """What a probe finds on the page in a frame of this width, and what the browser's console has to say."""
    (tmp_path / "probed.html").write_text(file.read_text().replace("</body>", f"{PROBE}</body>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width))
    command = [CHROMIUM, *QUIET.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000"]
    page = (tmp_path / "frame.html").as_uri()
    done = subprocess.run([*command, page], capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    return found, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_in_a_browser(tmp_path, width):
    found, console = visited(made(tmp_path / "run", name=ATTACK), tmp_path, width)
    assert console == []
    assert found["title"] == "run, a run of jaxdiff"
    assert found["moved"] == [True, True, False]  # two sliders and a picture alone
    assert found["whole"]
    assert found["told"] == ["step 10", "step 1 of 3"]
    assert found["lines"] == 3
    assert found["read"].startswith("step 380each row 0.1026")  # two rows to the left of the last
    assert found["fits"]
    assert found["below"] == (width < 640)  # a command and its name
    assert not found["broken"]
    assert "No step has been logged yet" not in found["text"]
    assert found["text"].count(ATTACK) == 3  # said, and not obeyed


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_before_the_first_step_in_a_browser(tmp_path):
    page.write(tmp_path)
    found, console = visited(tmp_path / page.NAME, tmp_path, 390)
    assert console == []
    assert "No step has been logged yet." in found["text"]
