"""Train a model: python train.py --help. It is also `jaxdiff train`."""

import sys

from jaxdiff.cli.main import command


def main() -> int:
    return command("train", "train.py")


if __name__ == "__main__":
    sys.exit(main())
