"""Keras layers with weights or state that several architectures or tasks use, registered under "dlcli".

Importing this package is all that `keras.saving.load_model` needs to read a run's model.
"""

from dlcli.layers.answer_logits import AnswerLogits
from dlcli.layers.attention import Attention
from dlcli.layers.attention_pooling import AttentionPooling
from dlcli.layers.dirac import Dirac
from dlcli.layers.generated_images import GeneratedImages
from dlcli.layers.imputation import Imputation
from dlcli.layers.masked_convolution import MaskedConv1D
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.ngrams import HashedNGrams
from dlcli.layers.output_projection import ChosenTokens, TokenLogits
from dlcli.layers.patch_whitening import PatchWhitening
from dlcli.layers.positions import PositionEmbedding
from dlcli.layers.predictions import Predictions
from dlcli.layers.token_ids import PresetTokens, WithMask
from dlcli.layers.token_replacement import TokenReplacement
from dlcli.layers.tokens import Tokens
from dlcli.layers.transformer_block import TransformerBlock

__all__ = [
    "AnswerLogits",
    "Attention",
    "AttentionPooling",
    "ChosenTokens",
    "Dirac",
    "GeneratedImages",
    "HashedNGrams",
    "Imputation",
    "MaskedConv1D",
    "MaskedPooling",
    "PatchWhitening",
    "PositionEmbedding",
    "Predictions",
    "PresetTokens",
    "TokenLogits",
    "TokenReplacement",
    "Tokens",
    "TransformerBlock",
    "WithMask",
]
