"""report.html: what the folder of a run tells, on one page that needs no other file.

The page is a function of the folder, so that whoever adds to the one writes the other anew. What it shows is JSON
within page.html, whose script makes plain text of it: a class or a path called <script> is only a strange name.
"""

import functools
import json
import math
import re
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxdiff.base import files
from jaxdiff.base.console import warn
from jaxdiff.base.text import first_line
from jaxdiff.base.words import duration, speed
from jaxdiff.training.metrics import read_metrics, seconds, smoothed
from jaxdiff.training.state import HELD_OUT

NAME = "report.html"
# What bounds the page, to 2 MB: pictures and their bytes, lines and their points, results, the config's characters.
FRAMES, CHARTS, POINTS, RESULTS, CHARACTERS = 16, 8, 400, 40, 50_000
LARGE, SMALL = 45_000, 20_000
SIDE = 2048  # pixels of a picture that is made coarser, at most
_KINDS = {"samples": "How far from real images", "likelihood of": "Likelihood", "nearest": "Copies of training images"}
_WORDS = {"frechet": "Fréchet", "kernel": "kernel x1000", "accuracy": "labels right"}
_SHOWN = {  # what the pictures of a run are, by the kind of its system
    "Autoencoding": ("Held-out images", "Beside each its reconstruction."),
    "Classification": ("Noisy held-out images", "How many are classified rightly at each noise level."),
}

Table = dict[str, Any]


def write(folder: Path) -> None:
    """The page of what is there now."""
    try:
        shown = json.dumps(_shown(folder), allow_nan=False).replace("<", r"\u003c")  # what could end the script
        page = Path(__file__).with_name("page.html").read_text(encoding="utf-8").replace('{"run": "here"}', shown)
        files.write(folder / NAME, page)
    except Exception as error:  # of whatever kind: a page is not worth a run
        warn(f"{folder / NAME} could not be written: {first_line(error)}")


def _shown(folder: Path) -> dict[str, Any]:
    rows, about, config = (_read(folder / name) for name in ("metrics.csv", "about.json", "config.json"))
    tree = config.get("config", {})
    commands = about.pop("commands", {})
    return {
        "name": folder.resolve().name,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "facts": _facts(rows, tree),
        "charts": _charts(rows),
        "films": [film for film in _films(folder, tree) if film["frames"]],
        "tables": list(_tables(_read(folder / "evaluation.json").get("results", [])[-RESULTS:])),
        "commands": commands,
        "about": about,
        "config": "\n".join(_lines(tree))[:CHARACTERS],
    }


def _read(path: Path) -> Any:
    """What is there, or nothing."""
    if path.suffix == ".csv":
        return read_metrics(path)
    return files.read_json(path) if path.exists() else {}


# --- numbers --------------------------------------------------------------------------------------------------------


def _facts(rows: list[dict[str, float]], config: dict[str, Any]) -> dict[str, str]:
    """Where the run is, in the words of its newest row."""
    if not rows:
        return {}
    last, held_out = rows[-1], [row[HELD_OUT] for row in rows if HELD_OUT in row]
    training = config.get("training", {})
    goal = f"/ {training['steps']:,}" if training.get("steps") and not training.get("minutes") else ""
    spent = seconds(rows, config.get("batch_size", 0))
    facts = {
        "step": f"{int(last['step']):,} {goal}",
        "epochs": f"{last['epoch']:.2f}",
        "loss": f"{last['loss']:.4g}",
        "held-out loss": f"{held_out[-1]:.4g}" if held_out else "",
        "speed": speed(last["images_per_second"]),
        "time in steps": duration(spent) if math.isfinite(spent) else "",
        "steps skipped": f"{int(sum(row['skipped'] for row in rows)) or ''}",
    }
    return {name: text for name, text in facts.items() if text}


