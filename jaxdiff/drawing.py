"""What sample.py does: draws what is planned, and puts it where it should go."""

import contextlib
import hashlib
import os
import sys
import time
import warnings
import webbrowser
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxdiff import editing, export, images, output
from jaxdiff.checkpoint import fingerprint
from jaxdiff.command import MEMORY
from jaxdiff.plan import Plan, given_images, newest, planned
from jaxdiff.sampling import Progress

IN_PICTURE = 1000  # images of up to 128x128; what is beyond is not in it
AT_A_TIME = 64  # of these
CHANGES = ("strength", "invert", "was", "outpaint", "upscale", "colorize", "interpolate")  # what tells edits apart
FRAMES, FOLLOWED = 24, 8  # of a trajectory, and of how many images


def draw(o: Namespace) -> int:
    """Draws as the options say; the exit code."""
    if o.from_diffusers is None and o.workdir is None:
        o.workdir = newest(Path("runs"))
    path = (o.workdir or Path()) / "samples.png" if o.out is None else o.out
    check_places(o, path)
    plan = planned(o)
    if o.export is not None:
        print(exported(plan, o.export))
        print(f"{o.export}: {o.export.stat().st_size / 1e6:.2f} MB, drawn from by the program above", file=sys.stderr)
        return 0
    if o.outpaint is not None:
        return outpainted(plan, o, path)
    first, count = o.first or 0, count_of(plan, o)
    if first + count > 2**32:
        raise ValueError(f"images are numbered below 2^32, got {count} from --first {first} on")
    numbers = range(first, first + count)
    with contextlib.ExitStack() as closing:
        outputs = [closing.enter_context(contextlib.closing(each)) for each in opened(plan, o, numbers)]
        print(f"{count:,} images of {plan.model.name}: {plan.how()}", file=sys.stderr)
        drawing = Drawing(plan, numbers, outputs, o.batch_size, o.trajectory)
        whole = drawing.run()
        if drawing.kept:
            show(path, drawing.picture(o.interpolate is not None), o.open)
        if drawing.frames:
            print(*drawing.trajectory(path), sep="\n")
        if whole:
            for each, place in zip(outputs, filter(None, (o.npz, o.singles)), strict=True):
                each.finish()
                print(place)
    if whole:
        return 0
    on = "; the same command goes on" if outputs and drawing.done else ""
    print(f"stopped at {drawing.done:,} of {count:,} images{on}", file=sys.stderr)
    return 130


