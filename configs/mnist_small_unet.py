"""MNIST by a tiny UNet of strided and transposed convolutions: 300 steps, betas 1e-4 to 0.02, five epochs.

14 minutes on 2 busy CPU cores; about half of the digits can be named (docs/mnist_small_unet.png). With the usual rate
of 1e-4, kept constant, five epochs are too few: the loss ends at 0.063 rather than 0.047, and none can be named.
"""

from jaxdiff.core.samplers import DDPM
from jaxdiff.core.tables import Discrete, LinearBetas
from jaxdiff.data import Tfds
from jaxdiff.models import Config, Diffusion
from jaxdiff.nets import SmallUNet
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Diffusion(
        network=SmallUNet(),
        process=Discrete(LinearBetas(300, 1e-4, 0.02)),
        sampler=DDPM(variance=1.0),
        steps=300,
        shown=8,
    ),
    data=Tfds("mnist"),
    held_out=Tfds("mnist", "test"),
    batch_size=128,
    training=Training(
        steps=2345,
        optimiser=Adam(2e-3, Schedule("cosine", warmup=100)),
        averages=(Ema(0.995),),
        log_every=67,
        show_every=469,
    ),
)
