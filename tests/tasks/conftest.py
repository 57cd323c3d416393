"""A tiny language, and networks made as training makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.data.examples import DataInfo
from dlcli.data.stream import evaluation_stream, training_stream
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.layers.tokens import Tokens

CIRCLE = ["the", "cat", "sat", "on", "a", "mat", "while", "dog", "ran", "far"]


@pytest.fixture(scope="module")
def documents() -> TextExamples:
    """Each word is followed by the same one always."""
    random = np.random.default_rng(0)
    texts = [
        " ".join(CIRCLE[(start + place) % 10] for place in range(length))
        for start, length in random.integers([0, 5], [10, 15], (300, 2))
    ]
    return TextExamples({"text": Texts.of(texts)}, np.zeros(len(texts), np.int32))


@pytest.fixture(scope="module")
def info(documents: TextExamples) -> DataInfo:
    tokenizer = Tokenizer(word(iter(CIRCLE)).to_str())
    return DataInfo("text", (), "text", tokenizer=tokenizer, max_length=12)


def both_ways(
    inputs: Any, vocabulary_size: int, max_length: int, *, width: int = 24, num_heads: int = 3
) -> Any:
    """Each token sees its neighbours on both sides."""
    embedding = keras.layers.ReversibleEmbedding(
        vocabulary_size, width, mask_zero=True, name="token_embedding"
    )
    center = keras.layers.Activation("linear")(embedding(inputs))
    before = keras.ops.pad(center[:, :-1], [[0, 0], [1, 0], [0, 0]])
    after = keras.ops.pad(center[:, 1:], [[0, 0], [0, 1], [0, 0]])
    around = keras.layers.Dense(width, activation="relu")(
        keras.ops.concatenate([before, center, after], axis=-1)
    )
    # The mask goes on with `center`, as in architectures of the package.
    return keras.layers.Dropout(0.05)(keras.layers.Add()([center, around]))


def connected(
    task: Any, architecture: Callable[..., Any], **arguments: Any
) -> tuple[keras.Model, keras.Model]:
    """Network and predictor, as dlcli.training.build makes them."""
    keras.utils.set_random_seed(0)
    info = task.info
    inputs = keras.Input((None,), dtype="int32", name="tokens")

    def build(inputs: Any, **changes: Any) -> Any:
        return architecture(inputs, info.vocabulary_size, info.max_length, **{**arguments, **changes})

    build.arguments = arguments  # type: ignore[attr-defined]
    logits = task.connect(build, Tokens(info.tokenizer.json, info.max_length, name="tokenizer")(inputs))
    return keras.Model(inputs, logits), keras.Model(inputs, task.predictions(logits))


def fitted(task: Any, network: keras.Model, examples: TextExamples, epochs: int) -> dict[str, list[float]]:
    sequences = task.sequences(examples, training=True)
    network.compile(
        keras.optimizers.Adam(0.01),
        loss=task.loss_function(0.0, one_hot=False),
        metrics=task.metric_functions(),
    )
    validation = evaluation_stream(task.sequences(examples.subset(np.arange(40))), 16, augment=task.corrupt())
    history = network.fit(
        training_stream(sequences, batch_size=16, seed=0, augment=task.corrupt()),
        steps_per_epoch=-(-len(sequences) // 16),
        epochs=epochs,
        validation_data=validation,
        shuffle=False,
        verbose=0,
    )
    one, two = (network.evaluate(validation, verbose=0) for _ in range(2))
    assert one == two  # validation hides the same tokens in every epoch
    return history.history


def reloaded(predictor: keras.Model, folder: Path) -> keras.Model:
    predictor.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    ids = np.random.default_rng(0).integers(1, 10, (3, 7)).astype("int32")
    np.testing.assert_array_equal(loaded(ids), predictor(ids))
    assert len(loaded.weights) == len(predictor.weights)
    return loaded


@pytest.fixture(scope="session")
def language() -> SimpleNamespace:
    """What the tests of language tasks call."""
    return SimpleNamespace(connected=connected, fitted=fitted, reloaded=reloaded, both_ways=both_ways)
