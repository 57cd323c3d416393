"""Positions added to embeddings."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from dlcli.layers import PositionEmbedding


def test_sinusoids_are_those_of_the_paper():
    """Vaswani et al. 2017, section 3.5, written out."""
    embedded = PositionEmbedding("sinusoidal")(np.ones((1, 50, 6), "float32"))
    for position in (0, 1, 7, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            expected = [1 + math.sin(angle), 1 + math.cos(angle)]
            np.testing.assert_allclose(embedded[0, position, 2 * i : 2 * i + 2], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_a_step_adds_what_the_whole_text_gets(kind):
    layer = PositionEmbedding(kind, 8)
    x = np.random.default_rng(0).normal(size=(2, 8, 4)).astype("float32")
    whole = layer(x)
    np.testing.assert_allclose(layer.step(x[:, 3:5], 3), whole[:, 3:5], atol=1e-6)
    differences = np.asarray(whole - x)[0]
    assert len(np.unique(differences.round(5), axis=0)) == 8
    assert layer.count_params() == (32 if kind == "learned" else 0)


def test_the_mask_goes_on():
    ids = np.array([[5, 6, 0]])
    embedded = PositionEmbedding("learned", 3)(keras.layers.Embedding(9, 4, mask_zero=True)(ids))
    np.testing.assert_array_equal(embedded._keras_mask, ids != 0)


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="Received: 'rotary'"):
        PositionEmbedding("rotary", 3)
    with pytest.raises(ValueError, match="max_length of at least 1"):
        PositionEmbedding("learned")
    with pytest.raises(ValueError, match=r"at most 3 tokens.*Received: 4"):
        PositionEmbedding("learned", 3)(np.ones((1, 4, 2)))
