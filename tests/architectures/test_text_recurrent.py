"""What the text networks without attention compute: rnn, text_cnn, fasttext, textgen_rnn."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.architectures.fasttext import fasttext
from dlcli.architectures.rnn import rnn
from dlcli.architectures.text_cnn import text_cnn
from dlcli.architectures.textgen_rnn import textgen_rnn
from dlcli.layers import HashedNGrams

VOCABULARY, LENGTH = 12, 8
TOKENS = np.array([[5, 6, 7, 8, 9], [10, 0, 0, 0, 0], [11, 5, 6, 0, 0]], "int32")
LENGTHS = [5, 1, 3]


def model(builder, seed: int = 0, **arguments) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None,), dtype="int32")
    return keras.Model(inputs, builder(inputs, VOCABULARY, LENGTH, **arguments))


def kinds(network: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in network.layers[1:]]


def run(network: keras.Model, tokens: np.ndarray = TOKENS) -> np.ndarray:
    return np.asarray(network(tokens, training=False))


@pytest.fixture(scope="module")
def sequence() -> tuple[keras.Model, np.ndarray]:
    network = model(rnn, units=[3], embedding_width=4, pooling="none")
    return network, run(network)


def pooled(sequence: tuple[keras.Model, np.ndarray], pooling: str) -> tuple[keras.Model, np.ndarray]:
    network = model(rnn, seed=1, units=[3], embedding_width=4, pooling=pooling)
    weights = sequence[0].get_weights()
    network.set_weights(weights + network.get_weights()[len(weights) :])
    return network, run(network)


def test_the_last_state_of_each_direction(sequence):
    _, vectors = pooled(sequence, "last")
    for row, length in enumerate(LENGTHS):
        expected = [*sequence[1][row, length - 1, :3], *sequence[1][row, 0, 3:]]
        np.testing.assert_allclose(vectors[row], expected, atol=1e-6)


@pytest.mark.parametrize(("pooling", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_mean_and_maximum_are_of_real_tokens(sequence, pooling, reduce):
    _, vectors = pooled(sequence, pooling)
    expected = [reduce(sequence[1][row, :length], axis=0) for row, length in enumerate(LENGTHS)]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_attention_weights_real_tokens(sequence):
    network, vectors = pooled(sequence, "attention")
    kernel, bias, context = network.layers[-1].get_weights()
    assert kernel.shape == (6, 6)
    bias = np.linspace(-1, 1, 6)
    network.layers[-1].set_weights([kernel, bias, 9 * context])
    vectors = run(network)
    for row, length in enumerate(LENGTHS):
        real = sequence[1][row, :length]
        scores = np.exp(np.tanh(real @ kernel + bias) @ (9 * context))
        np.testing.assert_allclose(vectors[row], (scores / scores.sum() * real).sum(0), atol=1e-5)


def test_a_sequence_keeps_its_mask(sequence):
    embedded = sequence[0].layers[1](TOKENS)
    outputs = sequence[0].layers[2](embedded)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(outputs._keras_mask), TOKENS != 0)


@pytest.mark.parametrize(
    ("cell", "kind", "gates"), [("lstm", "LSTM", 4), ("gru", "GRU", 3), ("simple_rnn", "SimpleRNN", 1)]
)
def test_cells_widths_and_directions(cell, kind, gates):
    one_way = model(rnn, cell=cell, units=[5, 3], embedding_width=4, bidirectional=False)
    assert kinds(one_way) == ["Embedding", kind, kind]
    bias = 2 if cell == "gru" else 1
    assert one_way.layers[1].count_params() == VOCABULARY * 4
    assert one_way.layers[2].count_params() == gates * 5 * (4 + 5 + bias)
    assert one_way.layers[3].count_params() == gates * 3 * (5 + 3 + bias)
    both_ways = model(rnn, cell=cell, units=[5, 3], embedding_width=4)
    assert kinds(both_ways) == ["Embedding", "Bidirectional", "Bidirectional"]
    assert both_ways.output_shape == (None, 6)
    assert both_ways.layers[3].count_params() == 2 * gates * 3 * (10 + 3 + bias)


def test_dropout_stands_where_it_is_documented():
    network = model(rnn, units=[3, 3], embedding_width=4, dropout=0.5, recurrent_dropout=0.25)
    recurrent = ["Dropout", "Bidirectional"]
    assert kinds(network) == ["Embedding", *recurrent, *recurrent, "Dropout"]
    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Bidirectional)]
    directions = [direction for layer in layers for direction in (layer.forward_layer, layer.backward_layer)]
    assert [layer.cell.recurrent_dropout for layer in directions] == [0.25] * 4
    assert not np.array_equal(network(TOKENS, training=True), network(TOKENS, training=True))
    generator = model(textgen_rnn, units=[3, 3], embedding_width=4, dropout=0.5)
    assert kinds(generator) == ["Embedding", *["Dropout", "LSTM"] * 2, "Dropout"]
    rates = {layer.rate for layer in generator.layers if isinstance(layer, keras.layers.Dropout)}
    assert rates == {0.5}


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_a_language_model_can_be_stepped(cell):
    network = model(textgen_rnn, cell=cell, units=[4, 3], embedding_width=5, dropout=0.1)
    expected = run(network)
    states = {}
    for place in range(TOKENS.shape[1]):
        x = TOKENS[:1, place]
        for layer in network.layers[1:]:
            if isinstance(layer, keras.layers.RNN):
                before = states.get(layer.name) or layer.get_initial_state(1)
                # Cells know no masks, and would say so.
                x, states[layer.name] = layer.cell(np.asarray(x), before)
            else:
                x = layer(x)
        np.testing.assert_allclose(x[0], expected[0, place], atol=1e-6)


def test_a_language_model_sees_no_later_token():
    network = model(textgen_rnn, units=[4, 3], embedding_width=5)
    changed = TOKENS.copy()
    changed[:, 3] = 4
    np.testing.assert_array_equal(run(network)[:, :3], run(network, changed)[:, :3])
    assert not np.allclose(run(network)[0, 3], run(network, changed)[0, 3])


def test_an_embedding_can_be_tied():
    network = model(textgen_rnn, units=[4, 5], embedding_width=5, tie_embedding=True)
    logits = network.get_layer("token_embedding")(network.output, reverse=True)
    assert logits.shape == (None, None, VOCABULARY)
    assert len(keras.Model(network.input, logits).weights) == len(network.weights)
    plain = model(textgen_rnn, units=[4, 5], embedding_width=5)
    assert "token_embedding" not in [layer.name for layer in plain.layers]
    with pytest.raises(ValueError, match=r"units=\[4, 3\], embedding_width=5"):
        model(textgen_rnn, units=[4, 3], embedding_width=5, tie_embedding=True)


def test_the_convolutions_of_the_paper():
    network = model(text_cnn)
    assert network.count_params() == VOCABULARY * 300 + 300 * 100 * (3 + 4 + 5) + 3 * 100
    assert network.output_shape == (None, 300)
    assert [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)] == [0.5]
    embeddings = network.layers[1].get_weights()[0]
    assert 0.2 < np.abs(embeddings).max() <= 0.25
    smaller = model(text_cnn, filter_widths=[2], filters=7, embedding_width=3, dropout=0.0)
    assert smaller.output_shape == (None, 7)
    assert smaller.count_params() == VOCABULARY * 3 + 2 * 3 * 7 + 7


def test_windows_end_where_the_text_ends():
    # Nothing but a window's own tokens counts, and tanh shows negative maxima, where padding would win.
    network = model(text_cnn, filter_widths=[2, 5], filters=3, embedding_width=4, activation="tanh")
    embedding, convolutions = network.layers[1], network.layers[2:4]
    for layer in convolutions:
        layer.bias.assign(np.full(3, -1.0))
    vectors = run(network)
    for row, length in enumerate(LENGTHS):
        words = np.asarray(embedding(TOKENS[row, :length]))
        expected = []
        for layer, (before, after) in zip(convolutions, [(0, 1), (2, 2)], strict=True):
            kernel, bias = layer.get_weights()
            padded = np.pad(words, ((before, after), (0, 0)))
            windows = [
                np.einsum("wd,wdf->f", padded[start : start + len(kernel)], kernel) for start in range(length)
            ]
            expected.extend(np.tanh(np.max(windows, axis=0) + bias))
        np.testing.assert_allclose(vectors[row], expected, atol=1e-5)


def test_fasttext_is_the_mean_of_words_and_ngrams():
    network = model(fasttext, ngrams=3, buckets=40, embedding_width=4)
    table = network.layers[2].get_weights()[0]
    assert table.shape == (VOCABULARY + 40, 4)
    rows = np.asarray(HashedNGrams(VOCABULARY, 3, 40)(TOKENS))
    expected = [table[[number for number in row if number]].mean(0) for row in rows]
    assert [(row > 0).sum() for row in rows] == [5 + 4 + 3, 1, 3 + 2 + 1]
    np.testing.assert_allclose(run(network), expected, atol=1e-6)


def test_fasttext_of_words_alone():
    network = model(fasttext, ngrams=1, embedding_width=4, dropout=0.5)
    assert kinds(network) == ["Embedding", "MaskedPooling", "Dropout"]
    assert network.count_params() == VOCABULARY * 4


def test_empty_layers_are_refused():
    with pytest.raises(ValueError, match=r"units=\[\]"):
        model(rnn, units=[])
    with pytest.raises(ValueError, match=r"units=\[\]"):
        model(textgen_rnn, units=[])
    with pytest.raises(ValueError, match=r"filter_widths=\[\]"):
        model(text_cnn, filter_widths=[])


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_half_precision(pooling):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = model(rnn, units=[3], embedding_width=4, pooling=pooling)
        outputs = network(TOKENS)
    finally:
        keras.config.set_dtype_policy(before)
    assert outputs.dtype == "float16"
    full = model(rnn, units=[3], embedding_width=4, pooling=pooling)
    np.testing.assert_allclose(outputs, run(full), atol=2e-3)