def check_places(o: Namespace, path: Path) -> None:
    """Refuses places where nothing could be written, before anything is computed."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {path}: --npz and --singles write other forms")
    if o.npz is not None and (o.npz.suffix.lower() != ".npz" or o.npz.exists()):
        raise ValueError(f"--npz must name a new file that ends in .npz, got {o.npz}")
    folder = next(each for each in path.absolute().parents if each.exists())
    if o.export is None and (path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK)):
        raise ValueError(f"{path} cannot be written: give another --out")


def count_of(plan: Plan, o: Namespace) -> int:
    """How many images: so many of each thing, or in all."""
    if o.interpolate is not None:
        return plan.period
    if o.num is not None:
        return o.num
    if o.per_label is not None:
        return o.per_label * plan.period
    if plan.edit is not None:
        return plan.period * (1 if plan.edit.noise is not None else 5)
    shown = plan.model.system.shown
    return max(round(shown / plan.period), 1) * plan.period if plan.period <= IN_PICTURE // 10 else shown


def show(path: Path, picture: np.ndarray, opens: bool) -> None:
    images.save(path, picture)
    print(path)
    if opens:
        webbrowser.open(path.absolute().as_uri())


# --- images as they come --------------------------------------------------------------------------------------------


class Drawing:
    """The images of one call: each batch goes to all outputs, and the first ones into a picture."""

    def __init__(
        self, plan: Plan, numbers: range, outputs: list[output.Output], batch_size: int | None, trajectory: bool
    ) -> None:
        self.plan, self.numbers, self.outputs = plan, numbers, outputs
        larger = max(int(np.prod(plan.model.image_shape[:2])) / 128**2, 1.0)
        self.size = min(batch_size or max(int(AT_A_TIME / larger), 1), len(numbers))
        self.halves = batch_size is None
        self.in_picture = max(int(IN_PICTURE / larger), 1)
        self.follows = trajectory
        self.done = min((each.done for each in outputs), default=0)
        self.kept = [outputs[0].read(0, min(self.done, self.in_picture))] if self.done else []
        self.frames: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self) -> bool:
        """Whether all are drawn: Ctrl-C keeps what is finished."""
        if self.done:
            print(f"{self.done:,} of them are there already", file=sys.stderr)
            if self.follows:
                print("their way is not seen again: --trajectory needs a call that begins", file=sys.stderr)
        begin, before = time.perf_counter(), self.done
        self.bar = tqdm(total=len(self.numbers), initial=before, unit=" images", disable=None, dynamic_ncols=True)
        with self.bar, warnings.catch_warnings(), contextlib.suppress(KeyboardInterrupt):
            warnings.filterwarnings("ignore", "some images are not finite")  # it is told here
            for indices, x in self._batches():
                finite = np.isfinite(x).all((1, 2, 3))
                if not finite.all():
                    what = f"image {indices[~finite][0]} is not finite"
                    raise ValueError(f"{what}: take more --steps or --max_steps, less guidance, or another --sampler")
                self._take(indices, images.to_uint8(x))
        seconds = time.perf_counter() - begin
        print(f"{(self.done - before) / seconds:.3g} images/s, {seconds:.1f} s with compiling", file=sys.stderr)
        return self.done == len(self.numbers)

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A thousand or so after the other, since each call holds what its images are told; fewer where memory ends."""
        while self.done < len(self.numbers):
            steps = len(self.plan.times) - 1
            try:
                yield from self.plan.model.batches(
                    self.numbers[self.done : self.done + self.size * max(IN_PICTURE // self.size, 1)],
                    batch_size=self.size,
                    callback=self._seen,
                    every=max(steps // FRAMES, 1),
                    **self.plan.options(),
                )
            except (RuntimeError, MemoryError) as error:
                short = MEMORY in str(error) or isinstance(error, MemoryError)
                if not short or not self.halves or self.size == 1:
                    raise
                self.size //= 2
                if not self.done:
                    self.frames.clear()
                print(f"too little memory: going on with {self.size} images at a time", file=sys.stderr)

    def _take(self, indices: np.ndarray, batch: np.ndarray) -> None:
        labels = self.plan.labels_of(indices)
        for each in self.outputs:
            new = slice(each.done - self.done, None)  # of several, one may have got further before
            if each.done < self.done + len(batch):
                each.write(batch[new], None if labels is None else labels[new])
        if self.done < self.in_picture:
            self.kept.append(batch)
        self.done += len(batch)
        self.bar.update(self.done - self.bar.n)

    def _seen(self, progress: Progress) -> None:
        """Moves the bar; keeps frames of the first images if their way is to be shown."""
        share = progress.step / progress.steps
        self.bar.update(self.done + int(share * len(progress.indices)) - self.bar.n)
        if self.follows and progress.indices[0] == self.numbers[0]:
            point = self.plan.model.system.process.at(self.plan.times[progress.step])
            size = max(1.0, float(np.hypot(point.alpha, point.sigma)))  # exploding noise would be all black and white
            self.frames.append((progress.images[:FOLLOWED] / size, progress.expected[:FOLLOWED]))

    # --- pictures ---------------------------------------------------------------------------------------------------

    def picture(self, in_order: bool) -> np.ndarray:
        """A row for each label or prompt and given image, which stands first; of one alone a square."""
        tiles, texts, edit = np.concatenate(self.kept)[: self.in_picture], self.plan.texts, self.plan.edit
        given = None if edit is None or edit.shown is None else images.to_uint8(edit.shown)
        if in_order:  # a way from one to another is a row
            return in_rows(tiles, texts, max(len(texts), 1), self.numbers[0], wraps=False)
        return in_rows(tiles, texts, self.plan.period, self.numbers[0], given)

    def trajectory(self, path: Path) -> tuple[Path, Path]:
        """A strip and a GIF, of x_t and of the clean image expected."""
        pairs = [[images.to_uint8(self.plan.model.decoded(x)) for x in pair] for pair in self.frames]
        strip, film = (path.with_name(f"{path.stem}_trajectory{end}") for end in (".png", ".gif"))
        chosen = pairs[:: -(-len(pairs) // 12)]
        chosen = chosen if chosen[-1] is pairs[-1] else [*chosen, pairs[-1]]
        followed = range(min(4, len(pairs[0][0])))
        rows = [pair[kind][i] for i in followed for kind in (0, 1) for pair in chosen]
        labels = ["x_t", "expected"] * len(followed)
        images.save(strip, images.sheet(np.stack(rows), columns=len(chosen), labels=labels))
        output.gif(film, [images.sheet(np.concatenate(pair), columns=len(pair[0])) for pair in pairs])
        return strip, film


def in_rows(
    tiles: np.ndarray,
    texts: list[str],
    count: int,
    first: int = 0,
    given: np.ndarray | None = None,
    wraps: bool = True,
) -> np.ndarray:
    """`count` rows that take turns, as the texts and the given images do, which stand before them; a single one wraps.

    `first` is the number of the first image.
    """
    rows = [list(tiles[(row - first) % count :: count]) for row in range(count)]
    labels = [texts[i % len(texts)] for i in range(count)] if texts else None
    if given is not None:
        rows = [[given[i % len(given)], *row] if row else [] for i, row in enumerate(rows)]
    if count == 1 and wraps:
        return images.sheet(np.stack(rows[0]), title=texts[0] if texts else None)
    columns, white = max(map(len, rows)), np.full_like(tiles[0], 255)
    filled = [tile for row in rows if row for tile in (*row, *[white] * (columns - len(row)))]
    labels = None if labels is None else [label for label, row in zip(labels, rows, strict=True) if row]
    return images.sheet(np.stack(filled), columns=columns, labels=labels)


def opened(plan: Plan, o: Namespace, numbers: range) -> list[output.Output]:
    """Where images go beside the picture; what an interrupted call wrote there of the same stays."""
    if o.npz is None and o.singles is None:
        return []
    given = b"".join(path.read_bytes() for path in (*(o.init or ()), *(o.mask or ())))
    changes = {name: getattr(o, name) for name in CHANGES}
    about = {
        "model": plan.model.name,
        "parameters": hashed((plan.model.params, plan.model.codec, plan.classifier and plan.classifier.params)),
        "how": plan.how(),
        "times": hashlib.sha256(plan.times.tobytes()).hexdigest(),
        "guidance": repr(plan.guidance),
        "told": plan.texts,
        "first": numbers[0],
        "period": plan.period,
        "edit": repr(changes) + hashlib.sha256(given).hexdigest(),
    }
    made: list[output.Output] = []
    with contextlib.ExitStack() as undone:
        if o.npz is not None:
            height, width, channels = plan.model.image_shape
            labelled = plan.labels_of(np.zeros(1, int)) is not None
            made.append(output.Npz(o.npz, len(numbers), (height, width, channels), labelled, about))
            undone.callback(made[0].close)
        if o.singles is not None:
            made.append(output.Singles(o.singles, numbers, about))
        undone.pop_all()
    return made


def hashed(arrays: Any) -> str:
    return hashlib.sha256(fingerprint(arrays).tobytes()).hexdigest()


# --- other ways -----------------------------------------------------------------------------------------------------


def outpainted(plan: Plan, o: Namespace, path: Path) -> int:
    """A picture of every given image under every label or prompt, with its borders painted; the exit code."""
    sides = o.outpaint.split(",")
    legal = len(sides) == 4 and all(side.strip().isdecimal() and int(side) < 2**12 for side in sides)
    if not legal or not any(map(int, sides)):
        raise ValueError(
            f"--outpaint takes pixels to the left, top, right and bottom, such as 0,0,28,0: got {o.outpaint!r}"
        )
    given = given_images(o.init, plan.model.image_shape, o.resize)
    times = o.num or plan.period * (o.per_label or 1) * len(given)
    turns = np.arange(times) // plan.period % len(given)
    print(f"{times} images of {plan.model.name}: {plan.how()}", file=sys.stderr)
    options = {name: value for name, value in plan.options().items() if name != "edit"}
    painting = editing.outpainting(plan.model, given[turns], *map(int, sides), batch_size=o.batch_size, **options)
    done, windows, canvas = next(painting)
    with contextlib.ExitStack() as closing:
        singles = [closing.enter_context(contextlib.closing(each)) for each in opened(plan, o, range(times))]
        try:
            with tqdm(total=windows, unit=" windows", disable=None) as bar, contextlib.suppress(KeyboardInterrupt):
                for done, *_ in painting:  # all of them on the one canvas
                    bar.update(done - bar.n)
        finally:  # also if memory ran out
            if done:
                tiles = images.to_uint8(canvas)
                show(path, in_rows(tiles, plan.texts, plan.period * len(given)), o.open)
        for each in singles if done == windows else []:
            labels = plan.labels_of(np.arange(times))
            each.write(tiles[each.done :], None if labels is None else labels[each.done :])
            each.finish()
            print(o.singles)
    if done == windows:
        return 0
    print(f"stopped at {done} of {windows} windows", file=sys.stderr)
    return 130


def exported(plan: Plan, path: Path) -> str:
    """The program that runs what was exported."""
    options = {
        name: value for name, value in plan.options().items() if name not in ("edit", "labels", "prompts", "seed")
    }
    return export.export(plan.model, path, **options)
