"""What train.py does: begins or resumes a run, or tells what it would cost."""

import shlex
import sys
from argparse import Namespace
from pathlib import Path

from jaxdiff.base import code, files
from jaxdiff.base.console import say
from jaxdiff.base.overrides import overrides
from jaxdiff.base.text import shown
from jaxdiff.cli.which import modules_of
from jaxdiff.models.dry_run import dry_run
from jaxdiff.models.experiment import Experiment
from jaxdiff.models.target import target
from jaxdiff.training import page


def train(o: Namespace) -> int:
    """Trains as the options say; the exit code."""
    modules = modules_of(o)
    config = overrides(code.load(o.config), o.overrides)
    folder = o.workdir or Path("runs") / Path(o.config).stem
    folder = files.unused(folder) if o.dry_run and o.restart else folder
    experiment = Experiment(config, folder, modules, o.accept_data, again())
    if o.dry_run:
        where = None if o.target is None else target(o.target)
        for line in dry_run(experiment, where):
            print(shown(line), flush=True)
        return 0
    stopped = experiment.train(o.restart)
    print(shown(str(folder / page.NAME)))
    if stopped:
        say(f"stopped by {stopped}, and saved. To resume:\n    {again()}")
    return 130 if stopped == "SIGINT" else 143 if stopped else 0


def again() -> str:
    """This command, as it was called, but for what is done once."""
    program, *rest = sys.argv
    called = f"python {program}" if program.endswith(".py") else Path(program).stem
    return f"{called} {shlex.join(argument for argument in rest if argument != '--restart')}"
