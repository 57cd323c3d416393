"""What transformer, gpt and bert are: published sizes, initial weights, what each option does."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.architectures.bert import bert
from dlcli.architectures.gpt import gpt
from dlcli.architectures.transformer import transformer
from dlcli.layers import TransformerBlock

TOKENS = np.array([[2, 5, 6, 7, 8, 9], [2, 11, 5, 0, 0, 0]], "int32")


def model(builder, vocabulary_size: int = 12, max_length: int = 8, **arguments) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None,), dtype="int32")
    return keras.Model(inputs, builder(inputs, vocabulary_size, max_length, **arguments))


def parameters(vocabulary: int, length: int, width: int, layers: int, bias: bool, norms: int) -> int:
    """Of embeddings, blocks with a dense network of 4 times the width, and `norms` more normalizations."""
    block = 12 * width**2 + 2 * width + bias * (4 + 4 + 1 + 2) * width
    return (vocabulary + length) * width + layers * block + norms * (1 + bias) * width


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("layers", "width"), [(1, 8), (3, 12)])
def test_gpt_has_the_published_number_of_parameters(use_bias, layers, width):
    network = model(gpt, 20, 16, num_layers=layers, width=width, num_heads=2, use_bias=use_bias)
    assert network.count_params() == parameters(20, 16, width, layers, use_bias, norms=1)
    assert parameters(50257, 1024, 768, 12, True, norms=1) == 124_439_808  # GPT-2 small
    assert parameters(50257, 1024, 1600, 48, True, norms=1) == 1_557_611_200  # GPT-2 XL


def test_the_default_gpt_is_the_one_that_nanogpt_trains_on_a_cpu():
    """Its README: n_layer=4, n_head=4, n_embd=128, block_size=64; "0.80M" without the table of positions."""
    network = model(gpt, 65, 64)
    assert network.count_params() - 64 * 128 == 795_904
    assert [layer.num_heads for layer in network.layers if isinstance(layer, TransformerBlock)] == [4] * 4


def test_the_default_bert_is_tiny():
    """4,385,920 parameters in google/bert_uncased_L-2_H-128_A-2; the pooler and the segment table are not ours."""
    network = model(bert, 30522, 512)
    assert network.count_params() == 4_385_920 - (128 * 128 + 128) - 2 * 128
    assert network.count_params() == parameters(30522, 512, 128, 2, True, norms=1)
    # bert-base-uncased, likewise
    assert parameters(30522, 512, 768, 12, True, norms=1) == 109_482_240 - (768 * 768 + 768) - 2 * 768


def deviations(network: keras.Model) -> dict[str, float]:
    """Of each weight of more than one dimension."""
    return {w.path: float(np.std(w)) for w in network.weights if len(w.shape) > 1}


def test_initial_weights_of_gpt():
    found = deviations(model(gpt, 300, 200, num_layers=2, num_heads=2, width=64))
    for path, deviation in found.items():
        residual = "/output/" in path
        assert deviation == pytest.approx(0.02 / (2 if residual else 1), rel=0.06), path
    assert sum("/output/" in path for path in found) == 4


def test_initial_weights_of_bert():
    """A normal distribution of deviation 0.02 cut at 0.04 has 0.88 of it; kernels are Glorot's."""
    network = model(bert, 300, 200, num_heads=2, width=64)
    shapes = {weight.path: weight.shape for weight in network.weights}
    for path, deviation in deviations(network).items():
        glorot = (2 / sum(shapes[path])) ** 0.5
        assert deviation == pytest.approx(glorot if "block" in path else 0.02 * 0.88, rel=0.06), path


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_bert_tells_the_order_of_words_with_each_kind_of_positions(positions):
    network = model(bert, 300, 200, num_heads=2, width=64, positions=positions)
    both = np.asarray(network(np.array([[7, 8, 9], [9, 8, 7]])))
    assert np.abs(both[0, 1] - both[1, 1]).max() > 1e-4


