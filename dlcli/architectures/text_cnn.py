"""The convolutional network for sentences."""

from __future__ import annotations

import keras

from dlcli.architectures.blocks import activate
from dlcli.layers.masked_convolution import MaskedConv1D
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.recipe.arguments import Activation, PositiveInt, Rate, Sequence


def text_cnn(
    inputs: keras.KerasTensor,
    vocabulary_size: int,
    max_length: int,
    *,
    filter_widths: Sequence[PositiveInt] = (3, 4, 5),
    filters: PositiveInt = 100,
    embedding_width: PositiveInt = 300,
    activation: Activation = "relu",
    dropout: Rate = 0.5,
) -> keras.KerasTensor:
    """Filters over windows of words and the maximum of each over the text (Kim 2014, section 2): CNN-rand.

    Each token has a window around it, which sees zeros beyond the ends of the text; so texts shorter than a window
    work, and padding never wins. The paper's code likewise lays zeros around each sentence. The convolutions have
    360,300 parameters in the paper's setting. Its constraint on the norm of the output layer's weights is left out:
    Zhang & Wallace 2017 found that it changes little.

    Args:
        inputs: int32 (B, T), 0 for padding.
        vocabulary_size: Tokens, the special ones included.
        max_length: Not needed: any length can be read.
        filter_widths: Tokens in a window; one convolution for each.
        filters: Filters of each convolution.
        embedding_width: Width of the token embedding.
        activation: Of the convolutions.
        dropout: Share of the features set to zero in training.

    Returns:
        (B, filters * len(filter_widths)).

    Raises:
        ValueError: No filter widths.
    """
    if not filter_widths:
        raise ValueError("Expected at least one of filter_widths. Received: filter_widths=[]")
    # The paper draws words that no pretrained vector is known for from U[-0.25, 0.25].
    initializer = keras.initializers.RandomUniform(-0.25, 0.25)
    embedding = keras.layers.Embedding(
        vocabulary_size, embedding_width, mask_zero=True, embeddings_initializer=initializer
    )
    words = embedding(inputs)  # (B, T, embedding_width)
    features = []
    for width in filter_widths:
        windows = activate(MaskedConv1D(filters, width)(words), activation)  # (B, T, filters)
        features.append(MaskedPooling("max")(windows))
    x = keras.layers.Concatenate()(features) if len(features) > 1 else features[0]
    return keras.layers.Dropout(dropout)(x) if dropout else x
