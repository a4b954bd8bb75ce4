"""benchmarks/speedrun.py: what a row of the ledger says of the runs that were seen, and where it goes."""

import argparse
import json
import sys
from pathlib import Path

import pytest

from jaxdiff.models import Classification, Labels

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import speedrun

OPTIONS = argparse.Namespace(track="mnist", config=None, minutes=None, num=[1000], changes=["seed=1"], note="wider")


def seen(frechet, steps):
    return {
        **{"steps": steps, "rate": 100.0, "memory": 2e9, "parameters": 1234},
        "of": {1000: {"frechet": frechet, "floor": 0.5, "labels": 0.99}},
    }


def test_a_row_is_the_median_of_its_seeds_and_their_range():
    line = speedrun.row(speedrun.TRACKS["mnist"], OPTIONS, [seen(3.0, 900), seen(1.0, 1100), seen(2.0, 1000)])
    assert (
        "| `mnist_speedrun` `seed=1` wider | 10 | 2.000 (1.000 to 3.000) at 1,000 | 0.500 (0.500 to 0.500) at 1,000 |"
        in line
    )
    assert "| 1,234 | 1,000 (900 to 1,100) | 100 (100 to 100) | 2.0 GB |" in line
    assert "3 seeds" in line
    assert line.count(" | ") == len(speedrun.COLUMNS) - 1


def test_rows_stay_in_the_order_of_their_records_within_their_track():
    text = "# The ledger\n\nRules.\n"
    for track, line in (("mnist", "| a |"), ("cifar10", "| b |"), ("mnist", "| c |")):
        text = speedrun.entered(text, track, line)
    table = f"| {' | '.join(speedrun.COLUMNS)} |\n|{' --- |' * len(speedrun.COLUMNS)}\n"
    assert text == f"# The ledger\n\nRules.\n\n## mnist\n\n{table}| a |\n| c |\n\n## cifar10\n\n{table}| b |\n"
    said = text.replace("| c |\n", "| c |\n\nOf that.\n")
    assert speedrun.entered(said, "mnist", "| d |") == said.replace("| c |\n", "| c |\n| d |\n")


def test_numbers_are_those_of_so_many_samples(tmp_path):
    def result(count, frechet, **more):
        numbers = {"frechet": {"value": frechet}, "accuracy": {"value": 0.9}}
        return {"of": {"samples": {"count": count, **more}}, "numbers": numbers}

    real = result(1000, 0.1, **{"real images": "train"}), result(2000, 0.2, **{"real images": "train"})
    results = [result(1000, 1.0), *real, result(2000, 2.0), result(1000, 3.0)]
    (tmp_path / "evaluation.json").write_text(json.dumps({"form": 1, "results": results}))
    assert speedrun.judged(tmp_path, 1000) == {"frechet": 3.0, "floor": 0.1, "labels": 0.9}
    assert speedrun.judged(tmp_path, 2000)["frechet"] == 2.0


@pytest.mark.parametrize(("config", "minutes"), [(None, 10), ("mnist_latent_speedrun", 7)])
def test_an_autoencoder_is_trained_by_the_same_clock(config, minutes, tmp_path, monkeypatch):
    """A stand-in takes the commands: three minutes each."""
    asked = []
    monkeypatch.setattr(speedrun, "run", lambda *command, **_: (asked.append(command), (180.0, 10 - len(asked)))[1])
    monkeypatch.setattr(speedrun, "trained", lambda _: {})
    monkeypatch.setattr(speedrun, "parameters", lambda _: 50)
    options = argparse.Namespace(**{**vars(OPTIONS), "config": config, "num": []}, sample="")
    seen = speedrun.one(speedrun.TRACKS["mnist"], options, tmp_path / "judge", seed=5)
    assert (seen["memory"], seen["parameters"]) == (9, 50 * len(asked))  # the most that either held; of both
    *before, last = asked
    assert {"seed=5", f"training.minutes={minutes}", "seed=1"} <= set(last)
    assert [command[command.index("--config") + 1] for command in before] == ["mnist_autoencoder_speedrun"] * (
        config is not None
    )
    for command in before:
        assert "seed=5" in command
        assert f"system.codec={command[command.index('--workdir') + 1]}" in last


@pytest.mark.parametrize(("config", "minutes"), [("mnist_latent", 10), ("mnist_latent_speedrun", 2)])
def test_an_autoencoder_must_leave_time(config, minutes):
    with pytest.raises(SystemExit, match=f"training.minutes, fewer than {minutes}"):
        speedrun.autoencoder_of(config, minutes)


@pytest.mark.parametrize("track", speedrun.TRACKS.values(), ids=str)
def test_configs_of_tracks_are_there(track):
    import importlib

    drawn, judge = (importlib.import_module(f"configs.{name}").config for name in (track.config, track.judge))
    assert isinstance(drawn.system.condition, Labels)  # it is asked for labels
    assert isinstance(judge.system, Classification)
    assert judge.data == drawn.data
