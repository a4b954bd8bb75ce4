"""What sample.py does: draws what is planned, and puts it where it should go."""

import contextlib
import hashlib
import webbrowser
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxdiff.base import files, pictures
from jaxdiff.base.console import say
from jaxdiff.base.devices import agreed, agreeing, is_first
from jaxdiff.base.text import shown
from jaxdiff.base.words import plural
from jaxdiff.cli import output
from jaxdiff.cli.drawing import Drawing, in_rows
from jaxdiff.cli.dry_run import dry_run
from jaxdiff.cli.plan import Plan, planned
from jaxdiff.cli.which import modules_of, newest, place_of
from jaxdiff.data import Arrays
from jaxdiff.models import editing
from jaxdiff.models.conditions import Prompts
from jaxdiff.models.export import export
from jaxdiff.models.target import target
from jaxdiff.training.checkpoint import fingerprint


def draw(o: Namespace) -> int:
    """Draws as the options say; the exit code."""
    if o.from_diffusers is None and o.workdir is None:
        o.workdir = newest(Path("runs"), modules_of(o))
    if not o.dry_run:
        check_places(o)
    where = None if o.target is None else target(o.target)
    plan = planned(o)
    if o.dry_run:
        for line in dry_run(plan, where):
            print(shown(line), flush=True)
        return 0
    if o.export is not None:
        return exported(plan, o.export)
    return drawn(plan) if plan.outpainting is None else outpainted(plan)


def check_places(o: Namespace) -> None:
    """Refuses places where nothing could be written, before anything is computed."""
    path = place_of(o) / "samples.png" if o.out is None else o.out
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {path}: --npz and --singles write other forms")
    if o.npz is not None and o.npz.suffix.lower() != ".npz":
        raise ValueError(f"--npz must end in .npz, got {o.npz}")
    written = {"--npz": o.npz, "--singles": o.singles and o.singles / "000000.png", "--export": o.export}
    for flag, place in {"--out": path if o.export is None else None, **written}.items():
        if place is not None:
            files.check_place(place, f"give another {flag}")


def drawn(plan: Plan) -> int:
    """Images by their numbers; the exit code."""
    with agreeing():
        there = plan.places.npz is not None and output.is_finished(plan.places.npz, plan.count, about(plan))
    if agreed(there):
        say(f"{plan.places.npz} already has its {plural(plan.count, 'image')}")
        if plan.places.singles is None and not plan.places.trajectory:
            drawing = Drawing(plan, [])  # by all processes
            if plan.places.asked and is_first():
                show(plan, drawing.picture_of(Arrays(str(plan.places.npz)).open().images))
            return 0
        plan = replace(plan, places=replace(plan.places, npz=None))
    with contextlib.ExitStack() as closing:
        with agreeing():
            made = opened(plan) if is_first() else []
        outputs = [closing.enter_context(contextlib.closing(each)) for each in made]
        say(f"{plural(plan.count, 'image')} of {plan.model.name}: {plan.how()}")
        drawing = Drawing(plan, outputs)
        whole = drawing.run()
        if drawing.kept:
            show(plan, drawing.picture())
            if plan.in_order and whole:
                print(shown(str(drawing.film())))
        if drawing.frames:
            print(*map(shown, map(str, drawing.trajectory())), sep="\n")
        if whole and is_first():
            for each, place in zip(outputs, filter(None, (plan.places.npz, plan.places.singles)), strict=True):
                each.finish()
                print(shown(str(place)))
    if whole:
        return 0
    resumes = "; the same command resumes" if outputs and drawing.done else ""
    say(f"stopped at {drawing.done:,} of {plural(plan.count, 'image')}{resumes}")
    return 130


def show(plan: Plan, picture: np.ndarray) -> None:
    path = plan.places.picture
    pictures.save(path, picture)
    print(shown(str(path)))
    if plan.places.opens:
        webbrowser.open(path.absolute().as_uri())


def opened(plan: Plan) -> list[output.Output]:
    """Where images go beside the picture; what an interrupted call wrote there of the same stays."""
    if plan.places.npz is None and plan.places.singles is None:
        return []
    made: list[output.Output] = []
    with contextlib.ExitStack() as undone:
        if plan.places.npz is not None:
            height, width, channels = plan.model.image_shape
            labelled = plan.labels_of(np.zeros(1, int)) is not None
            made.append(output.Npz(plan.places.npz, plan.count, (height, width, channels), labelled, about(plan)))
            undone.callback(made[0].close)
        if plan.places.singles is not None:
            made.append(output.Singles(plan.places.singles, plan.numbers, about(plan)))
        undone.pop_all()
    return made


def about(plan: Plan) -> dict[str, Any]:
    """What tells these images from others."""
    by_prompt, classes = isinstance(plan.model.system.condition, Prompts), plan.classes
    labels = {"labels": classes.tolist()} if by_prompt and classes is not None else {}  # also written beside the images
    return {
        "model": plan.model.name,
        "parameters": hashed((plan.model.params, plan.model.codec, plan.classifier and plan.classifier.params)),
        "how": plan.how(),
        "times": hashlib.sha256(plan.times.tobytes()).hexdigest(),
        "guidance": repr(plan.guidance),
        "conditions": plan.texts,
        "first": plan.first,
        "period": plan.period,
        "edit": plan.about_edit,
    } | labels


def hashed(arrays: Any) -> str:
    return hashlib.sha256(fingerprint(arrays).tobytes()).hexdigest()


def outpainted(plan: Plan) -> int:
    """A picture of every given image under every label or prompt, with its borders painted; the exit code."""
    assert plan.outpainting is not None
    given, sides = plan.outpainting.images, plan.outpainting.sides
    turns = np.arange(plan.count) // plan.period % len(given)
    say(f"{plural(plan.count, 'image')} of {plan.model.name}: {plan.how()}")
    options = {name: value for name, value in plan.options().items() if name != "edit"}
    painting = editing.outpainting(plan.model, given[turns], *sides, batch_size=plan.batch_size, **options)
    done, windows, canvas = next(painting)
    with contextlib.ExitStack() as closing:
        singles = [closing.enter_context(contextlib.closing(each)) for each in opened(plan)]
        try:
            with tqdm(total=windows, unit=" windows", disable=None) as bar, contextlib.suppress(KeyboardInterrupt):
                for done, *_ in painting:  # all of them on the one canvas
                    bar.update(done - bar.n)
        finally:  # also if memory ran out
            if done:
                tiles = pictures.to_uint8(canvas)
                show(plan, in_rows(tiles, plan.texts, plan.period * len(given)))
        for each in singles if done == windows else []:
            labels = plan.labels_of(np.arange(plan.count))
            each.write(tiles[each.done :], None if labels is None else labels[each.done :])
            each.finish()
            print(shown(str(plan.places.singles)))
    if done == windows:
        return 0
    say(f"stopped at {done} of {plural(windows, 'window')}")
    return 130


def exported(plan: Plan, path: Path) -> int:
    """The whole sampler in a file; prints the program that draws from it."""
    left_out = ("edit", "labels", "prompts", "seed")
    options = {name: value for name, value in plan.options().items() if name not in left_out}
    print(export(plan.model, path, **options))
    say(f"{path}: {path.stat().st_size / 1e6:.2f} MB, drawn from by the program above")
    return 0
