"""Data that lie on the device: the same batches, the same losses, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from toy import config

from jaxdiff.models import experiment as experiments
from jaxdiff.models.experiment import Experiment
from jaxdiff.nets.machine import Kind, compiled_for
from jaxdiff.training.metrics import read_metrics


def trained(folder, placing, steps_per_call=1, **fields):
    training = replace(config.training, placing=placing, steps=20, steps_per_call=steps_per_call, save_every=10)
    run = Experiment(replace(config, training=training, **fields), folder)
    assert run.train() is None
    return [row["loss"] for row in read_metrics(folder / "metrics.csv")], run


@pytest.mark.parametrize(("placing", "steps_per_call"), [("jit", 1), ("jit", 5), ("pmap", 1), ("sharded", 5)])
def test_a_batch_is_the_same_wherever_the_data_lie(placing, steps_per_call, tmp_path):
    sent, _ = trained(tmp_path / "sent", placing, steps_per_call)
    taken, run = trained(tmp_path / "taken", placing, steps_per_call, data_on_device=True)
    assert run.resident
    assert set(next(run.batches().ahead(0, 1))) == {"row", "index"}  # all that is sent
    np.testing.assert_array_equal(sent, taken)


def test_a_run_may_go_on_with_its_data_elsewhere(tmp_path):
    def losses(name, steps, there):
        training = replace(config.training, placing="jit", steps=steps, schedule_steps=40, save_every=10)
        Experiment(replace(config, training=training, data_on_device=there), tmp_path / name).train()
        return [row["loss"] for row in read_metrics(tmp_path / name / "metrics.csv")]

    losses("moved", 20, True)
    assert losses("moved", 40, False) == losses("whole", 40, False)


@pytest.mark.parametrize(("platform", "lie_there"), [("gpu", True), ("tpu", True), ("cpu", False), ("any", False)])
def test_a_gpu_or_tpu_keeps_what_is_small(platform, lie_there, tmp_path, monkeypatch):
    with compiled_for(Kind(platform)):
        assert Experiment(config, tmp_path).resident == lie_there
        assert not Experiment(replace(config, data_on_device=False), tmp_path).resident
        monkeypatch.setattr(experiments, "RESIDENT", 1797 * 65 - 1)  # bytes of the digits and their labels
        assert not Experiment(config, tmp_path).resident
        assert Experiment(replace(config, data_on_device=True), tmp_path).resident


def test_a_dry_run_counts_them(tmp_path):
    """All the data, an eighth of a megabyte, in place of a batch."""
    training = replace(config.training, placing="jit")
    sizes = [
        Experiment(replace(config, training=training, data_on_device=there), tmp_path)
        .compiled()
        .memory_analysis()
        .argument_size_in_bytes
        for there in (True, False)
    ]
    assert sizes[0] - sizes[1] == pytest.approx(1797 * (64 + 4), abs=16 * 68 + 64)
