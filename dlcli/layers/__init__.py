"""Keras layers with weights or state that several architectures or tasks use, registered under "dlcli".

Importing this package is all that `keras.saving.load_model` needs to read a run's model.
"""

from dlcli.layers.answer_logits import AnswerLogits
from dlcli.layers.attention import Attention
from dlcli.layers.attention_pooling import AttentionPooling
from dlcli.layers.blur import Blur
from dlcli.layers.conditional_normalization import ConditionalScale
from dlcli.layers.dirac import Dirac
from dlcli.layers.equalized import EqualizedConv2D, EqualizedDense
from dlcli.layers.generated_images import GeneratedImages
from dlcli.layers.imputation import Imputation
from dlcli.layers.learned_constant import LearnedConstant
from dlcli.layers.local_normalization import LocalBatchNormalization
from dlcli.layers.masked_convolution import MaskedConv1D
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.minibatch_deviation import MinibatchDeviation
from dlcli.layers.modulated_convolution import ModulatedConv2D
from dlcli.layers.ngrams import HashedNGrams
from dlcli.layers.noise_injection import NoiseInjection
from dlcli.layers.noise_level_embedding import NoiseLevelEmbedding
from dlcli.layers.noise_prediction import NoisePrediction
from dlcli.layers.output_projection import ChosenTokens, TokenLogits
from dlcli.layers.patch_whitening import PatchWhitening
from dlcli.layers.pixel_scale import PixelScale
from dlcli.layers.positions import PositionEmbedding
from dlcli.layers.predictions import Predictions
from dlcli.layers.reflection_padding import ReflectionPadding2D
from dlcli.layers.spectral_normalization import SpectralConv2D, SpectralDense, SpectralEmbedding
from dlcli.layers.token_ids import PresetTokens, WithMask
from dlcli.layers.token_replacement import TokenReplacement
from dlcli.layers.tokens import Tokens
from dlcli.layers.transformer_block import TransformerBlock

__all__ = [
    "AnswerLogits",
    "Attention",
    "AttentionPooling",
    "Blur",
    "ChosenTokens",
    "ConditionalScale",
    "Dirac",
    "EqualizedConv2D",
    "EqualizedDense",
    "GeneratedImages",
    "HashedNGrams",
    "Imputation",
    "LearnedConstant",
    "LocalBatchNormalization",
    "MaskedConv1D",
    "MaskedPooling",
    "MinibatchDeviation",
    "ModulatedConv2D",
    "NoiseInjection",
    "NoiseLevelEmbedding",
    "NoisePrediction",
    "PatchWhitening",
    "PixelScale",
    "PositionEmbedding",
    "Predictions",
    "PresetTokens",
    "ReflectionPadding2D",
    "SpectralConv2D",
    "SpectralDense",
    "SpectralEmbedding",
    "TokenLogits",
    "TokenReplacement",
    "Tokens",
    "TransformerBlock",
    "WithMask",
]
