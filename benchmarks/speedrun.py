"""The ledger: the best images that a few minutes buy. Trains by the clock, judges, adds a row to SPEEDRUN.md.

    python benchmarks/speedrun.py mnist                # 3 seeds of 10 minutes each; first the judge, if it is not there
    python benchmarks/speedrun.py mnist --note "Muon" training.optimiser=Muon training.optimiser.rate=4e-3
    python benchmarks/speedrun.py mnist --config configs/mine.py --minutes 4 --seeds 0 --num 1000

The clock counts from the first compilation, with no program in the cache, to the last step; data are cached before.
The autoencoder of a latent config is trained first, by its own config, and all the time it took is taken off.
"""

import argparse
import csv
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # jaxdiff may be a clone that nobody installed
LEDGER, RUNS = ROOT / "SPEEDRUN.md", ROOT / "runs" / "speedrun"


@dataclass(frozen=True)
class Track:
    """What is trained, for how long, and whose features and labels judge it."""

    config: str
    minutes: float
    judge: str
    labels: str = "0-9"  # what sample.py is asked for, all alike often


TRACKS = {
    "mnist": Track("mnist_speedrun", 10, "mnist_classifier"),
    "fashion_mnist": Track("fashion_mnist_speedrun", 10, "fashion_mnist_classifier"),
    "cifar10": Track("cifar10_speedrun", 100, "cifar10_classifier"),
    "cifar10_h100": Track("cifar10_speedrun_h100", 10, "cifar10_classifier"),
}
Seen = dict[str, Any]  # of one seed's run


def run(*command: str, **environment: str) -> tuple[float, int]:
    """Seconds, and the most bytes it held."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env={**os.environ, **environment})
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} did not end well")
    return time.perf_counter() - begin, 1024 * used.ru_maxrss


def judge_of(track: Track) -> Path:
    folder = ROOT / "runs" / track.judge
    run("train.py", "--config", track.judge, "--workdir", str(folder))  # says so, if it is trained already
    return folder


def one(track: Track, options: argparse.Namespace, judge: Path, seed: int) -> Seen:
    """Trains and judges a model."""
    folder = RUNS / f"{options.track}_{time.strftime('%Y%m%d_%H%M%S')}_{seed}"
    config, minutes, fields = options.config or track.config, options.minutes or track.minutes, list(options.changes)
    with tempfile.TemporaryDirectory() as programs:  # else the second would not compile
        train = partial(run, "train.py", f"seed={seed}", JAX_COMPILATION_CACHE_DIR=programs)
        runs, most = [folder], 0
        if autoencoder := autoencoder_of(config, minutes):
            runs.append(Path(f"{folder}_autoencoder"))
            seconds, most = train("--config", autoencoder, "--workdir", str(runs[-1]))
            minutes -= seconds / 60
            fields.append(f"system.codec={runs[-1]}")
        _, held = train("--config", config, "--workdir", str(folder), f"training.minutes={minutes:g}", *fields)
    how = ["--workdir", str(folder), "--features", str(judge), "--labels", track.labels, *options.sample.split()]
    for count in options.num:
        run("evaluate.py", *how, "--num", str(count))
    whole = {"parameters": sum(map(parameters, runs)), "memory": max(held, most)}
    return {**trained(folder), **whole, "of": {count: judged(folder, count) for count in options.num}}


def autoencoder_of(config: str, minutes: float) -> str | None:
    """The config of it, if there is one: its run has its name. It must leave some of the minutes."""
    from jaxdiff.base import code

    codec = code.load(ROOT / config if config.endswith(".py") else config).codec
    if codec is None:
        return None
    name = Path(codec).name
    takes = code.load(name).training.minutes
    if takes is None or takes >= minutes:
        raise SystemExit(f"{name} must have training.minutes, fewer than {minutes:g}: the ledger trains it first")
    return name


def trained(folder: Path) -> Seen:
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    steps = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())
    rate = median(float(row["images_per_second"]) for row in rows)
    return {"steps": steps, "rate": rate}


def parameters(folder: Path) -> int:
    """Of the network, as the run says of itself."""
    said = json.loads((folder / "about.json").read_text())["model"]
    (count,) = re.findall(r"of ([\d,]+) parameters", said)
    return int(count.replace(",", ""))


def judged(folder: Path, count: int) -> Seen:
    """The distance, that of as many real images, and the share of right labels."""
    results = json.loads((folder / "evaluation.json").read_text())["results"]
    of = [result for result in reversed(results) if result["of"]["samples"]["count"] == count]
    drawn, real = (
        next(each["numbers"] for each in of if ("real images" in each["of"]["samples"]) == is_real)
        for is_real in (False, True)
    )
    return {
        "frechet": drawn["frechet"]["value"],
        "floor": real["frechet"]["value"],
        "labels": drawn["accuracy"]["value"],
    }


COLUMNS = (
    *("date", "record", "minutes", "Fréchet", "floor", "labels right"),
    *("parameters", "steps", "images/s", "memory", "of"),
)


def row(track: Track, options: argparse.Namespace, seen: list[Seen]) -> str:
    """A line of the ledger: the median over the seeds, and their range."""

    def over(values: list[float], digits: str) -> str:
        middle, ends = format(median(values), digits), f"{min(values):{digits}} to {max(values):{digits}}"
        return middle if len(values) == 1 else f"{middle} ({ends})"

    def of(name: str, digits: str) -> str:
        return "; ".join(f"{over([each['of'][n][name] for each in seen], digits)} at {n:,}" for n in options.num)

    config = Path(options.config or track.config).stem
    changes = " ".join(f"`{change}`" for change in options.changes)
    fields = (
        time.strftime("%Y-%m-%d"),
        " ".join(filter(None, [f"`{config}`", changes, options.note])),
        f"{options.minutes or track.minutes:g}",
        of("frechet", ".3f"),
        of("floor", ".3f"),
        of("labels", ".1%"),
        f"{seen[0]['parameters']:,}",
        over([each["steps"] for each in seen], ",.0f"),
        over([each["rate"] for each in seen], ".0f"),
        f"{max(each['memory'] for each in seen) / 1e9:.1f} GB",
        f"{commit()}, {len(seen)} seed{'s' * (len(seen) > 1)}, {platform.machine()}",
    )
    return "| " + " | ".join(fields) + " |"


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def entered(text: str, track: str, line: str) -> str:
    """The ledger with one line more, below the last of its track's table."""
    heading = f"\n## {track}\n"
    if heading not in text:
        text += f"{heading}\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"
    before, _, after = text.partition(heading)
    table = re.match(r"\n*(\|.*\n)+", after)
    end = table.end() if table else 0
    return f"{before}{heading}{after[:end]}{line}\n{after[end:]}"


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("track", choices=sorted(TRACKS))
    parser.add_argument("changes", nargs="*", metavar="FIELD=VALUE", help="of the config, as train.py takes them")
    parser.add_argument("--config", help="another than that of the track")
    parser.add_argument("--minutes", type=float, help="another time than that of the track")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num", type=int, nargs="+", default=[1000, 10_000], help="samples")
    parser.add_argument("--sample", default="", help="options of sample.py, such as '--steps 10'")
    parser.add_argument("--note", default="", help="what is new, for the ledger")
    options = parser.parse_intermixed_args(given)
    track = TRACKS[options.track]
    judge = judge_of(track)
    seen = [one(track, options, judge, seed) for seed in options.seeds]
    line = row(track, options, seen)
    LEDGER.write_text(entered(LEDGER.read_text() if LEDGER.exists() else "# The ledger\n", options.track, line))
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
