"""Networks from and to folders of Hugging Face's diffusers, without PyTorch and without running anything in them."""

from jaxdiff.interop.diffusers import read as read
from jaxdiff.interop.diffusers import read_codec as read_codec
from jaxdiff.interop.diffusers import write as write
from jaxdiff.interop.diffusers import write_codec as write_codec
from jaxdiff.interop.pipeline import Pipeline as Pipeline
from jaxdiff.interop.pipeline import read_pipeline as read_pipeline
