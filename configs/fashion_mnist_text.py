"""Fashion-MNIST from prompts: a text encoder trained along with the UNet that attends to it.

16 minutes on 2 busy CPU cores; the eight kinds that are shown can be recognised (docs/fashion_mnist_text.png).
"""

from jaxdiff.core import times
from jaxdiff.data import Tfds
from jaxdiff.models import Config, Prompts, edm
from jaxdiff.nets import GaussianFourier, Prompted, TextEncoder, UNet, Words
from jaxdiff.training import Adam, Ema, Schedule, Training

CLASSES = "t-shirt top trouser pullover dress coat sandal shirt sneaker bag ankle boot"
SHOWN = ("a t-shirt", "a trouser", "a pullover", "a dress", "a coat", "a sandal", "a sneaker", "an ankle boot")
TEMPLATES = ("{}", "a {}", "an {}", "a photo of a {}", "a picture of an {}", "one {} from the shop")
WORDS = Words.of([CLASSES, *(template.format("") for template in TEMPLATES)], length=12)

config = Config(
    system=edm(
        network=Prompted(
            UNet(
                channels=16,
                multipliers=(1, 2, 4),
                blocks=1,
                attention=(2,),
                noise_embedding=GaussianFourier(1.0),
                noise_width=64,
                embedding_width=256,
                text=True,
            ),
            TextEncoder(width=64),
        ),
        sigma_data=0.6,
        times=times.LogNormal(mean=0.0),
        condition=Prompts(
            WORDS,
            TEMPLATES,
            drop=0.1,
            shown=SHOWN,
        ),
        guidance_scale=2.0,
    ),
    data=Tfds("fashion_mnist"),
    held_out=Tfds("fashion_mnist", "test"),
    batch_size=64,
    training=Training(
        steps=3500,
        optimiser=Adam(2e-3, Schedule("cosine", warmup=200), weight_decay=0.01),
        averages=(Ema(0.999),),
        show_every=500,
    ),
)
