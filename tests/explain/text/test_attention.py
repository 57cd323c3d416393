"""Attention rollout: against the textbook on Keras's own layer, and as a share that sums to 1."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.explain.network import Network
from dlcli.explain.text.attention import attention, attention_layers
from dlcli.layers.attention import Attention
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.predictions import Predictions
from dlcli.layers.tokens import Tokens

TEXT = "the film was wonderful , not dull"


@pytest.mark.parametrize("kind", ["transformer", "pooled", "language"])
def test_shares_sum_to_one_and_the_caveat_is_said(make, kind):
    built = make(kind)
    subjects = built.read(TEXT, "a mess")
    for subject, found in zip(subjects, attention(built.network, subjects, [0, 1]), strict=True):
        assert found.values.shape == subject.inputs.shape
        assert found.values.min() >= 0
        assert found.values.sum() == pytest.approx(1, abs=1e-5)
        assert not found.signed
        assert "Jain & Wallace 2019" in found.warnings[0]
    assert np.ptp(found.values) > 1e-4


@pytest.mark.parametrize("group", [False, True])
def test_rollout_is_the_textbooks(make, group):
    built = make("linear")
    keras.utils.set_random_seed(1)
    own = [
        keras.layers.GroupQueryAttention(4, 2, 1) if group else keras.layers.MultiHeadAttention(2, 4)
        for _ in range(2)
    ]
    embedding = keras.layers.Embedding(built.tokenizer.vocabulary_size, 8, embeddings_initializer="normal")
    inputs = keras.Input((None,), dtype="int32")
    x = 30 * embedding(Tokens(built.tokenizer.json, 30)(inputs))
    for layer in own:
        x = x + layer(x, x)
    outputs = Predictions("classes", ["a", "b"])(keras.layers.Dense(1)(MaskedPooling("mean")(x)))
    network = Network(keras.Model(inputs, outputs), "text", np.ones((1, 2), np.int32), class_names=["a", "b"])
    (subject,) = built.read(TEXT)
    (found,) = attention(network, [subject], [0])

    x, expected = 30 * embedding(subject.inputs[None]), np.eye(len(subject.inputs))
    for layer in own:
        added, weights = layer(x, x, return_attention_scores=True)
        x = x + added
        expected = (np.asarray(weights)[0].mean(axis=0) / 2 + np.eye(len(expected)) / 2) @ expected
    np.testing.assert_allclose(found.values, expected.mean(axis=0), atol=1e-5)
    assert found.settings["readout"] == "mean of the tokens"


def test_attention_to_itself_alone_leaves_every_token_its_share(make):
    built = make("transformer")
    for layer in attention_layers(built.model):
        for dense in (layer.query, layer.key):  # all scores 0: every token sees all equally
            dense.set_weights([0 * weight for weight in dense.get_weights()])
    (subject,) = built.read(TEXT)
    (found,) = attention(built.network, [subject], [0])
    np.testing.assert_allclose(found.values, 1 / len(subject.inputs), atol=1e-6)
    assert found.problem is None or found.problem == "flat_map"


def test_a_language_model_is_read_behind_its_last_token(make):
    built = make("language")
    for layer in attention_layers(built.model):
        for dense in (layer.query, layer.key):
            dense.set_weights([0 * weight for weight in dense.get_weights()])
    (subject,) = built.read("abc")
    (found,) = attention(built.network, [subject], [0])
    step = (np.tril(np.ones((3, 3))) / np.arange(1, 4)[:, None] + np.eye(3)) / 2
    np.testing.assert_allclose(found.values, (step @ step)[-1], atol=1e-5)


def test_attention_pooling_gives_its_own_weights(make):
    built = make("pooled")
    (pool,) = (layer for layer in built.model.layers if type(layer).__name__ == "AttentionPooling")
    (subject,) = built.read(TEXT)
    (found,) = attention(built.network, [subject], [0])
    # The pooled vector is the mean of the embeddings with these weights.
    embedding = next(layer for layer in built.model.layers if isinstance(layer, keras.layers.Embedding))
    vectors = embedding(subject.inputs[None])
    np.testing.assert_allclose(found.values @ np.asarray(vectors)[0], np.asarray(pool(vectors))[0], atol=1e-5)


def test_the_model_is_left_as_it_was(make):
    built = make("transformer")
    (subject,) = built.read(TEXT)
    before = built.network.outputs(subject.inputs[None])
    attention(built.network, [subject], [0])
    for layer in attention_layers(built.model):
        assert isinstance(layer, Attention)
        assert "_attend" not in vars(layer)
        assert "call" not in vars(layer)
    np.testing.assert_array_equal(built.network.outputs(subject.inputs[None]), before)


def test_a_model_without_attention_is_refused_with_what_works(make):
    built = make("lstm")
    with pytest.raises(DlcliError, match="integrated_gradients, occlusion, lime, shap"):
        attention(built.network, built.read(TEXT), [0])
