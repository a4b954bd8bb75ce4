"""The options of sample.py. Nothing heavy is imported here, so that --help answers at once."""

import argparse
import math
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from jaxdiff.cli import catalogue
from jaxdiff.cli.command import DISTRIBUTED, TARGET, Parser


def _number(kind: type, low: float, high: float, what: str) -> Callable[[str], float]:
    """A number of that kind within [low, high]."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return read


count = _number(int, 1, 2**32, "a whole number, at least 1")
_whole = _number(int, 0, 2**32 - 1, "a whole number, at least 0 and below 2^32")
_share = _number(float, 0, 1, "from 0 to 1")
_at_least_0 = _number(float, 0, math.inf, "a number, at least 0")
_real = _number(float, -1e6, 1e6, "a number")


def _step(text: str) -> str | float:
    return text if text == "best" else _whole(text)


# a flag, others that it cannot stand beside, and others of which one must be there
Rules = tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
RULES: Rules = (
    ("workdir", ("from_diffusers",), ()),
    ("checkpoint", ("from_diffusers",), ()),
    ("average", ("from_diffusers",), ()),
    ("labels", ("prompt",), ()),
    ("per_label", ("num",), ()),
    ("strength", ("mask", "invert", "outpaint", "upscale", "colorize", "interpolate"), ("init",)),
    ("invert", ("mask", "outpaint", "upscale", "colorize", "seed", "per_label"), ("init",)),
    ("was", (), ("invert", "interpolate")),
    ("was", (), ("init",)),
    ("interpolate", ("num",), ()),
    ("guidance_rescale", ("classifier",), ()),
    ("mask", ("outpaint", "upscale", "colorize", "interpolate"), ("init",)),
    ("outpaint", ("upscale", "colorize", "interpolate", "npz", "trajectory", "first"), ("init",)),
    ("upscale", ("colorize", "interpolate", "resize"), ("init",)),
    ("colorize", ("interpolate",), ("init",)),
    ("resample", ("invert", "upscale", "colorize", "interpolate"), ("mask", "outpaint")),
    ("resize", (), ("init", "mask")),
    ("export", ("init", "interpolate", "npz", "singles", "trajectory", "out", "open"), ()),
    ("dry_run", ("init", "interpolate", "export"), ()),
    ("target", (), ("dry_run",)),
    ("distributed", ("outpaint", "export", "dry_run"), ()),
    ("export", ("num", "per_label", "first", "seed", "labels", "prompt", "batch_size"), ()),
)


def parser() -> Parser:
    made = Parser("sample.py", DESCRIPTION, listed(), usage="python sample.py [options]")
    which(made.add_argument_group("which model").add_argument)
    what(made.add_argument_group("what").add_argument)
    last = made.add_argument_group(
        "how", "without --sampler and --grid, these change the sampler and the grid of the config"
    )
    guidance(made.add_argument_group("guidance").add_argument)
    _editing(made.add_argument_group("editing").add_argument)
    _out(made.add_argument_group("out").add_argument)
    how(last.add_argument, frozenset(action.dest for action in made._actions))
    return made


Add = Callable[..., argparse.Action]


def which(add: Add) -> None:
    run = "the folder of a run (default: the one trained last in runs/), or of a published model, or hub:owner/name"
    add("--workdir", type=Path, metavar="DIR", help=run)
    which_parameters(add)
    add("--from_diffusers", type=Path, metavar="DIR", help="a folder saved by diffusers, instead of a run")


def which_parameters(add: Add) -> None:
    checkpoint = "which checkpoint of it, by its step (default: the newest), or best, if training.keep_best kept it"
    add("--checkpoint", type=_step, metavar="STEP", help=checkpoint)
    average = "which average of the parameters: its number in the config (default: 0), or none for the parameters"
    width = "themselves; or a width such as 0.08, if the config has PowerEma averages"
    add("--average", metavar="N", help=f"{average} {width}")
    code = "your own file or module whose classes the run uses; may be repeated"
    add("--code", action="append", metavar="FILE", help=code)


def what(add: Add, many: str = "how many images (default: as many as the config shows)") -> None:
    add("--num", type=count, metavar="N", help=many)
    add(
        "--labels",
        metavar="L",
        help="labels to draw in turn, such as 3, 0-9 or cat,ship (default: all, if no prompts are known)",
    )
    add("--per_label", type=count, metavar="N", help="how many images of each label, prompt or given image")
    add("--prompt", action="append", metavar="TEXT", help="a text; repeat --prompt for several, drawn in turn")
    add(
        "--seed",
        type=_whole,
        metavar="S",
        help="the seed; together with the image's number it determines all noise (default: 0)",
    )
    add("--first", type=_whole, metavar="N", help="the number of the first image (default: 0)")
    add(
        "--batch_size",
        type=count,
        metavar="N",
        help="images at a time (default: 64; fewer above 128x128, or if memory runs out)",
    )
    add("--distributed", action="store_true", help=DISTRIBUTED)


def how(add: Add, taken: frozenset[str]) -> None:
    own = "or your own, file.py:Name"
    add("--sampler", metavar="NAME", help=f'one of the list below, such as ddim or "ddim(eta=0.5)", {own}')
    add("--steps", type=count, metavar="N", help="how many steps (default: the config's)")
    add("--grid", metavar="NAME", help=f'where the steps are: a grid of the list below, such as "karras(rho=5)", {own}')
    taken |= {"sampler", "steps", "grid"}
    for kind, files in (("sampler", catalogue.SAMPLERS), ("grid", catalogue.GRIDS)):
        for name, entries in catalogue.flags(files, taken).items():
            add(f"--{name}", metavar="X", help=_meanings(name, entries), dest=f"{kind}.{name}")


def _meanings(name: str, entries: list[catalogue.Entry]) -> str:
    """What a field is, in the classes that have it."""
    parts = []
    for said, some in groupby(entries, lambda entry: entry.meanings[name].replace("%", "%%")):
        owners = ", ".join(f"{entry.name} (default: {entry.fields[name]})" for entry in some)
        parts.append(f"of {owners}" + (f": {said}" if said else ""))
    return "; ".join(parts)


def fields_of(found: argparse.Namespace, kind: str) -> dict[str, str]:
    """The fields of the sampler, or of the grid, that are given."""
    given = {name: text for name, text in vars(found).items() if name.startswith(f"{kind}.") and text is not None}
    return {name.removeprefix(f"{kind}."): text for name, text in given.items()}


def listed() -> str:
    """The samplers and grids, below the options."""
    lines = []
    for title, files in (("samplers", catalogue.SAMPLERS), ("grids", catalogue.GRIDS)):
        lines += [f"{title}:", *(f"  {entry.name:20}{entry.about}" for entry in catalogue.entries(files)), ""]
    return "\n".join(lines)


def guidance(add: Add) -> None:
    scale = "0 unconditional, 1 the plain conditional model, above 1 sharper (default: the config's)"
    add("--guidance_scale", type=_real, metavar="X", help=scale)
    add("--classifier", type=Path, metavar="DIR", help="the run of a classifier that guides the model")
    interval = "guide only at noise levels sigma / alpha between these (default: at all)"
    add("--guidance_interval", type=_at_least_0, nargs=2, metavar=("LOW", "HIGH"), help=interval)
    add(
        "--guidance_rescale",
        type=_share,
        metavar="X",
        help="how much of the contrast that guidance adds is taken back (default: 0)",
    )
    threshold = "clip the expected clean image: 1 to the range of the data (default, but not for latents), 0 not at all"
    add(
        "--threshold",
        type=_share,
        metavar="Q",
        help=f"{threshold}, between: dynamic thresholding at this quantile",
    )


def _editing(add: Add) -> None:
    add(
        "--init",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="images to edit; without another of these options, variations of them",
    )
    add(
        "--strength",
        type=_share,
        metavar="X",
        help="how much noise is added: 1 leaves nothing of the image (default: 0.6)",
    )
    add("--invert", action="store_true", help="invert them to noise, then sample from it with --labels or --prompt")
    add("--was", metavar="L", help="with --invert: the label or prompt of the given images (default: none)")
    add("--mask", type=Path, nargs="+", metavar="IMAGE", help="paint where these are white, keep the rest")
    add("--outpaint", metavar="L,T,R,B", help="paint so many more pixels to the left, top, right and bottom")
    add("--resample", type=count, metavar="N", help="with --mask or --outpaint: repeat each step so often (default: 1)")
    add("--upscale", type=count, metavar="K", help="reconstruct images K times larger than the given ones")
    add("--colorize", action="store_true", help="reconstruct the colours of gray images")
    between = "from seed A to seed B, or from the first --init to the second, in --per_label images (default: 10)"
    add("--interpolate", nargs="?", const="", metavar="A,B", help=between)
    add("--resize", action="store_true", help="fit given images to the size that the model draws")


def _out(add: Add) -> None:
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="one picture of all images, a PNG (default: samples.png in the workdir, or samples_2.png and so on)",
    )
    add(
        "--npz",
        type=Path,
        metavar="FILE",
        help="the images as arr_0 (uint8, NHWC) and the labels as arr_1; resumes if interrupted",
    )
    add("--singles", type=Path, metavar="DIR", help="a folder for one PNG per image; resumes if interrupted")
    add(
        "--trajectory",
        action="store_true",
        help="also how the first images form: a strip and a GIF of x_t and of the expected clean image",
    )
    add("--open", action="store_true", help="open the picture")
    add("--export", type=Path, metavar="FILE", help="write the sampler itself, to run without jaxdiff; draws nothing")
    add(
        "--dry_run", action="store_true", help="draw nothing; show what it would cost, and whether it fits this machine"
    )
    add("--target", metavar="MACHINE", help="with --dry_run: " + TARGET)


DESCRIPTION = """Draw images from a trained model.

    python sample.py                                              # from the run trained last
    python sample.py --labels 0-9 --per_label 5 --guidance_scale 3
    python sample.py --workdir runs/fashion_mnist_text --prompt "an ankle boot" --prompt "a dress"
    python sample.py --init three.png --strength 0.7 --labels 8   # turn one digit into another
    python sample.py --num 50000 --npz samples.npz                # resumes if interrupted
"""


def parsed(arguments: list[str] | None = None, prog: str = "sample.py") -> argparse.Namespace:
    made = parser()
    made.called(prog)
    found = made.parse_args(arguments)
    check_rules(made, found, RULES)
    return found


def check_rules(made: Parser, found: argparse.Namespace, rules: Rules) -> None:
    """Refuses flags that contradict each other, or lack another."""
    for flag, others, needed in rules:
        if _given(found, flag):
            for other in others:
                if _given(found, other):
                    made.error(f"--{flag} and --{other} contradict each other: leave one out")
            if needed and not any(_given(found, other) for other in needed):
                made.error(f"--{flag} needs {' or '.join(f'--{other}' for other in needed)}")


def _given(found: argparse.Namespace, flag: str) -> bool:
    value = getattr(found, flag)
    return value is not None and value is not False
