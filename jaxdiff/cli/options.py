"""The options of sample.py. Nothing heavy is imported here, so that --help answers at once."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from jaxdiff.cli import catalogue
from jaxdiff.cli.command import Parser


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


_count = _number(int, 1, 2**32, "a whole number, at least 1")
_whole = _number(int, 0, 2**32 - 1, "a whole number, at least 0 and below 2^32")
_share = _number(float, 0, 1, "from 0 to 1")
_at_least_0 = _number(float, 0, math.inf, "a number, at least 0")
_real = _number(float, -1e6, 1e6, "a number")

# a flag, others that it cannot stand beside, and others of which one must be there
RULES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
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
    ("export", ("num", "per_label", "first", "seed", "labels", "prompt", "batch_size"), ()),
)


def parser() -> Parser:
    made = Parser("sample.py", DESCRIPTION, listed(), usage="python sample.py [options]")
    _which(made.add_argument_group("which model").add_argument)
    _what(made.add_argument_group("what").add_argument)
    how = made.add_argument_group("how", "without --sampler and --grid these change the config's own")
    _guidance(made.add_argument_group("guidance").add_argument)
    _editing(made.add_argument_group("editing").add_argument)
    _out(made.add_argument_group("out").add_argument)
    _how(how.add_argument, frozenset(action.dest for action in made._actions))
    return made


Add = Callable[..., argparse.Action]


def _which(add: Add) -> None:
    add("--workdir", type=Path, metavar="DIR", help="the folder of a run (default: the one trained last in runs/)")
    add("--checkpoint", type=_whole, metavar="STEP", help="which of its checkpoints (default: the newest)")
    average = "which average of the parameters: its number in the config (default: 0), none, or a width such as 0.08"
    add("--average", metavar="N", help=f"{average}, put together from power averages")
    code = "a file, or a module, of your own whose classes the run names; may be repeated"
    add("--code", action="append", metavar="FILE", help=code)
    add("--from_diffusers", type=Path, metavar="DIR", help="a folder of diffusers, in place of a run")


def _what(add: Add) -> None:
    add("--num", type=_count, metavar="N", help="how many images (default: as the config shows them)")
    add("--labels", metavar="L", help="such as 3 or 0-9 or cat,ship: they take turns (default: all)")
    add("--per_label", type=_count, metavar="N", help="how many of each label, prompt and given image")
    add("--prompt", action="append", metavar="TEXT", help="a text; several, each after its --prompt, take turns")
    add("--seed", type=_whole, metavar="S", help="with an image's number it says all of its noise (default: 0)")
    add("--first", type=_whole, metavar="N", help="the number of the first image (default: 0)")
    add(
        "--batch_size",
        type=_count,
        metavar="N",
        help="at a time (default: 64, fewer above 128x128 or if memory runs out)",
    )


def _how(add: Add, taken: frozenset[str]) -> None:
    own = "or one of your own, file.py:Name"
    add("--sampler", metavar="NAME", help=f'from the list below, such as ddim or "ddim(eta=0.5)", {own}')
    add("--steps", type=_count, metavar="N", help="of the sampler (default: the config's)")
    add("--grid", metavar="NAME", help=f'of times (default: the config\'s), such as "karras(rho=5)", {own}')
    taken |= {"sampler", "steps", "grid"}
    for kind, files in (("sampler", catalogue.SAMPLERS), ("grid", catalogue.GRIDS)):
        for name, entries in catalogue.flags(files, taken).items():
            each = ", ".join(f"{entry.name} (default: {entry.fields[name]})" for entry in entries)
            add(f"--{name}", metavar="X", help=f"of {each}", dest=f"{kind}.{name}")


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


def _guidance(add: Add) -> None:
    scale = "0 unconditional, 1 the plain conditional model, above 1 sharper (default: the config's)"
    add("--guidance_scale", type=_real, metavar="X", help=scale)
    add("--classifier", type=Path, metavar="DIR", help="the run of a classifier that guides, in place of the model")
    interval = "guide at these noise levels sigma / alpha only (default: at all)"
    add("--guidance_interval", type=_at_least_0, nargs=2, metavar=("LOW", "HIGH"), help=interval)
    add("--guidance_rescale", type=_share, metavar="X", help="pull the contrast back by this share (default: 0)")
    threshold = "where the expected clean image is cut off: 1 at the range of the data (default, but for latents)"
    add("--threshold", type=_share, metavar="Q", help=f"{threshold}, 0 not at all, between at this quantile")


def _editing(add: Add) -> None:
    add("--init", type=Path, nargs="+", metavar="IMAGE", help="images to begin from; alone: variations of them")
    add("--strength", type=_share, metavar="X", help="how far back they are noised (default: 0.6)")
    add("--invert", action="store_true", help="walk them up to their noise, and down under --labels or --prompt")
    add("--was", metavar="L", help="with --invert: what the given images are, labels or a prompt (default: not said)")
    add("--mask", type=Path, nargs="+", metavar="IMAGE", help="paint where these are white, keep the rest")
    add("--outpaint", metavar="L,T,R,B", help="go on so many pixels to the left, top, right and bottom")
    add("--resample", type=_count, metavar="N", help="with --mask or --outpaint: take each step so often (default: 1)")
    add("--upscale", type=_count, metavar="K", help="find images of which the given ones are K times smaller")
    add("--colorize", action="store_true", help="find colours for gray images")
    between = "from seed A to seed B, or with two --init from one to the other, in --per_label images (default: 10)"
    add("--interpolate", nargs="?", const="", metavar="A,B", help=between)
    add("--resize", action="store_true", help="fit given images to the size of the model's")


def _out(add: Add) -> None:
    add("--out", type=Path, metavar="FILE", help="the picture of all, a PNG (default: samples.png in the workdir)")
    add("--npz", type=Path, metavar="FILE", help="arr_0 (uint8, NHWC) and arr_1 (labels), as evaluators read them")
    add("--singles", type=Path, metavar="DIR", help="a PNG for each image")
    add("--trajectory", action="store_true", help="also a strip and a GIF of x_t and of the clean image expected")
    add("--open", action="store_true", help="show the picture")
    add("--export", type=Path, metavar="FILE", help="the sampler itself, to run without jaxdiff; nothing is drawn")


DESCRIPTION = """Draw images from a trained model.

    python sample.py                                              # from the run trained last
    python sample.py --labels 0-9 --per_label 5 --guidance_scale 3
    python sample.py --workdir runs/fashion_mnist_text --prompt "an ankle boot" --prompt "a dress"
    python sample.py --init three.png --strength 0.7 --labels 8   # turn one digit into another
    python sample.py --num 50000 --npz samples.npz                # goes on where it was interrupted
"""


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    made = parser()
    found = made.parse_args(arguments)
    for flag, others, needed in RULES:
        if _given(found, flag):
            for other in others:
                if _given(found, other):
                    made.error(f"--{flag} and --{other} contradict each other: leave one out")
            if needed and not any(_given(found, other) for other in needed):
                made.error(f"--{flag} needs {' or '.join(f'--{other}' for other in needed)}")
    return found


def _given(found: argparse.Namespace, flag: str) -> bool:
    value = getattr(found, flag)
    return value is not None and value is not False
