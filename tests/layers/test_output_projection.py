"""Logits over the vocabulary: tied to the embedding, stored once, for all tokens or the chosen ones."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from dlcli.layers.output_projection import ChosenTokens, output_projection, projection_of, token_embedding

IDS = np.array([[3, 5, 6, 0], [7, 7, 2, 9]], "int32")


def tied(dtype: str = "float32", *, use_bias: bool = True) -> keras.Model:
    inputs = keras.Input((None,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(
        20, 6, mask_zero=True, embeddings_initializer="random_normal", dtype=dtype, name="token_embedding"
    )
    features = keras.layers.Dense(6, activation="tanh", dtype=dtype, name="features")(embedding(inputs))
    assert token_embedding(features) is embedding
    return keras.Model(inputs, output_projection(embedding, 20, use_bias=use_bias)(features))


def test_tied_logits_are_products_with_the_embedding() -> None:
    model = tied()
    model.get_layer("logits").bias.assign(np.arange(20))
    features = keras.Model(model.input, model.get_layer("features").output)(IDS)
    expected = np.asarray(features) @ np.asarray(model.get_layer("token_embedding").embeddings).T + np.arange(
        20
    )
    np.testing.assert_allclose(model(IDS), expected, rtol=1e-5, atol=1e-6)


def test_a_saved_model_holds_tied_weights_once(tmp_path: Path) -> None:
    model = tied()
    assert model.count_params() == 20 * 6 + 6 * 6 + 6 + 20
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IDS), model(IDS))
    assert [weight.shape for weight in loaded.weights] == [weight.shape for weight in model.weights]
    embedding = loaded.get_layer("token_embedding").embeddings
    before = np.asarray(loaded(IDS))
    embedding.assign(2 * embedding)  # still one matrix for both ends
    features = keras.Model(loaded.input, loaded.get_layer("features").output)(IDS)
    np.testing.assert_allclose(projection_of(loaded)(features), loaded(IDS), rtol=1e-6)
    assert np.abs(loaded(IDS) - before).max() > 0.01


def test_logits_are_float32_without_a_mask() -> None:
    logits = tied("mixed_bfloat16")(IDS)
    assert logits.dtype == "float32"
    inputs = keras.Input((None,), dtype="int32")
    features = keras.layers.Embedding(20, 6, mask_zero=True)(inputs)
    assert token_embedding(features) is None
    model = keras.Model(inputs, output_projection(None, 20)(features))
    assert model.count_params() == 2 * 20 * 6 + 20
    for each in (logits, model(IDS)):
        assert getattr(each, "_keras_mask", None) is None
    np.testing.assert_allclose(projection_of(model)(model.layers[1](IDS)), model(IDS))


def test_chosen_tokens_stand_in_order() -> None:
    features = np.arange(24, dtype="float32").reshape(2, 4, 3)
    marked = np.array([[1, -2, 3, -4], [-5, 6, 7, 0]], "int32")
    chosen = ChosenTokens()(features, marked)
    np.testing.assert_array_equal(chosen, features[marked < 0])
    assert ChosenTokens()(features, np.abs(marked)).shape == (0, 3)
