"""Every option of a recipe changes the training, in the direction that it promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.recipe.load import load_recipe
from dlcli.training.job import Job, prepare, training_batches
from dlcli.training.optimizer import class_weights, is_kernel

BASE = (
    "dataset.augmentation=[]", "architecture={name: mlp, hidden: [12]}", "regularization={}", "training.batch_size=256",
    "training.epochs=2", "schedule=constant", "optimizer={name: sgd, learning_rate: 0.1, momentum: 0.9}",
)  # fmt: skip


def job(*changes: str) -> Job:
    return prepare(load_recipe("digits_cnn", [*BASE, *changes]))


def trained(prepared: Job, steps: int = 4) -> list[np.ndarray]:
    """Weights after a few steps."""
    prepared.models.network.fit(
        training_batches(prepared),
        steps_per_epoch=steps,
        epochs=1,
        shuffle=False,
        verbose=0,
    )
    return [np.asarray(weight) for weight in prepared.models.network.trainable_weights]


@pytest.fixture(scope="module")
def base() -> list[np.ndarray]:
    return trained(job())


def differs(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    return any(x.shape != y.shape or not np.array_equal(x, y) for x, y in zip(a, b, strict=False))


def test_the_same_recipe_gives_the_same_weights_bit_for_bit(base: list[np.ndarray]) -> None:
    assert not differs(base, trained(job()))


@pytest.mark.parametrize(
    "change",
    [
        "training.seed=1",
        "training.batch_size=128",
        "optimizer.learning_rate=0.05",
        "optimizer.momentum=0.5",
        "optimizer.nesterov=true",
        "optimizer={name: adamw, learning_rate: 1e-2}",
        "schedule={name: cosine_decay}",
        "schedule={name: constant, warmup_steps: 3}",
        "schedule={name: one_cycle}",
        "schedule={name: step_decay, every_steps: 2}",
        "dataset.normalization=rescale",
        "dataset.validation_split=0.3",
        "dataset.augmentation=[{name: random_translation, height_factor: 0.2, width_factor: 0.2}]",
        "dataset.augmentation=[mix_up]",
        "regularization.l1=1e-2",
        "regularization.l2=1e-2",
        "regularization.dropout=0.5",
        "regularization.label_smoothing=0.2",
        "regularization.gradient_clipping={norm: 0.01}",
        "regularization.gradient_clipping={value: 0.001}",
        "regularization.gradient_clipping={global_norm: 0.01}",
        "regularization.weight_decay=0.1",
        "regularization.max_norm=0.5",
        "regularization.class_weights=balanced",
        "regularization.class_weights={'3': 5.0}",
        "architecture.activation=tanh",
        "architecture.normalization=batch",
        "architecture.initializer=he_normal",
        "task.loss=mean_squared_error",
    ],
)  # fmt: skip
def test_each_option_changes_the_weights(change: str, base: list[np.ndarray]) -> None:
    assert differs(base, trained(job(change)))


def test_steps_per_execution_changes_the_speed_but_not_the_weights(base: list[np.ndarray]) -> None:
    for a, b in zip(base, trained(job("training.steps_per_execution=2")), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_penalties_stand_on_kernels_alone() -> None:
    network = job("regularization.l2=0.5").models.network
    for weight in network.trainable_weights:
        assert (weight.regularizer is not None) == is_kernel(weight)
    expected = 0.5 * sum(float(np.sum(np.square(w))) for w in network.trainable_weights if is_kernel(w))
    assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-5)


def test_weight_decay_shrinks_kernels_and_leaves_biases() -> None:
    prepared = job(
        "regularization.weight_decay=0.5", "optimizer={name: sgd, learning_rate: 0.1, momentum: 0.0}"
    )
    network = prepared.models.network
    before = [weight.numpy().copy() for weight in network.trainable_weights]
    zeros = [np.zeros(weight.shape, "float32") for weight in network.trainable_weights]
    network.optimizer.apply(zeros, network.trainable_weights)
    for weight, old in zip(network.trainable_weights, before, strict=True):
        np.testing.assert_allclose(weight, old * (1 - 0.1 * 0.5) if is_kernel(weight) else old, rtol=1e-6)


def test_max_norm_bounds_each_units_incoming_weights() -> None:
    prepared = job("regularization.max_norm=0.5", "optimizer.learning_rate=1.0")
    for weight in trained(prepared):
        if weight.ndim == 2:
            assert np.linalg.norm(weight, axis=0).max() <= 0.5 + 1e-4


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    prepared = job("regularization.class_weights=balanced")
    targets = prepared.data.train.targets
    expected = compute_class_weight("balanced", classes=np.arange(10), y=targets)
    given: Any = class_weights(prepared.recipe.regularization, prepared.data)
    np.testing.assert_allclose([given[index] for index in range(10)], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("regularization.class_weights={cat: 2.0}", "names no class of this data: cat; allowed: 0, 1"),
        ("training.precision=mixed_bfloat16", "needs a GPU"),
        ("architecture={name: vgg, size: large}", "architecture vgg: "),
    ],
)
def test_what_does_not_fit_the_data_is_refused(change: str, message: str) -> None:
    with pytest.raises(DlcliError, match=message):
        trained(job(change))