def test_gpt_is_a_chain_that_reads_left_to_right():
    network = model(gpt, num_layers=2, width=8, num_heads=2, dropout=0.1)
    x = network.inputs[0]
    for layer in network.layers[1:]:
        assert layer.input is x
        x = layer.output
    changed = TOKENS.copy()
    changed[0, 3:] = 10
    one, other = network(TOKENS), network(changed)
    np.testing.assert_array_equal(one[0, :3], other[0, :3])
    assert np.abs(one[0, 3] - other[0, 3]).max() > 0.01


@pytest.mark.parametrize("builder", [transformer, bert])
def test_encoders_read_both_ways(builder):
    network = model(builder, width=8, num_heads=2)
    changed = TOKENS.copy()
    changed[0, 5] = 10
    assert np.abs(network(TOKENS)[0, 0] - network(changed)[0, 0]).max() > 1e-6


def test_bert_normalizes_last():
    """Of a block with normalization before each half, the sum comes out as it is."""
    features = np.asarray(model(bert, width=8, num_heads=2)(TOKENS))
    np.testing.assert_allclose(features.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(-1), 1, atol=1e-2)
    before = model(transformer, width=8, num_heads=2, norm="post")
    assert "final_norm" not in [layer.name for layer in before.layers]


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_positions_tell_the_order(positions):
    network = model(transformer, width=8, num_heads=2, positions=positions)
    ids = np.array([[5, 6, 7], [6, 5, 7]], "int32")
    one, other = network(ids)[:, 2]
    assert np.abs(one - other).max() > 1e-3
    tables = [w for w in network.weights if w.path.endswith("table")]
    assert len(tables) == (positions == "learned")


def test_sinusoids_do_not_drown_the_tokens():
    layers = {layer.name: layer for layer in model(transformer, 500, positions="sinusoidal").layers}
    scaled = layers["embedding_scale"](layers["token_embedding"](np.arange(1, 500)[None]))
    assert float(np.std(scaled)) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("builder", "option"),
    [
        (transformer, {"num_layers": 1}),
        (transformer, {"num_heads": 4}),
        (transformer, {"width": 16}),
        (transformer, {"feedforward_width": 5}),
        (transformer, {"norm": "post"}),
        (gpt, {"num_layers": 1}),
        (gpt, {"num_heads": 4}),
        (gpt, {"use_bias": True}),
        (bert, {"num_layers": 1}),
        (bert, {"num_heads": 4}),
        (bert, {"feedforward_width": 5}),
    ],
)
def test_every_option_changes_the_network(builder, option):
    base = {"width": 8, "num_heads": 2, "num_layers": 2}
    one, other = model(builder, **base), model(builder, **{**base, **option})
    same_weights = [w.shape for w in one.weights] == [w.shape for w in other.weights]
    if same_weights:
        other.set_weights(one.get_weights())
        assert np.abs(one(TOKENS) - other(TOKENS)).max() > 1e-6
    assert same_weights == bool({"num_heads"} & set(option))


@pytest.mark.parametrize("builder", [transformer, gpt, bert])
def test_dropout_works_in_training_alone(builder):
    network = model(builder, width=8, num_heads=2, dropout=0.5)
    assert np.abs(network(TOKENS, training=True) - network(TOKENS, training=True)).max() > 0.01
    np.testing.assert_array_equal(network(TOKENS), network(TOKENS))


@pytest.mark.parametrize("builder", [transformer, gpt, bert])
def test_the_mask_goes_on(builder):
    features = model(builder, width=8, num_heads=2)(TOKENS)
    np.testing.assert_array_equal(features._keras_mask, TOKENS != 0)


@pytest.mark.parametrize("builder", [transformer, gpt, bert])
def test_heads_must_divide_the_width(builder):
    with pytest.raises(ValueError, match="num_heads=3, width=8"):
        model(builder, width=8, num_heads=3)
