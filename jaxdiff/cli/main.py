"""The commands: `jaxdiff train` is what `python train.py` is, and so on. Reading options imports nothing heavy."""

import sys
from dataclasses import dataclass
from importlib import import_module

import jaxdiff
from jaxdiff.cli import completion
from jaxdiff.cli.command import Parser, run, undisturbed


@dataclass(frozen=True)
class Command:
    """Where its options are read, and what then acts on them: modules of jaxdiff.cli, imported when they are needed."""

    about: str
    options: str
    action: str  # module:function
    without_memory: str
    stopped: str


COMMANDS = {
    "train": Command(
        about="a model, by a config",
        options="train_options",
        action="train:train",
        without_memory="try a smaller batch_size=..., or training.accumulate=4",
        stopped="stopped at once; the same command goes on from the last checkpoint, if there is one yet",
    ),
    "sample": Command(
        about="images of a trained model, new or edited",
        options="options",
        action="sample:draw",
        without_memory="try --batch_size 1",
        stopped="stopped",
    ),
    "evaluate": Command(
        about="how good its images are, how likely it finds others, whether it copies",
        options="evaluate_options",
        action="evaluate:evaluate",
        without_memory="try --batch_size 1",
        stopped="stopped; what is drawn is kept, and the same command goes on with it",
    ),
    "publish": Command(
        about="a folder of a model for the Hugging Face Hub",
        options="publish_options",
        action="publish:publish",
        without_memory="use a machine with more",
        stopped="stopped; nothing is written",
    ),
}


def command(name: str, prog: str, arguments: list[str] | None = None) -> int:
    """Reads the options of a command and does what they say; the exit code."""
    known = COMMANDS[name]
    options = import_module(f"jaxdiff.cli.{known.options}").parsed(arguments, prog)

    def act() -> int:
        with undisturbed():
            from jaxdiff.base import environment

            environment.prepare(getattr(options, "distributed", False), getattr(options, "target", None) is not None)
            module, function = known.action.split(":")
            action = getattr(import_module(f"jaxdiff.cli.{module}"), function)
        return int(action(options))

    stopped = "stopped" if getattr(options, "dry_run", False) else known.stopped
    return run(prog, act, known.without_memory, stopped)


def _flags(known: Command) -> list[str]:
    """All that its --help names."""
    made = import_module(f"jaxdiff.cli.{known.options}").parser()
    return [flag for action in made._actions for flag in action.option_strings if flag.startswith("--")]


def main() -> int:
    """`jaxdiff`, the one command of an installed package."""
    listed = "\n".join(f"  jaxdiff {name:10}{known.about}" for name, known in COMMANDS.items())
    usage = "jaxdiff COMMAND [options]; jaxdiff COMMAND --help tells which"
    parser = Parser("jaxdiff", f"Image diffusion in JAX.\n\n{listed}", usage=usage)
    parser.add_argument("--version", action="version", version=f"jaxdiff {jaxdiff.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=f"one of {', '.join(COMMANDS)}")
    completes = (
        'print what makes bash or zsh complete commands, options, configs and runs: eval "$(jaxdiff --completion)"'
    )
    parser.add_argument("--completion", action="store_true", help=completes)
    if sys.argv[1:2] == ["--completion"]:
        print(completion.script({name: _flags(known) for name, known in COMMANDS.items()}))
        return 0
    name = parser.parse_args(sys.argv[1:2] or ["--help"]).command
    return command(name, f"jaxdiff {name}", sys.argv[2:])
