"""What the tests walk over: processes, samplers, and denoisers whose answers are known."""

from functools import partial

from jaxdiff import grids, process, samplers
from jaxdiff.exact import Mixture

PROCESSES = (
    process.Discrete(),
    process.Discrete(process.LinearBetas(20, 0.001, 0.7)),
    process.Discrete(process.ZeroTerminalSNR(process.ScaledLinearBetas())),
    process.VP(),
    process.SubVP(),
    process.Cosine(),
    process.Flow(),
    process.VE(),
    process.PowerVE(),
    process.Karras(),
)
DETERMINISTIC = (
    samplers.DDPM(noise=0.0),
    samplers.DDIM(),
    samplers.Euler(),
    samplers.Heun(),
    samplers.EDM(),
    samplers.DPMpp2S(),
    samplers.DPMpp2M(),
    samplers.UniPC(1),
    samplers.UniPC(2),
    samplers.UniPC(3),
    samplers.AdaptiveODE(),
)
STOCHASTIC = (
    samplers.DDPM(),
    samplers.DDPM(variance=0.5, noise=0.5),
    samplers.DDPM(variance=1.0),
    samplers.DDIM(eta=0.5),
    samplers.EDM(churn=4.0),
    samplers.DPMpp2M(eta=1.0),
    samplers.EulerMaruyama(),
    samplers.ReverseDiffusion(),
    samplers.Langevin(),
    samplers.PredictorCorrector(),
)
SAMPLERS = DETERMINISTIC + STOCHASTIC
GAUSSIAN = Mixture((0.3,), 0.5)


def name(value):
    if isinstance(value, process.Discrete):
        return f"{type(value).__name__}({type(value.betas).__name__}{value.steps})"
    return getattr(value, "__name__", str(value))


def gaussian(process):
    return partial(GAUSSIAN.denoise, process)


def grid_for(sampler, process, steps):
    """A grid from noise to clean data on which the sampler is at home."""
    if isinstance(sampler, samplers.AdaptiveODE):
        return grids.Uniform(first=process.t_max)(process, 1)
    return grids.LogSNR()(process, steps)
