"""Digits of 8x8 pixels enlarged to 32x32, with labels: the smallest model worth looking at.

Patches of 4x4 make them 8x8 again for the network, which has hardly more to compute than for the digits as they are.
Two minutes on 2 slow CPU cores, of which 42 seconds are compiling (docs/learn_digits.png).
"""

from jaxdiff.core import samplers, times
from jaxdiff.data import Digits
from jaxdiff.models import Config, Labels, edm
from jaxdiff.nets import GaussianFourier, UNet
from jaxdiff.training import Ema, Muon, Schedule, Training

config = Config(
    system=edm(
        network=UNet(
            channels=32,
            multipliers=(1, 2),
            blocks=1,
            attention=(1,),
            patch=4,
            noise_embedding=GaussianFourier(1.0),
            classes=10,
        ),
        sigma_data=0.6,
        times=times.LogNormal(mean=0.5),  # an enlarged image is still seen through more noise
        condition=Labels(10, drop=0.1),
        sampler=samplers.DPMpp2M(eta=1.0),
        guidance_scale=1.5,
        shown=80,
    ),
    data=Digits(size=32),
    batch_size=64,
    training=Training(
        steps=500,
        optimiser=Muon(6e-3, Schedule("cosine", warmup=50)),
        averages=(Ema(0.99),),
        log_every=50,
        show_every=250,
        save_every=250,
    ),
)
