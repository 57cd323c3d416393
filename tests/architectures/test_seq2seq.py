"""What holds for the architectures that read a source and a target, beside the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.architectures.seq2seq_rnn import seq2seq_rnn
from dlcli.architectures.seq2seq_transformer import seq2seq_transformer
from dlcli.evaluation.beam_search import Steps
from dlcli.layers.output_projection import output_projection, token_embedding

VOCABULARY, LENGTH = 20, 12
TRANSFORMER = {"num_layers": 1, "num_heads": 2, "width": 8, "feedforward_width": 12}
VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gru": (seq2seq_rnn, {"units": 6, "embedding_width": 8}),
    "lstm": (seq2seq_rnn, {"units": 6, "embedding_width": 8, "cell": "lstm"}),
    "pre": (seq2seq_transformer, TRANSFORMER),
    "post": (seq2seq_transformer, {**TRANSFORMER, "norm": "post", "positions": "learned"}),
}
SOURCE = np.array([[7, 8, 9, 3], [10, 3, 0, 0], [3, 0, 0, 0]], np.int32)
TARGET = np.array([[2, 5, 6], [2, 0, 0], [2, 7, 0]], np.int32)


def inputs() -> dict[str, keras.KerasTensor]:
    return {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")}


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def model(request: pytest.FixtureRequest) -> keras.Model:
    """As the task builds it."""
    builder, arguments = VARIANTS[request.param]
    keras.utils.set_random_seed(0)
    given = inputs()
    features = builder(given, VOCABULARY, LENGTH, **arguments)
    embedding = token_embedding(features)
    features = keras.layers.Identity(name="features")(features)
    return keras.Model(given, output_projection(embedding, VOCABULARY)(features))


@pytest.fixture(scope="module")
def logits_of(model: keras.Model) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """In a graph of open length, as in training: eager Keras warns of a softmax over one token."""
    signature = [{name: tf.TensorSpec((None, None), tf.int32) for name in ("source", "target")}]
    graph = tf.function(lambda batch: model(batch, training=False), input_signature=signature)
    return lambda source, target: graph({"source": source, "target": target}).numpy()


def test_tokens_see_the_source_and_those_before_them(logits_of):
    """And neither padding of the source, which differs from that of the target, nor tokens to come."""
    logits = logits_of(SOURCE, TARGET)
    padded = logits_of(np.pad(SOURCE, ((0, 0), (0, 3))), TARGET)
    np.testing.assert_allclose(padded, logits, rtol=0, atol=1e-5)
    later = TARGET.copy()
    later[:, 2] = 11
    np.testing.assert_allclose(logits_of(SOURCE, later)[:, :2], logits[:, :2], rtol=0, atol=1e-5)
    earlier, other = TARGET.copy(), SOURCE.copy()
    earlier[0, 1], other[0, 0] = 11, 11
    for changed in (logits_of(SOURCE, earlier), logits_of(other, TARGET)):
        assert np.abs(changed[0, 2] - logits[0, 2]).max() > 1e-4
        np.testing.assert_allclose(changed[1:], logits[1:], rtol=0, atol=1e-5)


def test_the_two_halves_give_what_the_whole_gives(model, logits_of):
    steps = Steps(model, beam_size=1)
    memory = steps.encode(tf.constant(SOURCE[:2]))
    whole = logits_of(SOURCE[:2], TARGET[:2, :1])[:, -1]
    known = tf.nn.log_softmax(whole).numpy()
    known[:, [0, 2, 4]] = -np.inf
    values, tokens = steps.extend(
        tf.constant(TARGET[:2, :1]), memory, tf.zeros(2), tf.constant([False, False])
    )
    best = np.argsort(-known, axis=1)[:, :2]
    np.testing.assert_array_equal(tokens, best)
    np.testing.assert_allclose(values, np.take_along_axis(known, best, axis=1), rtol=0, atol=1e-5)


def test_the_base_model_of_the_paper_has_the_right_size():
    """Vaswani et al. 2017, table 3: 65 million parameters with a shared vocabulary of 37,000 tokens."""
    features = seq2seq_transformer(
        inputs(), 37_000, 512, num_layers=6, width=512, feedforward_width=2048, norm="post"
    )
    embedding = 37_000 * 512
    attention, feedforward = 4 * (512 * 512 + 512), 512 * 2048 + 2048 + 2048 * 512 + 512
    encoder = attention + feedforward + 2 * 2 * 512
    decoder = 2 * attention + feedforward + 3 * 2 * 512
    model = keras.Model(keras.utils.get_source_inputs(features), features)
    assert model.count_params() == embedding + 6 * (encoder + decoder) == 63_082_496


def test_only_a_source_and_a_target_are_taken():
    tokens = keras.Input((None,), dtype="int32")
    for builder in (seq2seq_rnn, seq2seq_transformer):
        with pytest.raises(ValueError, match="Expected inputs source and target"):
            builder(tokens, VOCABULARY, LENGTH)
    with pytest.raises(ValueError, match="num_heads=3, width=8"):
        seq2seq_transformer(inputs(), VOCABULARY, LENGTH, width=8, num_heads=3)
