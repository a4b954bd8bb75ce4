"""How good a model's images are: python evaluate.py --help. It is also `jaxdiff evaluate`."""

import sys

from jaxdiff.cli.main import command


def main() -> int:
    return command("evaluate", "evaluate.py")


if __name__ == "__main__":
    sys.exit(main())
