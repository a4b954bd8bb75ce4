"""MNIST with labels, by EDM's preconditioning and noise levels (Karras et al. 2022), and Muon.

20 minutes on 2 slow CPU cores, 28 on one, both with other work; nearly every digit can be named (docs/mnist.png).
"""

from jaxdiff.core import times
from jaxdiff.data import Tfds
from jaxdiff.models import Config, Labels, edm
from jaxdiff.nets import GaussianFourier, UNet
from jaxdiff.training import Ema, Muon, Schedule, Training

system = edm(
    network=UNet(
        channels=16,
        multipliers=(1, 2, 4),
        blocks=1,
        attention=(2,),
        noise_embedding=GaussianFourier(1.0),
        noise_width=64,
        embedding_width=256,
        classes=10,
    ),
    sigma_data=0.6,
    times=times.LogNormal(mean=0.0),  # a digit is decided at levels of 1 to 8
    condition=Labels(10, drop=0.1),
    guidance_scale=1.5,
    shown=80,
)
config = Config(
    system=system,
    data=Tfds("mnist"),
    held_out=Tfds("mnist", "test"),
    batch_size=64,
    training=Training(
        steps=2000,
        optimiser=Muon(6e-3, Schedule("cosine", warmup=100)),
        averages=(Ema(0.998),),
        show_every=500,
    ),
)
