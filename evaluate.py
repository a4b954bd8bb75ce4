"""How good a model's images are: python evaluate.py --help"""

import argparse
import sys
from functools import partial

from jaxdiff.cli.command import run, undisturbed
from jaxdiff.cli.evaluate_options import parsed


def evaluated(options: argparse.Namespace) -> int:
    with undisturbed():
        from jaxdiff.base import environment  # here, so that --help is quick

        environment.prepare(options.distributed)
        from jaxdiff.cli.evaluate import evaluate

    return evaluate(options)


def main() -> int:
    return run(
        "evaluate.py",
        partial(evaluated, parsed()),
        without_memory="try --batch_size 1",
        stopped="stopped; what is drawn is kept, and the same command goes on with it",
    )


if __name__ == "__main__":
    sys.exit(main())
