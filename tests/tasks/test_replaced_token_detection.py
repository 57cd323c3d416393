"""Replaced token detection: losses by hand, what is replaced, what learns from what, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.examples import DataInfo
from dlcli.data.text.texts import TextExamples
from dlcli.data.text.tokenizer import START
from dlcli.errors import DataError, DlcliError
from dlcli.tasks.replaced_token_detection import (
    DetectionAccuracy,
    DetectionLoss,
    ReplacedTokenDetection,
    smaller,
)

NO_TARGETS = np.zeros(0, np.int32)
MARKED = np.array([[START, 5, -6, 7, -8, 0]], "int32")


def test_replaced_tokens_are_detected(
    documents: TextExamples, info: DataInfo, tmp_path: Path, language: Any
) -> None:
    task = ReplacedTokenDetection(info, NO_TARGETS, generator_size=0.34, mask_rate=0.25)
    network, predictor = language.connected(task, language.both_ways, width=24, num_heads=3)
    assert network.get_layer("generator").output.shape[-1] == 8
    history = language.fitted(task, network, documents, 6)
    assert history["generator_loss"][-1] < 0.9 * history["generator_loss"][0]
    assert history["val_recall"][-1] > 0.2
    loaded = language.reloaded(predictor, tmp_path)
    report = task.evaluate(loaded, documents.subset(np.arange(40)), "test", tmp_path)
    assert report["metrics"]["roc_auc"] > 0.8
    ids = info.tokenizer.encode(["the cat sat on far mat while"])[0][None]  # type: ignore[union-attr]
    assert int(np.asarray(loaded(ids))[0].argmax()) in (3, 4, 5)
    assert loaded(ids).shape == (1, 7)


def test_only_marked_tokens_are_replaced(info: DataInfo, language: Any) -> None:
    task = ReplacedTokenDetection(info, NO_TARGETS, generator_size=0.34)
    network, _ = language.connected(task, language.both_ways, width=24, num_heads=3)
    for training in (False, True):
        shown = np.stack([np.asarray(network(MARKED, training=training))[0, :, 1] for _ in range(20)])
        assert (shown[:, [0, 1, 3, 5]] == [START, 5, 7, 0]).all()
        assert (shown >= 0).all()
        # Validation draws the same tokens each time.
        assert (len(np.unique(shown[:, [2, 4]], axis=0)) > 3) == training


def test_no_gradient_passes_the_draw(info: DataInfo, language: Any) -> None:
    task = ReplacedTokenDetection(info, NO_TARGETS, generator_size=0.34)
    network, _ = language.connected(task, language.both_ways, width=24, num_heads=3)
    with tf.GradientTape(persistent=True) as tape:
        detection = task.loss_function(0.0, one_hot=False)(np.abs(MARKED), network(MARKED, training=True))
        (generation,) = network.losses
    own = {"generator": generation, "discriminator": detection}
    for name, loss in own.items():
        for other in own:
            weights = network.get_layer(other).trainable_weights
            learns = [each is not None for each in tape.gradient(loss, weights)]
            assert learns == [name == other] * len(weights)
    logits = np.asarray(keras.Model(network.input, network.get_layer("logits").output)(MARKED))
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert float(generation) == pytest.approx(-np.log(likely[[0, 1], [6, 8]]).mean(), abs=0.05)  # dropout


def test_detection_by_hand() -> None:
    original = np.array([[5, 6, 7, 0]])
    logits = np.log([[3.0, 1 / 4, 1 / 3, 9.0]])  # probabilities 3/4, 1/5, 1/4
    outputs = np.stack([logits, [[9.0, 6, 8, 0]]], axis=-1).astype(
        "float32"
    )  # the first and third are replaced
    expected = -np.log([3 / 4, 4 / 5, 1 / 4]).mean()
    assert float(DetectionLoss(2.0)(original, outputs)) == pytest.approx(2 * expected, rel=1e-5)
    for of_replaced, right in ((False, 2 / 3), (True, 1 / 2)):
        metric = DetectionAccuracy(of_replaced)
        metric.update_state(original, outputs)
        assert float(metric.result()) == pytest.approx(right)


def test_a_generator_is_narrower() -> None:
    bert = {"width": 768, "num_heads": 12, "feedforward_width": 3072, "num_layers": 12}
    assert smaller(bert, 0.25) == {"width": 192, "num_heads": 3, "feedforward_width": 768}
    assert smaller({"units": [64, 32], "feedforward_width": None}, 0.5) == {"units": [32, 16]}
    with pytest.raises(
        DlcliError,
        match="none of the arguments width, feedforward_width, units, embedding_width: use architecture bert",
    ):
        smaller({"filters": 3}, 0.5)


def test_label_smoothing_is_refused(info: DataInfo) -> None:
    with pytest.raises(DataError, match="label_smoothing"):
        ReplacedTokenDetection(info, NO_TARGETS).loss_function(0.1, one_hot=False)
