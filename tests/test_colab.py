"""With what Colab's TPU image holds (make test-colab): none of it was replaced, and a run changes from JAX to JAX."""

import csv
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
IMAGE = dict(
    line.split("==") for line in (ROOT / "tests" / "colab.txt").read_text().splitlines() if not line.startswith("#")
)
OTHER = ROOT / ".venv" / "bin" / "python"  # of make test, with a JAX as new as it gets

pytestmark = pytest.mark.skipif(jax.__version__ != IMAGE["jax"], reason="for make test-colab")


def test_nothing_of_the_image_was_replaced():
    assert {name: version(name) for name in IMAGE} == IMAGE


@pytest.mark.skipif(not OTHER.exists(), reason="make test has not been run")
def test_a_run_goes_on_with_another_jax_and_back(tmp_path):
    def train(python, folder, steps):
        command = [python, "train.py", "--config", "tests/toy.py", "--workdir", folder, f"training.steps={steps}"]
        fields = ["training.placing=jit", "training.schedule_steps=80"]
        subprocess.run([*map(str, command), *fields], cwd=ROOT, check=True)
        return {
            int(row["step"]): float(row["loss"])
            for row in csv.DictReader((folder / "metrics.csv").read_text().splitlines())
        }

    alone = train(sys.executable, tmp_path / "alone", 80)
    for python, steps in ((sys.executable, 20), (OTHER, 50), (sys.executable, 80)):
        shared = train(python, tmp_path / "shared", steps)
    assert list(shared) == list(alone)
    assert shared == pytest.approx(alone, rel=1e-4)
