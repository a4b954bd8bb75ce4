"""What evaluate.py does: one of three questions."""

from argparse import Namespace
from pathlib import Path

from jaxdiff.base.devices import is_first
from jaxdiff.cli.distances import distances
from jaxdiff.cli.evaluation import Evaluation
from jaxdiff.cli.likelihood import likelihood
from jaxdiff.cli.nearest import nearest
from jaxdiff.training import page


def evaluate(o: Namespace) -> int:
    """Answers what the options ask; the exit code."""
    asked = Evaluation(o)
    code = (likelihood if o.likelihood else nearest if o.nearest else distances)(asked)
    if is_first() and asked.o.workdir is not None and (Path(asked.o.workdir) / "checkpoints").is_dir():
        page.write(Path(asked.o.workdir))
    return code
