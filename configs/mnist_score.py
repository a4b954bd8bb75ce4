"""MNIST by a score SDE: noise whose diffusion is 25^t, Gaussian Fourier features, predictor and corrector.

30 minutes on 2 busy CPU cores; most digits can be named (docs/mnist_score.png).
"""

from jaxdiff.core import c_noise, inputs
from jaxdiff.core.grids import Uniform
from jaxdiff.core.process import PowerVE
from jaxdiff.core.samplers import PredictorCorrector
from jaxdiff.data import Tfds
from jaxdiff.models import Config, Diffusion
from jaxdiff.nets.unet import SCORE
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Diffusion(
        network=SCORE.clone(channels=16),
        process=PowerVE(25.0),
        input_scale=inputs.UnitVariance(0.6),
        c_noise=c_noise.time,
        sampler=PredictorCorrector(),
        grid=Uniform(),
        steps=200,
    ),
    data=Tfds("mnist"),
    held_out=Tfds("mnist", "test"),
    batch_size=64,
    training=Training(
        steps=3000, optimiser=Adam(1e-3, Schedule("cosine", warmup=200)), averages=(Ema(0.999),), show_every=1500
    ),
)
