"""Draw images from a trained model: python sample.py --help"""

import argparse
import sys
from functools import partial

from jaxdiff.command import run
from jaxdiff.options import parsed


def drawn(options: argparse.Namespace) -> int:
    from jaxdiff import parallel  # here, so that --help is quick

    parallel.prepare()
    from jaxdiff import drawing

    return drawing.draw(options)


def main() -> int:
    return run("sample.py", partial(drawn, parsed()), without_memory="try --batch_size 1", stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
