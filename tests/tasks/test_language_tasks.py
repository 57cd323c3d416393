"""Language models: losses by hand, what each network reads and gives, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.data.examples import DataInfo
from dlcli.data.stream import training_stream
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import END, MASK, START
from dlcli.errors import DataError, DlcliError
from dlcli.tasks.language_modeling import LanguageModeling, TokenAccuracy, TokenCrossentropy
from dlcli.tasks.masked_language_modeling import MaskedLanguageModeling
from dlcli.tasks.replaced_token_detection import ReplacedTokenDetection

CIRCLE = ["the", "cat", "sat", "on", "a", "mat", "while", "dog", "ran", "far"]
NO_TARGETS = np.zeros(0, np.int32)


def recurrent(
    inputs: Any, vocabulary_size: int, max_length: int, *, width: int = 24, num_heads: int = 3
) -> Any:
    """Left to right, with an embedding that can be tied."""
    embedded = keras.layers.ReversibleEmbedding(
        vocabulary_size, width, mask_zero=True, name="token_embedding"
    )(inputs)
    return keras.layers.GRU(width, return_sequences=True)(embedded)


LOGITS = np.log(np.array([[[0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]]] * 2, "float32"))
TARGETS = np.array([[1, 2, 0], [2, 0, 0]], "int32")  # probabilities 0.7, 0.6 and 0.2


def test_the_loss_is_the_mean_over_real_tokens() -> None:
    expected = -np.log([0.7, 0.6, 0.2]).mean()
    assert float(TokenCrossentropy()(TARGETS, LOGITS)) == pytest.approx(expected, rel=1e-5)
    chosen = LOGITS[TARGETS != 0]
    assert float(TokenCrossentropy()(TARGETS, chosen)) == pytest.approx(expected, rel=1e-5)
    assert float(TokenCrossentropy()(np.zeros_like(TARGETS), LOGITS)) == 0
    assert float(TokenCrossentropy()(np.zeros_like(TARGETS), chosen[:0])) == 0


def test_smoothing_equals_keras_with_one_hot_targets() -> None:
    real = TARGETS != 0
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    expected = float(keras_loss(np.eye(3)[TARGETS[real]], LOGITS[real]))
    assert float(TokenCrossentropy(0.3)(TARGETS, LOGITS)) == pytest.approx(expected, rel=1e-5)


def test_masks_of_keras_do_not_change_the_loss() -> None:
    inputs = keras.Input((None,), dtype="int32")
    features = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(5)(features))  # Dense hands the mask on
    model.compile("sgd", loss=TokenCrossentropy(), metrics=[TokenAccuracy()])
    ids, targets = np.array([[1, 2, 3, 4], [4, 0, 0, 0]]), np.array([[2, 3, 0, 1], [3, 0, 0, 0]])
    loss, accuracy = model.evaluate(ids, targets, verbose=0)
    logits = model.predict_on_batch(ids)[targets != 0]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    known = targets[targets != 0]
    assert loss == pytest.approx(-np.log(probabilities[np.arange(4), known]).mean(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == known).mean())


def test_accuracy_counts_real_tokens() -> None:
    for logits in (LOGITS, LOGITS[TARGETS != 0]):
        metric = TokenAccuracy()
        metric.update_state(TARGETS, logits)
        assert float(metric.result()) == pytest.approx(2 / 3)


def test_documents_stand_one_after_another(documents: TextExamples, info: DataInfo) -> None:
    lone = documents.subset(np.array([5, 2]))
    encoded = info.tokenizer.encode(list(lone.columns["text"]))  # type: ignore[union-attr]
    joined = [*encoded[0], END, *encoded[1], END]
    windows = LanguageModeling(info, NO_TARGETS, stride=5).sequences(lone, training=True)
    firsts = [joined[start] for start in range(0, len(joined) - 12, 5)]
    assert windows.read(np.arange(len(windows)))[:, 0].numpy().tolist() == firsts
    np.testing.assert_array_equal(windows.read(np.array([1]))[0], joined[5:17])
    np.testing.assert_array_equal(windows.read_targets(np.array([1]))[0], joined[6:18])
    validation = LanguageModeling(info, NO_TARGETS, stride=5).sequences(lone)
    assert len(validation) == len(range(0, len(joined) - 12, 12))
    np.testing.assert_array_equal(validation.read(np.array([0]))[0], joined[:12])
    packed = MaskedLanguageModeling(info, NO_TARGETS).sequences(lone)
    rows = np.asarray(packed.read(np.arange(len(packed))))
    assert (rows[:, 0] == START).all()
    assert rows[:, 1:].ravel()[: len(joined)].tolist() == joined
    assert not rows[:, 1:].ravel()[len(joined) :].any()


def test_a_language_model_learns(
    documents: TextExamples, info: DataInfo, tmp_path: Path, language: Any
) -> None:
    task = LanguageModeling(info, NO_TARGETS)
    network, predictor = language.connected(task, recurrent)
    assert network.count_params() == 15 * 24 + 3 * 24 * (24 + 24 + 2)  # tied: one matrix for both ends
    history = language.fitted(task, network, documents, 4)
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    report = task.evaluate(
        language.reloaded(predictor, tmp_path), documents.subset(np.arange(40)), "test", tmp_path
    )
    assert report["metrics"]["loss"] == pytest.approx(history["val_loss"][-1], abs=0.03)
    untied, _ = language.connected(LanguageModeling(info, NO_TARGETS, tie_embeddings=False), recurrent)
    assert untied.count_params() == network.count_params() + 15 * 24 + 15


def test_a_masked_language_model_learns(
    documents: TextExamples, info: DataInfo, tmp_path: Path, language: Any
) -> None:
    task = MaskedLanguageModeling(info, NO_TARGETS)
    network, predictor = language.connected(task, language.both_ways)
    ids, marked = np.array([[5, 6, MASK, 8, 9]], "int32"), np.array([[5, -6, -MASK, 8, 9]], "int32")
    np.testing.assert_allclose(network(marked), np.asarray(predictor(ids))[0, [1, 2]], rtol=1e-5, atol=1e-6)
    history = language.fitted(task, network, documents, 5)
    assert history["val_loss"][-1] < 0.6 * history["loss"][0]
    loaded = language.reloaded(predictor, tmp_path)
    report = task.evaluate(loaded, documents.subset(np.arange(40)), "test", tmp_path)
    # Each batch of validation counts alike, however many tokens it hides.
    assert report["metrics"]["loss"] == pytest.approx(history["val_loss"][-1], abs=0.15)
    assert report == task.evaluate(predictor, documents.subset(np.arange(40)), "test", tmp_path)


def test_mask_options_reach_the_stream(documents: TextExamples, info: DataInfo) -> None:
    def chosen(epoch: int = 0, **options: Any) -> np.ndarray:
        task = MaskedLanguageModeling(info, NO_TARGETS, **options)
        sequences = task.sequences(documents)
        steps = -(-len(sequences) // 16)
        stream = training_stream(
            sequences, batch_size=16, seed=0, augment=task.corrupt(), start_step=epoch * steps
        )
        return np.concatenate([targets != 0 for _, targets in stream.take(steps - 1)]).sum(axis=1)

    assert chosen(mask_rate=0.4).mean() > 2 * chosen().mean()
    assert (chosen() != chosen(masking="whole_word")).sum() == 0  # every token of this vocabulary is a word
    static = [sorted(chosen(epoch, dynamic=False).tolist()) for epoch in (0, 1)]
    assert np.abs(np.subtract(*static)).sum() < 12  # the same but for those of the short last batch


def test_architectures_that_look_ahead_are_refused(info: DataInfo, language: Any) -> None:
    with pytest.raises(DlcliError, match=r"looks ahead.*gpt or textgen_rnn"):
        language.connected(LanguageModeling(info, NO_TARGETS), language.both_ways)


@pytest.mark.parametrize("kind", [LanguageModeling, MaskedLanguageModeling, ReplacedTokenDetection])
def test_vectors_are_refused(kind: Any, info: DataInfo, language: Any) -> None:
    def vector(inputs: Any, vocabulary_size: int, max_length: int) -> Any:
        return keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(vocabulary_size, 4)(inputs))

    with pytest.raises(DlcliError, match=rf"{kind.name} needs a sequence of features .*\(None, 4\)"):
        language.connected(kind(info, NO_TARGETS), vector)


def test_what_cannot_be_learnt_is_refused(info: DataInfo) -> None:
    empty = TextExamples({"text": Texts.of([""])}, np.zeros(1, np.int32))
    with pytest.raises(DataError, match="1 documents hold 1 tokens"):
        LanguageModeling(info, NO_TARGETS).sequences(empty)
