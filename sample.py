"""Draw images from a trained model: python sample.py --help. It is also `jaxdiff sample`."""

import sys

from jaxdiff.cli.main import command


def main() -> int:
    return command("sample", "sample.py")


if __name__ == "__main__":
    sys.exit(main())
