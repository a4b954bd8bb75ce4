"""Several processes: the same losses as one, and checkpoints that one can go on from; and what a process knows."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from toy import config

from jaxdiff.base import environment
from jaxdiff.models.experiment import Experiment
from jaxdiff.nets import MLP
from jaxdiff.training import placing
from jaxdiff.training.metrics import read_metrics

ROOT = Path(__file__).parent.parent


def toy(placing, steps):
    return replace(config, training=replace(config.training, placing=placing, steps=steps))


def losses(folder):
    return [row["loss"] for row in read_metrics(folder / "metrics.csv")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process on one device."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    Experiment(toy("jit", 20), folder).train()
    return folder


def by(count, script, *arguments, cache, meanwhile=lambda processes: None):
    """The exit codes of so many processes with one device each, and what they said, (stdout, stderr)."""
    several = ["--distributed"] * (count > 1)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, script, *several, *map(str, arguments)],
            cwd=ROOT,
            env={
                **os.environ,
                "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
                **{"JAX_COORDINATOR_ADDRESS": address, "JAXDIFF_CACHE": str(cache)},
                **{"JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(number)},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        meanwhile(processes)
        said = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [(re.sub(r"\[Gloo\].*\n", "", out), err) for out, err in said]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The same run by two processes; and what they said."""
    folder = tmp_path_factory.mktemp("together") / "run"
    arguments = ("--config", "tests/toy.py", "--workdir", folder, "training.steps=20")
    codes, said = by(2, "train.py", *arguments, cache=folder.parent)
    assert codes == [0, 0], said
    return folder, [err for _, err in said]


def test_two_processes_have_the_losses_of_one(alone, together):
    folder, (first, second) = together
    assert len(losses(folder)) == 2
    np.testing.assert_allclose(losses(folder), losses(alone), rtol=1e-5)
    assert "2 cpu devices, sharded" in first
    assert "images/s" in first
    assert "images/s" not in second


def test_what_two_processes_saved_one_goes_on_with(alone, together):
    folder, _ = together
    for where, of in (("pmap", folder), ("jit", alone)):  # also on eight devices, and on the one
        Experiment(toy(where, 30), of).train()
    assert len(losses(folder)) == 3
    np.testing.assert_allclose(losses(folder), losses(alone), rtol=1e-5)


def test_two_processes_start_from_a_run_and_stop_at_a_signal_to_one(alone, tmp_path):
    folder = tmp_path / "run"

    def end_one(processes):
        end = time.monotonic() + 150
        while not any((folder / "checkpoints").glob("[0-9]*0")) and time.monotonic() < end:
            time.sleep(0.1)
        processes[1].terminate()

    endless = ("training.steps=1000000", "training.save_every=10", "training.show_every=1000000")
    arguments = ("--config", "tests/toy.py", "--workdir", folder, f"start={alone}", *endless)
    codes, said = by(2, "train.py", *arguments, cache=tmp_path, meanwhile=end_one)
    assert codes == [143, 143], said
    assert "stopped by SIGTERM, and saved" in said[0][1]


def test_two_processes_draw_the_images_of_one(alone, tmp_path):
    places = {}
    for count in (1, 2):
        png, npz, singles = places[count] = [tmp_path / f"{count}{end}" for end in (".png", ".npz", "")]
        flags = ("--num", 21, "--batch_size", 4, "--out", png, "--npz", npz, "--singles", singles)
        codes, said = by(count, "sample.py", "--workdir", alone, *flags, cache=tmp_path)
        assert codes == count * [0], said
    assert [out.split() for out, _ in said] == [list(map(str, places[2])), []]
    for one, two in zip(places[1][:2], places[2][:2], strict=True):
        assert one.read_bytes() == two.read_bytes()
    one, two = ({path.name: path.read_bytes() for path in places[count][2].iterdir()} for count in (1, 2))
    assert len(one) == 23
    assert one == two


def test_two_processes_evaluate_as_one(alone, tmp_path):
    (tmp_path / "mine.py").write_text("def means(images):\n    return images.mean((2, 3))\n")
    features, seen = f"{tmp_path / 'mine.py'}:means", {}
    for count in (1, 2):
        folder = shutil.copytree(alone, tmp_path / f"run{count}")
        drawn = ("--num", 40, "--batch_size", 8, "--steps", "1,2")
        against = ("--features", features, "--reference", "train")
        codes, said = by(count, "evaluate.py", "--workdir", folder, *drawn, *against, cache=tmp_path)
        assert codes == count * [0], said
        seen[count] = [each["numbers"] for each in json.loads((folder / "evaluation.json").read_text())["results"]]
    assert len(seen[1]) == 2
    assert seen[1] == seen[2]
    assert "steps=2" in said[0][0]
    assert said[1][0] == ""


def test_a_process_knows_its_number(monkeypatch):
    monkeypatch.setattr(environment, "keep_memory", lambda: None)
    monkeypatch.setattr(environment, "_quieten", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    said = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **numbers: said.append(numbers))
    environment.prepare()
    environment.prepare(distributed=True)  # Slurm and the like know
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    environment.prepare(distributed=True)
    assert said == [{"num_processes": None, "process_id": None}, {"num_processes": 4, "process_id": 3}]
    monkeypatch.setenv("JAX_PROCESS_ID", "one")
    with pytest.raises(ValueError, match="JAX_PROCESS_ID must be a whole number, got 'one'"):
        environment.prepare(distributed=True)


def test_compiled_programs_that_cannot_be_kept_are_a_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    environment._keep_programs()
    assert re.fullmatch(r"warning: compiled programs are not kept, .*: set JAXDIFF_CACHE .*\n", capsys.readouterr().err)


def test_small_leaves_and_odd_ones_stay_whole():
    large, odd, small = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((3, 256, 128), (257, 129), (64, 64)))
    shardings = placing.Trainer("sharded").shardings([large, odd, small])
    assert [tuple(sharding.spec) for sharding in shardings] == [(None, "data"), (), ()]
    assert all(s.is_fully_replicated for s in placing.Trainer("pmap").shardings([large, odd, small]))


def collectives(how):
    """What devices send each other in a step, in bytes by its kind; and those of all large parameters."""
    system = replace(config.system, network=MLP(widths=(256, 256), classes=10))
    training = replace(config.training, placing=how)
    run = Experiment(replace(config, system=system, training=training), Path("none"))
    found: dict[str, list[int]] = {"all-gather": [], "all-reduce": [], "reduce-scatter": []}
    for result, kind in re.findall(rf" = (.*?) ({'|'.join(found)})(?:-start)?\(", run.compiled().as_text()):
        shapes = re.findall(r"[fu]32\[([\d,]*)\]", result)
        found[kind].append(sum(4 * math.prod(map(int, filter(None, shape.split(",")))) for shape in shapes))
    return found, [4 * leaf.size for leaf in jax.tree.leaves(run.state_shapes.params) if leaf.size >= 2**14]


def test_what_is_divided_is_never_added_up_whole():
    """Gradients come divided, as the parameters are; only what is small is whole on each device."""
    sent, large = collectives("sharded")
    assert sorted(sent["reduce-scatter"]) == sorted(size // 8 for size in large)
    assert set(large) <= set(sent["all-gather"])
    assert sum(sent["all-reduce"]) < min(large)
    assert sum(collectives("pmap")[0]["all-reduce"]) > sum(large)
