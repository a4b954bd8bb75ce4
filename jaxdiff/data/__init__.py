"""Images to learn from: a source says where they are, `open` gives them, `Batches` are a pure function of the step."""

from jaxdiff.data.arrays import Arrays
from jaxdiff.data.batches import Batches
from jaxdiff.data.digits import Digits
from jaxdiff.data.examples import Examples, Source
from jaxdiff.data.folder import Folder
from jaxdiff.data.hub import Hub
from jaxdiff.data.tfds import Tfds

__all__ = ["Arrays", "Batches", "Digits", "Examples", "Folder", "Hub", "Source", "Tfds"]
