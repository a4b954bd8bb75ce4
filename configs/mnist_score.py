"""MNIST by a score SDE: noise whose diffusion is 25^t, Gaussian Fourier features, predictor and corrector.

30 minutes on 2 busy CPU cores; most digits can be named (docs/mnist_score.png).
"""

from jaxdiff import denoise
from jaxdiff.averages import Ema
from jaxdiff.data import Tfds
from jaxdiff.experiment import Config
from jaxdiff.grids import Uniform
from jaxdiff.nets.unet import SCORE
from jaxdiff.optimisers import Adam, Schedule
from jaxdiff.process import PowerVE
from jaxdiff.samplers import PredictorCorrector
from jaxdiff.systems import Diffusion
from jaxdiff.training import Training

config = Config(
    system=Diffusion(
        network=SCORE.clone(channels=16),
        process=PowerVE(25.0),
        input_scale=denoise.UnitVariance(0.6),
        told=denoise.time,
        sampler=PredictorCorrector(),
        grid=Uniform(last=1e-3),
        steps=200,
    ),
    data=Tfds("mnist"),
    batch_size=64,
    training=Training(
        steps=3000, optimiser=Adam(1e-3, Schedule("cosine", warmup=200)), averages=(Ema(0.999),), show_every=1500
    ),
)
