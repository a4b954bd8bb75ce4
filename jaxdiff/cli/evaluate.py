"""What evaluate.py does: one of three questions."""

from argparse import Namespace

from jaxdiff.cli.distances import distances
from jaxdiff.cli.evaluation import Evaluation
from jaxdiff.cli.likelihood import likelihood
from jaxdiff.cli.nearest import nearest


def evaluate(o: Namespace) -> int:
    """Answers what the options ask; the exit code."""
    return (likelihood if o.likelihood else nearest if o.nearest else distances)(Evaluation(o))
