"""Prepares a data set of TensorFlow Datasets for reading in any order: python -m jaxdiff.data.prepare NAME

To be run as a process of its own, since most take TensorFlow. If it fails, the last line it prints says why.
"""

import os
import sys
from importlib.util import find_spec
from typing import Any


def prepare(name: str) -> None:
    """A ValueError says what went wrong."""
    import tensorflow_datasets as tfds

    from jaxdiff.base.files import is_full
    from jaxdiff.data import originals

    without, there = name.partition(":")[0] in originals.FORMS, find_spec("tensorflow") is not None
    if not (without or there):
        raise ValueError(
            f"that takes TensorFlow, once: pip install tensorflow-cpu (reading it later does not, and "
            f"{', '.join(originals.FORMS)} are prepared without)"
        )
    builder = None
    try:
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"), file_format="array_record")
        if without:
            originals.prepare(builder)
        else:
            builder.download_and_prepare()
    except ValueError:
        raise
    except Exception as error:  # of the network, the disk, or the data set's own code
        if is_full(error):
            raise ValueError(f"no space is left: {error}") from None
        message = " ".join(str(error).split()).partition(" using instructions:")[0][:300]  # which come below
        raise ValueError(f"{type(error).__name__}, {message} ({_cure(builder)})") from None


def _cure(builder: Any) -> str:
    by_hand = (getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None) or "").strip()
    return f"its files are fetched by hand: {by_hand}" if by_hand else "it is downloaded: is there a network?"


def main() -> int:
    """Prepares what is named on the command line; the exit code."""
    try:
        prepare(*sys.argv[1:])
    except ValueError as error:
        print(" ".join(str(error).split()))
        return 1
    except KeyboardInterrupt:  # the process that waits says so
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
