"""Networks, (x, c_noise, condition) -> an image: plain flax.linen, of any leading axes, values that print as made."""

from jaxdiff.nets.autoencoder import Autoencoder as Autoencoder
from jaxdiff.nets.autoencoder import Codec as Codec
from jaxdiff.nets.blocks import SelfConditioned as SelfConditioned
from jaxdiff.nets.blocks import Text as Text
from jaxdiff.nets.bound import Bound as Bound
from jaxdiff.nets.classifier import EncoderUNet as EncoderUNet
from jaxdiff.nets.dit import DiT as DiT
from jaxdiff.nets.layers import GaussianFourier as GaussianFourier
from jaxdiff.nets.layers import Positional as Positional
from jaxdiff.nets.small import MLP as MLP
from jaxdiff.nets.small import SmallUNet as SmallUNet
from jaxdiff.nets.text import Bytes as Bytes
from jaxdiff.nets.text import Prompted as Prompted
from jaxdiff.nets.text import TextEncoder as TextEncoder
from jaxdiff.nets.text import Words as Words
from jaxdiff.nets.unet import UNet as UNet
