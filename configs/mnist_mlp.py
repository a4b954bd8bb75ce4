"""MNIST by a perceptron in twenty steps, betas from 0.001 to 0.7: linear layers and SiLU, with step and label.

6 minutes on 2 busy CPU cores; blurred, but most digits can be named (docs/mnist_mlp.png).
"""

from jaxdiff.core import predictions, weightings
from jaxdiff.core.samplers import DDPM
from jaxdiff.core.tables import Discrete, LinearBetas
from jaxdiff.data import Tfds
from jaxdiff.models import Config, Diffusion, Labels
from jaxdiff.nets import MLP
from jaxdiff.training import Adam, Ema, Schedule, Training

config = Config(
    system=Diffusion(
        network=MLP(widths=(768, 768, 768), classes=10),
        process=Discrete(LinearBetas(20, 0.001, 0.7)),
        prediction=predictions.data,  # 784 numbers of noise do not pass through layers this narrow; a digit does
        weighting=weightings.MinSNR(5.0),
        condition=Labels(10, drop=0.1),
        sampler=DDPM(),  # DDPM(noise=0.0) leaves the noise out
        steps=20,
        shown=50,
    ),
    data=Tfds("mnist"),
    held_out=Tfds("mnist", "test"),
    batch_size=256,
    training=Training(
        steps=10_000,
        optimiser=Adam(1e-3, Schedule("cosine", warmup=200)),
        averages=(Ema(0.999),),
        show_every=2500,
    ),
)
