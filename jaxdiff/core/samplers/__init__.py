"""Samplers: each walks a denoiser down a grid of times, one image at a time, by steps that read like the paper.

Throughout t is now and s is next, x_0 the expected clean image, eps the noise that goes with it, h a step of lambda,
half the log-SNR. A step to sigma(s) = 0 is the last: it arrives at x_0, whatever the sampler (but for `Langevin`,
which corrects and does not step). To write one of your own, see `Sampler`.
"""

from jaxdiff.core.samplers.ancestral import DDIM as DDIM
from jaxdiff.core.samplers.ancestral import DDPM as DDPM
from jaxdiff.core.samplers.base import Sampler as Sampler
from jaxdiff.core.samplers.jumps import Consistency as Consistency
from jaxdiff.core.samplers.jumps import Jump as Jump
from jaxdiff.core.samplers.multistep import DPMpp2M as DPMpp2M
from jaxdiff.core.samplers.multistep import UniPC as UniPC
from jaxdiff.core.samplers.ode import EDM as EDM
from jaxdiff.core.samplers.ode import AdaptiveODE as AdaptiveODE
from jaxdiff.core.samplers.ode import DPMpp2S as DPMpp2S
from jaxdiff.core.samplers.ode import Euler as Euler
from jaxdiff.core.samplers.ode import Heun as Heun
from jaxdiff.core.samplers.sde import EulerMaruyama as EulerMaruyama
from jaxdiff.core.samplers.sde import Langevin as Langevin
from jaxdiff.core.samplers.sde import PredictorCorrector as PredictorCorrector
from jaxdiff.core.samplers.sde import Resampling as Resampling
from jaxdiff.core.samplers.sde import ReverseDiffusion as ReverseDiffusion
