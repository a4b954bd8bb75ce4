"""The options of `jaxdiff publish`. Nothing heavy is imported here, so that --help answers at once."""

import argparse
import re
from pathlib import Path

from jaxdiff.cli import options
from jaxdiff.cli.command import Parser

DESCRIPTION = """Write a trained model into a new folder, as the Hugging Face Hub has them.

    jaxdiff publish runs/mnist mnist --license mit
    hf upload me/mnist mnist                        # from then on hub:me/mnist, wherever a run may be named

In it: model.safetensors (one average of the parameters), config.json and data.json, which jaxdiff reads; for people a
README.md, samples.png, and the numbers that evaluate.py found of these parameters; and diffusers/, the network as
PyTorch has it, where PyTorch has one of its kind.
"""


def _license(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", text):
        raise argparse.ArgumentTypeError(f"must be a name as the Hub has it, mit, apache-2.0 or other, got {text!r}")
    return text


def parser() -> Parser:
    made = Parser("jaxdiff publish", DESCRIPTION)
    made.add_argument("workdir", type=Path, metavar="RUN", help="the folder of the run")
    made.add_argument("folder", type=Path, metavar="DIR", help="the new folder")
    name = "of the weights, as the Hub names it: mit, apache-2.0, cc-by-4.0, ... (default: unknown)"
    made.add_argument("--license", type=_license, default="unknown", help=name)
    options.which_parameters(made.add_argument)
    return made


def parsed(arguments: list[str] | None = None, prog: str = "jaxdiff publish") -> argparse.Namespace:
    del prog  # it has no other
    return parser().parse_args(arguments)
