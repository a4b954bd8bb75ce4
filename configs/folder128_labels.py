"""As folder128, conditional on the class of the image: a subfolder for each, or labels.csv.

Cost and result: not trained to its end here yet.
"""

from dataclasses import replace

from configs.folder128 import config as unconditional
from configs.folder128 import system
from jaxdiff.models import Labels

CLASSES = 10  # as many as there are

config = replace(
    unconditional,
    system=replace(
        system,
        network=system.network.clone(classes=CLASSES),
        condition=Labels(CLASSES, drop=0.1),
        guidance_scale=2.0,
        shown=20,
    ),
)
