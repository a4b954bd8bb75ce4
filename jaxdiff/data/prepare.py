"""Prepares a data set of TensorFlow Datasets for reading in any order: python jaxdiff/data/prepare.py NAME

To be run as a process of its own, since it takes TensorFlow. If it fails, the last line it prints says why.
"""

import os
import sys
from importlib.util import find_spec


def main() -> str | None:
    """None, or what went wrong."""
    (name,) = sys.argv[1:]
    if find_spec("tensorflow") is None:
        return "that takes TensorFlow, once: pip install tensorflow-cpu (reading it later does not)"
    import tensorflow_datasets as tfds

    try:
        tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"), file_format="array_record").download_and_prepare()
    except Exception as error:  # of the network, the disk, or the data set's own code
        return f"{type(error).__name__}, {' '.join(str(error).split())[:300]} (it is downloaded: is there a network?)"
    return None


if __name__ == "__main__":
    failure = main()
    if failure:
        print(failure)
        sys.exit(1)
