"""Draw images from a trained model: python sample.py --help"""

import argparse
import sys
from functools import partial

from jaxdiff.cli.command import run, undisturbed
from jaxdiff.cli.options import parsed


def drawn(options: argparse.Namespace) -> int:
    with undisturbed():
        from jaxdiff.base import environment  # here, so that --help is quick

        environment.prepare(options.distributed)
        from jaxdiff.cli.sample import draw

    return draw(options)


def main() -> int:
    return run(
        "sample.py",
        partial(drawn, parsed()),
        without_memory="try --batch_size 1",
        stopped="stopped",
    )


if __name__ == "__main__":
    sys.exit(main())
