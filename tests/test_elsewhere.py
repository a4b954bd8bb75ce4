"""Where a run is watched by others' programs: TensorBoard, and Weights & Biases without a network. If they are here."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOY = ("--config", "tests/toy.py", "training.placing=jit", "training.save_every=10", "training.log_every=5")


def train(folder, *more, **environment):
    command = [sys.executable, "train.py", *TOY, "--workdir", str(folder), *more]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not here")
def test_tensorboard_shows_a_run_that_was_resumed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in (10, 20):
        train(tmp_path, f"training.steps={steps}", "training.show_every=10")
    shown = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in shown.Scalars("loss")] == [5, 10, 15, 20]
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert [event.value for event in shown.Scalars("loss")] == pytest.approx([float(r.split(",")[2]) for r in rows])
    assert [event.step for event in shown.Images("samples")] == [10, 20]


@pytest.mark.skipif(find_spec("wandb") is None, reason="Weights & Biases is not here")
def test_weights_and_biases_keeps_a_run_without_a_network(tmp_path):
    for steps in (10, 20):
        said = train(tmp_path, f"training.steps={steps}", "training.wandb=digits", WANDB_MODE="offline")
        assert "Traceback" not in said
    known = (tmp_path / "wandb_id").read_text()
    kept = list((tmp_path / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb"))
    assert len(kept) == 2, list((tmp_path / "wandb").iterdir())
    assert all(b"gradient_norm" in path.read_bytes() for path in kept)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 5
