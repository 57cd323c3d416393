"""What pretraining is worth: a linear probe on the features of a pretrained encoder, and of one with random weights.

Mean features of labelled texts that the encoder reads as they are; logistic regression on them, scored on texts that it
has not seen. Needs a run of masked_language_modeling and class folders of texts:
DLCLI_PRETRAINED=runs/tiny_bert DLCLI_IMDB=aclImdb make bench
"""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from dlcli.data.load import load_source
from dlcli.data.stream import by_length, evaluation_stream
from dlcli.data.text.sequences import TokenSequences
from dlcli.data.text.tokenizer import END, START
from dlcli.data.text.vocabulary import encode_texts
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.schema import Dataset
from dlcli.runs import load_run

EXAMPLES = 2_000
"""Texts of each split, drawn at random."""


def features(encoder: keras.Model, sequences: TokenSequences) -> np.ndarray:
    """(N, D)."""
    ordered, order = by_length(sequences)
    rows = np.concatenate([encoder.predict_on_batch(inputs) for inputs, _ in evaluation_stream(ordered, 64)])
    restored = np.empty_like(rows)
    restored[order] = rows
    return restored


@pytest.mark.benchmark
def test_a_linear_probe() -> None:
    run, folder = os.environ.get("DLCLI_PRETRAINED"), os.environ.get("DLCLI_IMDB")
    if not run or not folder:
        pytest.skip("DLCLI_PRETRAINED and DLCLI_IMDB name a run and class folders of texts")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = load_run(Path(run)).model
    vocabulary = tokens_of(model)
    tokens = model.get_layer("masked_language_dense").input
    encoder = keras.Model(model.input, MaskedPooling("mean")(tokens))
    source = load_source(Dataset.model_validate({"name": "imdb", "path": folder}))
    random = np.random.default_rng(0)
    parts = {}
    for name, split in (("train", source.train), ("test", source.test)):
        texts = split.subset(random.permutation(len(split))[:EXAMPLES])
        encoded = encode_texts(texts.columns["text"], vocabulary.tokenizer)
        parts[name] = TokenSequences(encoded, vocabulary.max_length, texts.targets, (START,), (END,))
    scores = {}
    for label, each in (("pretrained", encoder), ("random weights", keras.models.clone_model(encoder))):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        probe.fit(features(each, parts["train"]), parts["train"].targets)
        scores[label] = probe.score(features(each, parts["test"]), parts["test"].targets)
        print(f"\n{label}: {scores[label]:.3f}")
    assert scores["pretrained"] - scores["random weights"] > 0.05
