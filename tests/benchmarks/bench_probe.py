"""What pretraining is worth: a linear probe on the features of a pretrained encoder, and of one with random weights.

Mean features of labelled texts, read window by window; logistic regression on them, scored on texts that it
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
from dlcli.data.text.vocabulary import TokenTexts, encode_texts
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.schema import Dataset
from dlcli.runs import load_run

EXAMPLES = 4_000
"""Texts of each split, drawn at random."""


def windows_of(texts: TokenTexts, room: int) -> tuple[TokenTexts, np.ndarray]:
    """Each text cut into windows of up to `room` tokens, and the text that each window comes from."""
    counts = np.maximum(-(-texts.lengths // room), 1)
    owners = np.repeat(np.arange(len(texts)), counts)
    places = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    lengths = np.minimum(texts.lengths[owners] - places * room, room)
    return TokenTexts(texts.ids, texts.starts[owners] + places * room, lengths), owners


def features(encoder: keras.Model, sequences: TokenSequences, owners: np.ndarray) -> np.ndarray:
    """(N, D): of each text the mean over its windows."""
    ordered, order = by_length(sequences)
    batches = evaluation_stream(ordered, 256)
    rows = np.concatenate([encoder.predict_on_batch(inputs) for inputs, _ in batches])
    sums = np.zeros((owners[-1] + 1, rows.shape[1]))
    np.add.at(sums, owners[order], rows)
    return sums / np.bincount(owners)[:, None]


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
    # All hidden layers side by side, as in the feature-based approach of Devlin et al. 2018, section 5.3.
    hidden = [layer.output for layer in model.layers if layer.name.startswith(("embedding_norm", "block_"))]
    pooled = [MaskedPooling("mean")(each) for each in hidden]
    encoder = keras.Model(model.input, keras.layers.Concatenate()(pooled))
    source = load_source(Dataset.model_validate({"name": "imdb", "path": folder}))
    random = np.random.default_rng(0)
    room = vocabulary.max_length - 2
    parts = {}
    for name, split in (("train", source.train), ("test", source.test)):
        texts = split.subset(random.permutation(len(split))[:EXAMPLES])
        windows, owners = windows_of(encode_texts(texts.columns["text"], vocabulary.tokenizer), room)
        sequences = TokenSequences(windows, vocabulary.max_length, np.zeros(len(owners)), (START,), (END,))
        parts[name] = (sequences, owners, texts.targets)
    scores = {}
    for label, each in (("pretrained", encoder), ("random weights", keras.models.clone_model(encoder))):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        (train, train_owners, train_targets), (test, test_owners, test_targets) = (
            parts["train"],
            parts["test"],
        )
        probe.fit(features(each, train, train_owners), train_targets)
        scores[label] = probe.score(features(each, test, test_owners), test_targets)
        print(f"\n{label}: {scores[label]:.3f}")
    assert scores["pretrained"] - scores["random weights"] > 0.03  # measured: 0.731 and 0.688
