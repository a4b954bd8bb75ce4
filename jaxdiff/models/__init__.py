"""What is put together: systems to train, conditions, the config of a run, models to sample from and to edit with."""

from jaxdiff.models.autoencoding import Autoencoding as Autoencoding
from jaxdiff.models.classification import Classification as Classification
from jaxdiff.models.conditions import Labels as Labels
from jaxdiff.models.conditions import Prompts as Prompts
from jaxdiff.models.config import Config as Config
from jaxdiff.models.diffusion import Diffusion as Diffusion
from jaxdiff.models.diffusion import edm as edm