def _charts(rows: list[dict[str, float]]) -> list[dict[str, Any]]:
    """The loss with its mean over a twentieth of the run, and the other columns, each by itself."""
    steps = [row["step"] for row in rows]
    mean = smoothed(np.array([row["loss"] for row in rows]), max(len(rows) // 20, 1))
    lines = {"each row": _line(rows, "loss"), "mean": _points(list(zip(steps, mean, strict=True)))}
    charts: list[dict[str, Any]] = [{"title": "loss", "lines": lines | {"held out": _line(rows, HELD_OUT)}}]
    known = ("step", "epoch", "loss", "skipped", HELD_OUT)
    others: dict[str, dict[str, Any]] = {}  # held_out_loss_1, held_out_loss_2, ... are lines of one chart
    for name in dict.fromkeys(name for row in rows for name in row if name not in known):
        title, _, number = name.rpartition("_") if name[-1].isdecimal() else (name, "", "")
        title = title.replace("_", " ") + ", from little noise, 1, to much, 8" * (title == HELD_OUT)
        others.setdefault(title, {})[number] = _line(rows, name)
    charts += [{"title": title, "lines": lines} for title, lines in list(others.items())[:CHARTS]]
    for chart in charts:
        chart["lines"] = {name: points for name, points in chart["lines"].items() if points}
    return [chart for chart in charts if any(len(points) > 1 for points in chart["lines"].values())]


def _line(rows: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    return _points([(row["step"], row[name]) for row in rows if name in row])


def _points(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    finite = [(step, value) for step, value in pairs if math.isfinite(value)]
    return [(step, float(f"{value:.5g}")) for step, value in _spread(finite, POINTS)]


def _spread(many: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly, with the first and the last."""
    return [many[round(i)] for i in np.linspace(0, len(many) - 1, min(most, len(many)))]


def _tables(results: list[dict[str, Any]]) -> Iterator[Table]:
    """evaluation.json, a table for each question that evaluate.py answers."""
    for kind in dict.fromkeys(next(iter(result["of"]), "") for result in results):
        found = [result for result in results if next(iter(result["of"]), "") == kind]
        each = [{name: _number(value) for name, value in result["numbers"].items()} for result in found]
        columns = dict.fromkeys(name for row in each for name, text in row.items() if text)
        yield {
            "title": _KINDS.get(kind, kind),
            "head": [_WORDS.get(name, name.replace("_", " ")) for name in columns],
            "rows": [
                [_told(result["of"]), *(row.get(name, "") for name in columns)]
                for result, row in zip(found, each, strict=True)
            ],
        }


def _told(of: dict[str, Any]) -> str:
    """Of what numbers are, in a line."""
    subject = next((of[name] for name in ("samples", "nearest") if isinstance(of.get(name), dict)), of)
    what = subject.get("how") or subject.get("file") or f"real images ({str(subject.get('real images')).split()[0]})"
    count, by = subject.get("count"), of.get("features", {}).get("name")
    return str(what) + (f", {count:,} images" if count else "") + (f", by {Path(by).name}" if by else "")


def _number(value: Any) -> str:
    """With as many digits as its error has meaning; what is no number is left out."""
    if not isinstance(value, dict):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else ""
    number, error = value.get("value"), value.get("error")
    if not isinstance(number, int | float) or not error:
        return "" if number is None else f"{number:.4g}"
    decimals = max(1 - math.floor(math.log10(error)), 0)
    return f"{number:.{decimals}f} ± {error:.{decimals}f}"


def _lines(tree: Any, name: str = "", indent: int = -1) -> Iterator[str]:
    """A config as JSON has it, in indented lines."""
    parts = tree if isinstance(tree, dict) else dict(enumerate(tree)) if isinstance(tree, list) else {}
    nested = any(isinstance(part, dict | list) for part in parts.values())
    kind = str(parts.get("is", "")).rpartition(":")[2]
    if isinstance(tree, list) and not nested:
        kind = ", ".join(map(str, tree))
        parts = {}
    if indent >= 0:
        yield f"{'  ' * indent}{name}: {tree if not isinstance(tree, dict | list) else kind}"
    for part in parts:
        if part not in ("is", "from"):
            yield from _lines(parts[part], str(part), indent + 1)


# --- pictures -------------------------------------------------------------------------------------------------------


def _films(folder: Path, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Pictures that follow one another, or one alone."""
    kind = str(config.get("system", {}).get("is", "")).rpartition(":")[2].rpartition(".")[2]
    samples = ("Samples", "Drawn from the averaged parameters, always with the same seeds.")
    yield _film(*_SHOWN.get(kind, samples), folder, "samples/step_*.png")
    drawn = max((folder / "drawn").glob("step_*"), default=folder / "drawn", key=_numbers)
    text = "The noisy image x_t, and below it the clean image that is expected of it."
    yield _film(f"How images form, at {_caption(drawn)}", text, drawn, "denoising_*.png", SMALL)
    text = "The same noise in each column: without the condition at 0, the model as it is at 1, sharper above."
    yield _film(f"Guidance scales, at {_caption(drawn)}", text, drawn, "guidance.png")
    yield _film("Most like training images", "Of all samples, those nearest to one.", folder, "nearest.png")
    for path in sorted(folder.glob("evaluation_*.png"))[:3]:
        yield _film(f"Evaluated by {path.stem[11:].replace('_', ' ')}", "", folder, path.name)


def _film(title: str, text: str, folder: Path, names: str, most: int = LARGE) -> dict[str, Any]:
    frames = [
        {"caption": _caption(path), "source": _encoded(path, path.stat().st_mtime_ns, most)}
        for path in _spread(sorted(folder.glob(names), key=_numbers), FRAMES)
    ]
    return {"title": title, "text": text, "frames": frames}


def _caption(path: Path) -> str:
    """step 3,500 of step_003500.png; step 5 of 20 of denoising_0005_of_0020.png."""
    numbers = _numbers(path)
    return f"step {' of '.join(f'{number:,}' for number in numbers)}" if numbers else ""


def _numbers(path: Path) -> list[int]:
    """Those in its name, by which step 1,000,000 comes after step 999,999."""
    return list(map(int, re.findall(r"\d+", path.stem)))


@functools.lru_cache(256)  # so that a page costs no more than its new pictures
def _encoded(path: Path, changed: int, most: int) -> str:
    """A picture as an address, in at most so many bytes: as it is, else coarser and at last smaller."""
    del changed  # it is another picture then
    stored = path.read_bytes()
    kind = "png"
    with Image.open(BytesIO(stored)) as image:
        picture, quality = image.convert("RGB"), 85
    if len(stored) > most:
        picture.thumbnail((SIDE, SIDE))
    while len(stored) > most:
        buffer = BytesIO()
        picture.save(buffer, "WEBP", quality=quality)
        stored, kind, quality = buffer.getvalue(), "webp", quality - 20
        if quality < 20:
            picture, quality = picture.resize((max(picture.width // 2, 1), max(picture.height // 2, 1))), 65
    return f"data:image/{kind};base64,{b64encode(stored).decode()}"
