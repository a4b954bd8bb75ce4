"""CIFAR-10 from prompts: attention to the words of a text encoder that is trained along, AdamW, a cosine schedule.

Cost and result: not trained to its end here yet. Compiled for an H100 it takes at least 46 minutes,
for a TPU v5e 1.7 hours.
"""

from jaxdiff.data import Tfds
from jaxdiff.data.augment import Augment
from jaxdiff.models import Config, Prompts, edm
from jaxdiff.nets import GaussianFourier, Prompted, TextEncoder, UNet, Words
from jaxdiff.training import Adam, Ema, Schedule, Training

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
TEMPLATES = ("{}", "a {}", "an {}", "a photo of a {}", "a picture of an {}", "a small image of one {}")
WORDS = Words.of([CLASSES, *(template.format("") for template in TEMPLATES)], length=12)

config = Config(
    system=edm(
        network=Prompted(
            UNet(multipliers=(1, 2, 2), blocks=3, dropout=0.1, noise_embedding=GaussianFourier(1.0), text=True),
            TextEncoder(),
        ),
        condition=Prompts(WORDS, TEMPLATES, drop=0.1, shown=tuple(f"a photo of a {name}" for name in CLASSES.split())),
        guidance_scale=2.0,
        shown=80,
    ),
    data=Tfds("cifar10"),
    held_out=Tfds("cifar10", "test"),
    augment=Augment(flip=True),
    batch_size=128,
    training=Training(
        steps=200_000,
        optimiser=Adam(2e-4, Schedule("cosine", warmup=5000), weight_decay=0.01, clip=1.0),
        averages=(Ema(0.9999),),
        show_every=5000,
        save_every=2500,
    ),
)
