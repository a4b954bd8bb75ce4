"""MNIST by a tiny UNet of strided and transposed convolutions: 300 steps, betas 1e-4 to 0.02, five epochs.

Cost and result: not trained to its end here yet.
"""

from jaxdiff.averages import Ema
from jaxdiff.data import Tfds
from jaxdiff.experiment import Config
from jaxdiff.nets import SmallUNet
from jaxdiff.optimisers import Adam
from jaxdiff.process import Discrete, LinearBetas
from jaxdiff.samplers import DDPM
from jaxdiff.systems import Diffusion
from jaxdiff.training import Training

config = Config(
    system=Diffusion(
        network=SmallUNet(),
        process=Discrete(LinearBetas(300, 1e-4, 0.02)),
        sampler=DDPM(variance=1.0),
        steps=300,
        shown=8,
    ),
    data=Tfds("mnist"),
    batch_size=128,
    training=Training(steps=2345, optimiser=Adam(1e-4), averages=(Ema(0.99),), log_every=67, show_every=469),
)
