"""How fast do examples come, and in how much memory? Each kind of data in a process of its own.

    python benchmarks/input_pipeline.py --data DIR

DIR may hold `tfds`, prepared data sets of TensorFlow Datasets (mnist, cifar10), and `images`, a folder or a .zip of
image files; what is not there is left out. `first` is the first opening, which decodes all images once; `batches` and
`ahead` are shuffled batches of 128, got one by one, and got ready by threads while the last one is used; all three in
images/s. `peak MB` is the most the process held, mapped files included; `held MB` what it holds besides, in the end.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxdiff.data import Arrays, Batches, Digits, Folder, Source, Tfds

BATCH = 128


def sources(data: Path, scratch: Path) -> dict[str, tuple[Source, bool]]:
    """By name: a source, and whether it may fill the cache."""
    images = next((path for path in (data / "images", data / "images.zip") if path.exists()), None)
    found: dict[str, tuple[Source, bool]] = {"Digits, 8x8x1": (Digits(), False), "Digits, 28x28x1": (Digits(28), False)}
    for name, shape in (("mnist", "28x28x1"), ("cifar10", "32x32x3")):
        if (data / "tfds" / name).exists():
            found[f"Tfds {name}, {shape}, cached"] = (Tfds(name), True)
            found[f"Tfds {name}, {shape}"] = (Tfds(name), False)
    if images is not None:
        found["Folder, 128x128x3, cached"] = (Folder(str(images), 128, labels="none"), True)
        found["Folder, 128x128x3"] = (Folder(str(images), 128, labels="none"), False)
    found["Arrays (.npy), 64x64x3"] = (Arrays(str(scratch / "images.npy")), False)
    return found


def rate(batches: Batches, seconds: float, ahead: bool) -> float:
    """Images a second over about so many seconds, after a first epoch or second."""
    count, start = 0, time.perf_counter()
    warm = False
    for batch in batches.ahead(0, 10**9) if ahead else map(batches.__getitem__, range(10**9)):
        count += len(batch["index"])
        passed = time.perf_counter() - start
        if not warm and (passed > 1 or count >= len(batches)):
            warm, count, start = True, 0, time.perf_counter()
        elif warm and passed > seconds:
            break
    return count / passed


def memory() -> tuple[float, float]:
    """MB: the peak of all, and what is not a mapped file now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, int(status["RssAnon"].split()[0]) / 1e3


def measure(source: Source, cache: bool, seconds: float) -> dict[str, float]:
    """What one row of the table says."""
    start = time.perf_counter()
    examples = source.open(cache)
    first = len(examples) / (time.perf_counter() - start)
    fields = {"image": examples.images}
    if examples.labels is not None:
        fields["label"] = examples.labels
    batches = Batches(fields, BATCH)
    rates = [rate(batches, seconds, ahead) for ahead in (False, True)]
    peak, held = memory()
    return {"images": len(examples), "first": first, "batches": rates[0], "ahead": rates[1], "peak": peak, "held": held}


def in_a_process(arguments: list[str], name: str, cache: str) -> dict[str, float]:
    command = [sys.executable, __file__, *arguments, "--only", name]
    child = subprocess.run(command, env=os.environ | {"JAXDIFF_CACHE": cache}, stdout=subprocess.PIPE, check=True)
    return json.loads(child.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("."), help="where tfds and images are")
    parser.add_argument("--seconds", type=float, default=3.0, help="to measure each rate for")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["TFDS_DATA_DIR"] = str(options.data / "tfds")
    if options.only:
        source, cache = sources(options.data, options.scratch)[options.only]
        print(json.dumps(measure(source, cache, options.seconds)))
        return
    print("| source | images | first | batches | ahead | peak MB | held MB |")
    print("|" + " --- |" * 7)
    with tempfile.TemporaryDirectory() as scratch:
        np.save(Path(scratch) / "images.npy", np.zeros((20_000, 64, 64, 3), np.uint8))
        arguments = ["--data", str(options.data), "--seconds", str(options.seconds), "--scratch", scratch]
        for name in sources(options.data, Path(scratch)):
            with tempfile.TemporaryDirectory(dir=scratch) as empty:
                row = in_a_process(arguments, name, empty)
            print(f"| {name} | " + " | ".join(f"{value:,.0f}" for value in row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
