"""The images of one call as they come: each batch goes to all outputs, and the first ones into a picture."""

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from jaxdiff.base import pictures
from jaxdiff.base.console import say
from jaxdiff.base.devices import Devices, agreed, gathered, is_first
from jaxdiff.base.words import duration, plural, speed
from jaxdiff.cli import output
from jaxdiff.cli.halving import halving
from jaxdiff.cli.plan import IN_PICTURE, Plan
from jaxdiff.core.sampling import Progress
from jaxdiff.data.examples import Images
from jaxdiff.models.exhibits import frame
from jaxdiff.training.loop import StopAsked

AT_A_TIME = 64  # images of up to 128x128, on each GPU or TPU
FRAMES, FOLLOWED = 24, 8  # of a trajectory, and of how many images


def batch_size(plan: Plan) -> int:
    """How many images at a time, by each process."""
    usual = max(int(Devices().for_each(AT_A_TIME) / _larger(plan)), 1)
    return min(plan.batch_size or usual, -(-plan.count // jax.process_count()))


def _larger(plan: Plan) -> float:
    """How often images are larger than those that all fit at once."""
    return max(int(np.prod(plan.model.image_shape[:2])) / 128**2, 1.0)


class Pace:
    """How fast images come, once the first steps are done, which are compiled before."""

    def __init__(self, before: int) -> None:
        self._before, self._begin = before, time.perf_counter()
        self.seen: tuple[float, float] | None = None  # what was drawn first, in images, and when

    def see(self, drawn: float) -> None:
        self.seen = self.seen or (drawn, time.perf_counter())

    def summary(self, done: int) -> str:
        now, count = time.perf_counter(), done - self._before
        said = f"{plural(count, 'image')} in {duration(now - self._begin)}"
        if count <= 1 or self.seen is None or done <= self.seen[0]:  # of one alone it is its speed too
            return said
        rate = (done - self.seen[0]) / (now - self.seen[1])
        return f"{said}, once compiled {speed(rate)}"


class Drawing:
    """The images of one call: each batch goes to all outputs, and the first ones into a picture.

    Of several processes each draws its share, and all see all images; the first one has the outputs and the picture.
    """

    def __init__(self, plan: Plan, outputs: list[output.Output]) -> None:
        self.plan, self.numbers, self.outputs = plan, plan.numbers, outputs
        self.size = batch_size(plan)
        self.fixed = plan.batch_size is not None
        self.in_picture = max(int(IN_PICTURE / _larger(plan)), 1)
        self.follows = plan.places.trajectory
        self.done = int(gathered(np.array([min((each.done for each in outputs), default=0)]))[0])
        self.kept = [outputs[0].read(0, min(self.done, self.in_picture))] if self.done and outputs else []
        self.frames: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self) -> bool:
        """Whether all are drawn: Ctrl-C keeps what is finished."""
        if self.done:
            say(f"{self.done:,} of them are there already")
            if self.follows:
                say("their way is not seen again: --trajectory needs a call that begins")
        before, self.pace = self.done, Pace(self.done)
        self.bar = tqdm(disable=True)  # until something is seen, which is late: it is compiled first
        with contextlib.closing(self), warnings.catch_warnings(), contextlib.suppress(KeyboardInterrupt):
            warnings.filterwarnings("ignore", "some images are not finite")  # this says it better
            for x in self._batches():
                finite = np.isfinite(x).all((1, 2, 3))
                if not finite.all():
                    what = f"image {self.numbers[self.done + int(finite.argmin())]} is not finite"
                    raise ValueError(f"{what}: take more --steps or --max_steps, less guidance, or another --sampler")
                self._take(pictures.to_uint8(x))
        if self.done > before:
            say(self.pace.summary(self.done))
        return self.done == len(self.numbers)

    def close(self) -> None:
        self.bar.close()

    def _batches(self) -> Iterator[np.ndarray]:
        """All that are left."""
        parts = jax.process_count()
        if parts == 1:
            yield from self._of(self.numbers[self.done :])
            return
        together = parts * self.size
        with StopAsked() as stop:  # for all of them at once
            for first in range(self.done, len(self.numbers), together):
                if agreed(stop.by is not None):
                    return
                some = np.asarray(self.numbers[first : first + together])
                share = -(-len(some) // parts)
                mine = np.resize(some, (parts, share))[jax.process_index()]
                yield gathered(np.concatenate(list(self._of(mine))))[: len(some)]

    def _of(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Fewer at a time if memory runs out."""
        return halving(lambda done, size: self._some(numbers[done:], size), len(numbers), self.size, self.fixed)

    def _some(self, numbers: Sequence[int], size: int) -> Iterator[np.ndarray]:
        """A thousand or so at a time, since each call holds the conditions of its images."""
        self.size = size
        if not self.done:
            self.frames.clear()  # of a batch that was too large
        together, steps = size * max(IN_PICTURE // size, 1), len(self.plan.times) - 1
        for first in range(0, len(numbers), together):
            batches = self.plan.model.batches(
                numbers[first : first + together],
                batch_size=size,
                callback=self._seen,
                every=max(steps // FRAMES, 1),
                **self.plan.options(),
            )
            yield from (x for _, x in batches)

    def _take(self, batch: np.ndarray) -> None:
        labels = self.plan.labels_of(np.asarray(self.numbers[self.done : self.done + len(batch)]))
        for each in self.outputs:
            new = slice(each.done - self.done, None)  # of several, one may have got further before
            if each.done < self.done + len(batch):
                each.write(batch[new], None if labels is None else labels[new])
        if self.done < self.in_picture and is_first():
            self.kept.append(batch)
        self.done += len(batch)
        self.bar.update(self.done - self.bar.n)

    def _seen(self, progress: Progress) -> None:
        """Moves the bar; keeps frames of the first images if their way is to be shown."""
        drawn = self.done + progress.step / progress.steps * len(progress.indices) * jax.process_count()
        if self.pace.seen is None:
            hidden = None if is_first() else True  # None: where nobody looks
            total, many = len(self.numbers), {"unit": " images", "disable": hidden, "dynamic_ncols": True}
            self.bar = tqdm(total=total, initial=int(drawn), **many)
        self.pace.see(drawn)
        self.bar.update(int(drawn) - self.bar.n)
        if self.follows and progress.indices[0] == self.numbers[0]:
            self.frames.append(frame(self.plan.model, self.plan.times, progress, FOLLOWED))

    # --- pictures ---------------------------------------------------------------------------------------------------

    def picture(self) -> np.ndarray:
        """Of the first images."""
        return self.picture_of(np.concatenate(self.kept))

    def picture_of(self, images: Images) -> np.ndarray:
        """A row for each label or prompt and given image, which stands first; of one alone a square."""
        tiles = images[np.arange(min(len(images), self.in_picture))]
        texts, edit = self.plan.texts, self.plan.edit
        given = None if edit is None or edit.shown is None else pictures.to_uint8(edit.shown)
        if self.plan.in_order:  # images from one to another are a row
            return in_rows(tiles, texts, max(len(texts), 1), self.numbers[0], wraps=False)
        return in_rows(tiles, texts, self.plan.period, self.numbers[0], given)

    def film(self) -> Path:
        """Images that go from one to another, as a GIF: all rows at once."""
        tiles, rows, path = np.concatenate(self.kept), max(len(self.plan.texts), 1), self.plan.places.picture
        frames = [tiles[start : start + rows] for start in range(0, len(tiles) - rows + 1, rows)]
        film = path.with_name(f"{path.stem}_film.gif")
        output.gif(film, [pictures.sheet(frame, columns=rows) for frame in frames])
        return film

    def trajectory(self) -> tuple[Path, Path]:
        """A strip and a GIF, of x_t and of the clean image expected."""
        path = self.plan.places.picture
        pairs = [[pictures.to_uint8(self.plan.model.decoded(x)) for x in pair] for pair in self.frames]
        strip, film = (path.with_name(f"{path.stem}_trajectory{end}") for end in (".png", ".gif"))
        chosen = pairs[:: -(-len(pairs) // 12)]
        chosen = chosen if chosen[-1] is pairs[-1] else [*chosen, pairs[-1]]
        followed = range(min(4, len(pairs[0][0])))
        rows = [pair[kind][i] for i in followed for kind in (0, 1) for pair in chosen]
        labels = ["x_t", "expected"] * len(followed)
        pictures.save(strip, pictures.sheet(np.stack(rows), columns=len(chosen), labels=labels))
        output.gif(film, [pictures.sheet(np.concatenate(pair), columns=len(pair[0])) for pair in pairs])
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
        return pictures.sheet(np.stack(rows[0]), title=texts[0] if texts else None)
    labels = None if labels is None else [label for label, row in zip(labels, rows, strict=True) if row]
    return pictures.sheet_of_rows([row for row in rows if row], labels)
