"""The options of evaluate.py: those of sample.py that say what is drawn, some of them several values at once."""

import itertools
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from jaxdiff.cli import options
from jaxdiff.cli.command import Parser

SEVERAL = ("steps", "guidance_scale", "average")  # in the order in which they are tried
_SHARED = ("workdir", "checkpoint", "from_diffusers", "guidance_rescale")
DRAWN = ("num", "labels", "per_label", "prompt", "seed", "first", "sampler", "grid", "guidance_interval", "classifier")
RULES: options.Rules = (
    ("samples", ("workdir", "checkpoint", "code", "from_diffusers", "likelihood", *SEVERAL, *DRAWN), ()),
    ("likelihood", ("distributed", "nearest", "features", "judge", "guidance_scale", "steps"), ()),
    ("likelihood", tuple(name for name in DRAWN if name not in ("num", "seed")), ()),
    ("nearest", ("features", "judge"), ()),
    ("weights", (), ("features",)),
    ("probes", (), ("likelihood",)),
    *(rule for rule in options.RULES if not {rule[0], *rule[1], *rule[2]} - {*SEVERAL, *DRAWN, *_SHARED}),
    ("from_diffusers", (), ("data",)),
)


def parser() -> Parser:
    made = Parser("evaluate.py", DESCRIPTION, options.listed(), usage="python evaluate.py [options]")
    options.which(made.add_argument_group("which model").add_argument)
    options.what(made.add_argument_group("what is drawn").add_argument, "how many images (default: 10000, or 1000)")
    _against(made.add_argument_group("against what").add_argument)
    how = made.add_argument_group("how it is drawn", "--steps, --guidance_scale and --average take several, as 5,10,20")
    options.guidance(made.add_argument_group("guidance").add_argument)
    options.how(how.add_argument, frozenset(action.dest for action in made._actions))
    for action in made._actions:  # text, which is split
        if action.dest in SEVERAL:
            action.type = str
    return made


def _against(add: options.Add) -> None:
    add(
        "--reference",
        metavar="SPLIT",
        help="the real images: test, held out of training (default), train, or another split of the data",
    )
    features = "what is compared: lite0 (default), inception (then it is FID), the run of a classifier, or file.py:name"
    add("--features", metavar="F", help=features)
    add("--weights", type=Path, metavar="FILE", help="the weights of --features inception, if not to be downloaded")
    judge = "the run of a classifier that says whether an image shows its label (default: that of --features)"
    add("--judge", type=Path, metavar="DIR", help=judge)
    add("--samples", type=Path, metavar="FILE", help="images to evaluate, .npz, a folder or a .zip, instead of a run's")
    add("--data", metavar="CONFIG", help="the config whose data these are compared with (default: that of the run)")
    add("--likelihood", action="store_true", help="bits per dimension of real images, exactly and bounded")
    probes = "with --likelihood: directions in which the divergence is measured (default: all, or 1 above 256 numbers)"
    add("--probes", type=options.count, metavar="N", help=probes)
    add("--nearest", action="store_true", help="each sample beside its nearest training images, and which are copies")


DESCRIPTION = """How good the images of a model are, how likely it finds others, and whether it copies.

    python evaluate.py                                    # the run trained last: 10,000 images, against the test split
    python evaluate.py --workdir runs/mnist --steps 5,10,20,50 --features runs/mnist_classifier
    python evaluate.py --workdir runs/mnist --guidance_scale 0,1,2,3
    python evaluate.py --num 50000 --reference train --features inception
    python evaluate.py --samples samples.npz --data configs/cifar10.py
    python evaluate.py --likelihood
    python evaluate.py --nearest

Writes evaluation.json and pictures into the folder of the run. The same command resumes, and reuses what is there.
"""


def parsed(arguments: list[str] | None = None, prog: str = "evaluate.py") -> Namespace:
    made = parser()
    made.called(prog)
    found = made.parse_args(arguments)
    options.check_rules(made, found, RULES)
    if found.samples is not None and found.data is None:
        made.error("--samples needs --data, the config whose data they are compared with, such as --data cifar10")
    return found


def settings(o: Namespace) -> Iterator[Namespace]:
    """One set of options of sample.py for each of the values that are tried."""
    known = vars(options.parsed([]))
    single = known | {name: value for name, value in vars(o).items() if name in known}
    values = [_values(name, getattr(o, name)) for name in SEVERAL]
    for each in itertools.product(*values):
        yield Namespace(**single | dict(zip(SEVERAL, each, strict=True)))


def _values(name: str, text: str | None) -> list[object]:
    """Each as sample.py would read it."""
    if text is None:
        return [None]
    found = [getattr(options.parsed([f"--{name}={part.strip()}"], "evaluate.py"), name) for part in text.split(",")]
    if len(set(found)) < len(found):
        raise ValueError(f"--{name} has a value twice: {text}")
    return found
