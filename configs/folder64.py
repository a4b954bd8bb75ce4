"""As folder128, at 64x64 and with a smaller network, for a laptop: a dry run says 2 GB for a step on a CPU.

Cost and result: not trained to its end here yet.
"""

from dataclasses import replace

from configs.folder128 import config as larger
from configs.folder128 import system
from jaxdiff.data import Folder

network = system.network.clone(channels=48, multipliers=(1, 2, 2, 4), attention=(3,), head_channels=48)
config = replace(larger, system=replace(system, network=network), data=Folder("images", size=64))
