"""As folder128, told the class of the image: a subfolder each, or labels.csv. system.condition.classes is how many."""

from dataclasses import replace

from configs.folder128 import config as unconditional
from jaxdiff.conditions import Labels

system = unconditional.system
config = replace(
    unconditional,
    system=replace(
        system, network=system.network.clone(classes=10), condition=Labels(10, drop=0.1), guidance_scale=2.0, shown=20
    ),
)
