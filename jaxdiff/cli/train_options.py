"""The options of train.py. Nothing heavy is imported here, so that --help answers at once."""

import argparse
from pathlib import Path

from jaxdiff.base import shipped
from jaxdiff.cli.command import DISTRIBUTED, TARGET, Parser

DESCRIPTION = """Train a model: what and how is in a config, what comes of it in a folder.

    python train.py --config mnist
    python train.py --config mnist training.steps=20000 batch_size=64
    python train.py --config mine.py --dry_run

Run the same command again to resume, whether Ctrl-C or a power cut stopped it.
"""
EPILOG = """
In the folder of the run: report.html, which shows it in a browser; config.json, metrics.csv, loss.png, samples/,
checkpoints/, and events/ for TensorBoard.
On several machines, or in several processes, give each JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID
(Slurm and Cloud TPUs know them by themselves) and --distributed.
"""


def parser() -> Parser:
    made = Parser("train.py", DESCRIPTION, f"{EPILOG}\nConfigs: {', '.join(shipped.names())}")
    add = made.add_argument
    add("--config", required=True, help="a Python file that defines `config`, or one of those listed below")
    add("--workdir", type=Path, help="the folder of the run (default: runs/NAME)")
    code = "your own file or module whose classes the run to be resumed uses; may be repeated"
    add("--code", action="append", metavar="FILE", help=code)
    add("--restart", action="store_true", help="start over; the old run is renamed, not deleted")
    add("--accept_data", action="store_true", help="resume with other data than those it began with")
    dry_run = "show the whole config and what a step costs, and whether it fits this machine"
    add("--dry_run", action="store_true", help=dry_run)
    add("--target", metavar="MACHINE", help="with --dry_run: " + TARGET)
    add("--distributed", action="store_true", help=DISTRIBUTED)
    add("overrides", nargs="*", metavar="field.subfield=value", help="set a field of the config")
    return made


def parsed(arguments: list[str] | None = None, prog: str = "train.py") -> argparse.Namespace:
    made = parser()
    made.called(prog)
    found = made.parse_intermixed_args(arguments)
    if found.target is not None and not found.dry_run:
        made.error("--target needs --dry_run: what is not here cannot train")
    if found.distributed and found.dry_run:
        made.error("--distributed and --dry_run contradict each other: a dry run is of one process")
    return found
