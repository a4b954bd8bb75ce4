"""Train a model: what and how is in a config, what comes of it in a folder.

    python train.py --config configs/mnist.py
    python train.py --config configs/mnist.py training.steps=20000 batch_size=64
    python train.py --config configs/mnist.py --dry_run

Run the same command again to resume, whether Ctrl-C or a power cut stopped it.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from jaxdiff.cli.command import DISTRIBUTED, TARGET, Parser, run, undisturbed

EPILOG = """
In the folder of the run: config.json, metrics.csv, loss.png, samples/, checkpoints/, and events/ for TensorBoard.
On several machines, or in several processes, give each JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID
(Slurm and Cloud TPUs know them by themselves) and --distributed.
"""


def parsed() -> argparse.Namespace:
    known = ", ".join(sorted(path.stem for path in (Path(__file__).parent / "configs").glob("*.py")))
    parser = Parser("train.py", __doc__, f"{EPILOG}\nConfigs: {known}")
    parser.add_argument(
        "--config", required=True, help="a Python file that defines `config`; mnist means configs/mnist.py"
    )
    parser.add_argument("--workdir", type=Path, help="the folder of the run (default: runs/NAME)")
    code = "your own file or module whose classes the run to be resumed uses; may be repeated"
    parser.add_argument("--code", action="append", metavar="FILE", help=code)
    parser.add_argument("--restart", action="store_true", help="start over; the old run is renamed, not deleted")
    parser.add_argument("--accept_data", action="store_true", help="resume with other data than those it began with")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="show the whole config and what a step costs, and whether it fits this machine",
    )
    parser.add_argument("--target", metavar="MACHINE", help="with --dry_run: " + TARGET)
    parser.add_argument("--distributed", action="store_true", help=DISTRIBUTED)
    parser.add_argument("overrides", nargs="*", metavar="field.subfield=value", help="set a field of the config")
    found = parser.parse_intermixed_args()
    if found.target is not None and not found.dry_run:
        parser.error("--target needs --dry_run: what is not here cannot train")
    return found


def trained(arguments: argparse.Namespace) -> int:
    with undisturbed():
        from jaxdiff.base import code, environment  # here, so that --help is quick

        environment.prepare(arguments.distributed)
        from jaxdiff.base.console import say
        from jaxdiff.base.overrides import overrides
        from jaxdiff.base.text import shown
        from jaxdiff.models.dry_run import dry_run
        from jaxdiff.models.experiment import Experiment
        from jaxdiff.models.target import target

    modules = [code.module(source) for source in arguments.code or ()]
    config = overrides(code.load(arguments.config), arguments.overrides)
    folder = arguments.workdir or Path("runs") / Path(arguments.config).stem
    experiment = Experiment(config, folder, modules, arguments.accept_data)
    if arguments.dry_run:
        where = None if arguments.target is None else target(arguments.target)
        for line in dry_run(experiment, where):
            print(shown(line), flush=True)
        return 0
    stopped = experiment.train(arguments.restart)
    if stopped:
        again = shlex.join(argument for argument in sys.argv if argument != "--restart")
        say(f"stopped by {stopped}, and saved. To resume:\n    python {again}")
    return 130 if stopped == "SIGINT" else 143 if stopped else 0


def main() -> int:
    arguments = parsed()
    return run(
        "train.py",
        partial(trained, arguments),
        without_memory="try a smaller batch_size=..., or training.accumulate=4",
        stopped="stopped at once; run the same command again to resume from the last checkpoint",
    )


if __name__ == "__main__":
    sys.exit(main())
