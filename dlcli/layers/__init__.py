"""Keras layers with weights or state that several architectures or tasks use, registered under "dlcli".

Importing this package is all that `keras.saving.load_model` needs to read a run's model.
"""

from dlcli.layers.dirac import Dirac
from dlcli.layers.imputation import Imputation
from dlcli.layers.patch_whitening import PatchWhitening
from dlcli.layers.predictions import Predictions
from dlcli.layers.tokens import Tokens

__all__ = ["Dirac", "Imputation", "PatchWhitening", "Predictions", "Tokens"]
