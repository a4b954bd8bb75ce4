"""What accelerator.py does with the time that is left: train.py until the clock stops it, then sample.py."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TRAINS = 0.55  # of the time; then it saves, and draws
SAVING = 60.0  # seconds that a run may take to stop
WARMUP = 200  # steps, where the config has 20,000
SAMPLER = "DPMpp2M()"
TOY = (
    *("system.network.channels=8", "system.network.multipliers=(1,)", "system.network.blocks=1"),
    *("system.network.attention=(0,)", "system.network.groups=2", "data=Digits(size=8)", "held_out=None"),
)


def train_and_draw(toy: bool, batch: int, picture: Path, seconds: float) -> dict[str, Any]:
    """The config cifar10 in bfloat16, warmed up sooner than the config has it, and 80 images of it."""
    from jaxdiff.training.metrics import read_metrics

    end, data = time.monotonic() + seconds, "cifar10" if has_cifar10() and not toy else "digits"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "cifar10"
        _until(
            TRAINS * seconds, ["train.py", "--config", "cifar10", "--workdir", str(run), *fields_of(toy, batch, data)]
        )
        rows = read_metrics(run / "metrics.csv") if (run / "metrics.csv").exists() else []
        if not rows:
            raise RuntimeError(f"train.py did not come to its tenth step in {TRAINS * seconds:.0f} s")
        drawn = _drawn(run, toy, picture, end)
    losses = [row["loss"] for row in rows]
    words = f"{data}: loss {losses[0]:.3f} to {losses[-1]:.3f} in {rows[-1]['step']:.0f} steps of {batch}; {drawn}"
    known = {"data": data, "steps": int(rows[-1]["step"]), "batch": batch, "losses": losses}
    return {**known, "trained_images_per_second": max(row["images_per_second"] for row in rows), "summary": words}


def _drawn(run: Path, toy: bool, picture: Path, end: float) -> str:
    """The picture's name, or why there is none: what was trained is known all the same."""
    drawn = run.with_name("drawn.png")
    how = ["--sampler", SAMPLER, "--num", "80", "--steps", "3" if toy else "20", "--out", str(drawn)]
    try:
        _run(["sample.py", "--workdir", str(run), *how], max(end - time.monotonic(), 1.0))
    except (RuntimeError, TimeoutError) as error:
        return f"no picture: {error}"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(drawn.read_bytes())
    return picture.name


def fields_of(toy: bool, batch: int, data: str) -> list[str]:
    """What is changed of the config: the step is then that which was measured as DDPM++'s, and is compiled already."""
    fields = ["system.network.dtype=bfloat16", f"training.optimiser.schedule.warmup={WARMUP}", "training.log_every=10"]
    other = TOY if toy else () if data == "cifar10" else ("data=Digits(size=32)", "held_out=None")
    return [*fields, f"batch_size={batch}", *other]


def has_cifar10() -> bool:
    """Prepared on this machine: nothing is downloaded here."""
    place = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return any(place.glob("cifar10/*/dataset_info.json"))


def _command(arguments: list[str]) -> dict[str, Any]:
    """One of the two commands, where this process would find its packages."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return {"args": [sys.executable, *arguments], "cwd": ROOT, "env": found, "text": True, "stderr": subprocess.PIPE}


def _until(seconds: float, arguments: list[str]) -> None:
    """A command that is asked to stop after so many seconds, as Slurm would ask it."""
    with subprocess.Popen(**_command(arguments)) as process:
        try:
            said = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            said = _ended(process)
    if process.returncode not in (0, 143, -signal.SIGTERM):  # the last before it trains: who asks for rows finds none
        raise RuntimeError(f"train.py: {last_line(said)}")


def _ended(process: subprocess.Popen) -> str:
    try:
        return process.communicate(timeout=SAVING)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return "it did not stop when asked to"


def _run(arguments: list[str], seconds: float) -> None:
    try:
        child = subprocess.run(**_command(arguments), timeout=seconds, check=False, stdout=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"sample.py was not done after {seconds:.0f} s") from None
    if child.returncode:
        raise RuntimeError(f"sample.py: {last_line(child.stderr)}")


def last_line(said: str) -> str:
    return next(reversed(said.strip().splitlines()), "it said nothing")
