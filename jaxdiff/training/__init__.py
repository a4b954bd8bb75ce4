"""Training anything that has a loss of one example: State, the step, the loop. Nothing here knows of diffusion."""

from jaxdiff.training.averages import Ema as Ema
from jaxdiff.training.averages import PowerEma as PowerEma
from jaxdiff.training.optimisers import Adam as Adam
from jaxdiff.training.optimisers import Muon as Muon
from jaxdiff.training.optimisers import Schedule as Schedule
from jaxdiff.training.state import Training as Training
