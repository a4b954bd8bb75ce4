"""Is a run that is killed again and again the run that was never killed? And what does saving cost?

    python benchmarks/resume.py
    python benchmarks/resume.py --memory

A small UNet is trained on the digits, saving every 50 steps, and killed by SIGKILL twenty times: at a random moment
of its training, every other time while a checkpoint is being written. Each time the same command goes on. At the end,
all that was trained and written is compared bit for bit with a run that was left alone. Then the digits' own config
is timed: a checkpoint, waited for until it is on the disk, against those steps.
With --memory, what a run of 20,000 steps and 50 checkpoints holds after each tenth of them (Linux).
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.base import code
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.run import opened
from jaxdiff.training.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent
STEPS = 3000
RUN = (
    *("--config", "configs/digits.py", f"training.steps={STEPS}", "training.save_every=50", "training.log_every=25"),
    *("training.show_every=500", "training.placing=jit", "batch_size=32", "system.steps=10"),
    *("system.network.channels=8", "system.network.groups=4", "system.network.dropout=0.1"),
)


def begin(folder: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "train.py", *RUN, *more, "--workdir", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(folder: Path) -> None:
    process = begin(folder)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(said)


def is_saving(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("*-tmp"))


def saved(folder: Path) -> int:
    """The step of the newest whole checkpoint."""
    return max((int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()), default=0)


def kill(folder: Path, wait: float, saving: bool) -> tuple[bool, int]:
    """Kills the run so many seconds after a checkpoint: whether it was saving, and from what step it will go on."""
    before, process = saved(folder), begin(folder)
    while process.poll() is None and saved(folder) == before:
        time.sleep(0.01)
    time.sleep(wait)
    while saving and process.poll() is None and not is_saving(folder):
        time.sleep(0.0002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError("the run was over before it was killed: raise STEPS")
    return is_saving(folder), saved(folder)


def left(folder: Path) -> dict[str, Any]:
    """By name: all that a run leaves."""
    experiment = opened(folder)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: leaf.update(sharding=device), experiment.state_shapes)
    state = Checkpoints(folder / "checkpoints").restore(like)
    rows = [line.rpartition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]
    pictures = {path.name: path.read_bytes() for path in sorted((folder / "samples").iterdir())}
    return {
        "step": state.step,
        "parameters": state.params,
        "averages": state.ema,
        "optimiser": state.opt_state,
        "key": jax.random.key_data(state.key),
        "metrics.csv, but for images a second": rows,
        "pictures": pictures,
    }


def equal(one: Any, other: Any) -> bool:
    leaves = [jax.tree.leaves(each) for each in (one, other)]
    return len(leaves[0]) == len(leaves[1]) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*leaves, strict=True)
    )


def cost_of_saving(scratch: Path, repeats: int = 5) -> tuple[float, float, float]:
    """Seconds: of 500 steps of the digits' config, of a checkpoint until training goes on, and until it is written."""
    experiment = Experiment(code.load(ROOT / "configs" / "digits.py"), scratch)
    checkpoints, batches, trainer = Checkpoints(scratch, keep=3), experiment.batches(), experiment.trainer
    state, step = experiment._begin(checkpoints), experiment.step()
    steps, blocked, written = [], [], []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for number in range(20):
            batch = jax.tree.map(lambda leaf: leaf[None], batches[number])
            state = step(state, experiment._constants, trainer.put(batch))
        jax.block_until_ready(state.params)
        steps.append((time.perf_counter() - start) * 500 / 20)
        start = time.perf_counter()
        checkpoints.save(repeat, state)
        blocked.append(time.perf_counter() - start)
        checkpoints.wait()
        written.append(time.perf_counter() - start)
    checkpoints.close()
    first, second, third = (float(np.median(seconds[1:])) for seconds in (steps, blocked, written))
    return first, second, third


def memory(folder: Path) -> None:
    """Prints what a long run holds."""
    long = ("training.steps=20000", "training.save_every=400", "training.log_every=50", "batch_size=8")
    process = begin(folder, *long, "training.show_every=20000", "system.shown=4")
    threading.Thread(target=process.communicate).start()  # what it says
    print("| step | MB |\n| --- | --- |")
    for step in range(2000, 20_000, 2000):
        while process.poll() is None and saved(folder) < step:
            time.sleep(0.05)
        held = dict(line.split(":") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        print(f"| {step} | {int(held['RssAnon'].split()[0]) / 1000:.1f} |", flush=True)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    scratch = Path(tempfile.mkdtemp())
    try:
        if options.memory:
            memory(scratch / "long")
            return
        print("| kill | seconds after a checkpoint | while saving | goes on from step |\n|" + " --- |" * 4)
        for number in range(1, options.kills + 1):
            wait = chance.uniform(0.0, 1.5)
            saving, step = kill(scratch / "killed", wait, saving=number % 2 == 0)
            print(f"| {number} | {wait:.2f} | {'yes' if saving else 'no'} | {step} |", flush=True)
        for name in ("killed", "left alone"):
            finish(scratch / name)
        print(f"\n| after {STEPS} steps | bit for bit equal to the run left alone |\n|" + " --- |" * 2)
        ours, theirs = left(scratch / "killed"), left(scratch / "left alone")
        for name in ours:
            print(f"| {name} | {'yes' if equal(ours[name], theirs[name]) else 'NO'} |")
        steps, blocked, written = cost_of_saving(scratch / "cost")
        print("\n| 500 steps | a checkpoint, until training goes on | until it is written | added at most |")
        print("|" + " --- |" * 4)
        print(f"| {steps:.2f} s | {blocked:.3f} s | {written:.3f} s | {written / steps:.2%} |")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
