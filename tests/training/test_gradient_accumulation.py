"""A batch in parts changes the weights as the whole batch does; and where it cannot, the recipe is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.examples import DataInfo
from dlcli.layers.token_replacement import TokenReplacement
from dlcli.recipe.load import load_recipe
from dlcli.recipe.mistakes import RecipeError
from dlcli.tasks.classification import ImageClassification
from dlcli.tasks.language_modeling import LanguageModeling, TokenAccuracy, TokenCrossentropy
from dlcli.tasks.replaced_token_detection import DetectionLoss, ReplacedTokenDetection
from dlcli.training.gradient_accumulation import AccumulatingModel, Terms

RANDOM = np.random.default_rng(0)
INFO = DataInfo("image", (4,), "classes", ("a", "b", "c"))


def terms_of(task: Any) -> Terms:
    """A task's own, without the data that building it takes."""
    return task.terms.__get__(task.__new__(task))


def trained(
    build: Callable[[], AccumulatingModel],
    compile_with: dict[str, Any],
    batches: list[tuple[Any, ...]],
    parts: int,
    terms: Terms,
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Weights and last logs after a step on each batch."""
    keras.utils.set_random_seed(0)
    network = build()
    made = {name: value() if callable(value) else value for name, value in compile_with.items()}
    network.compile(**made)
    network.accumulate(parts, terms)
    kinds = tuple(tf.TensorSpec((None, *np.shape(part)[1:]), np.asarray(part).dtype) for part in batches[0])
    stream = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=kinds)
    logs = network.fit(
        stream.repeat(), steps_per_epoch=len(batches), epochs=1, verbose=0, shuffle=False
    ).history
    return network.get_weights(), {name: values[-1] for name, values in logs.items()}


def same(
    build: Callable[[], AccumulatingModel],
    compile_with: dict[str, Any],
    batches: list[tuple[Any, ...]],
    *,
    parts: int,
    terms: Terms,
) -> None:
    whole, whole_logs = trained(build, compile_with, batches, 1, terms)
    in_parts, logs = trained(build, compile_with, batches, parts, terms)
    for a, b in zip(whole, in_parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert logs == pytest.approx(whole_logs, rel=1e-5)


def dense() -> AccumulatingModel:
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.05))(inputs)
    return AccumulatingModel(inputs, keras.layers.Dense(3)(hidden), name="dense")


def weighted(count: int) -> tuple[np.ndarray, ...]:
    """Inputs, classes, and weights that differ much."""
    return (
        RANDOM.normal(size=(count, 4)).astype("float32"),
        RANDOM.integers(0, 3, count).astype("int32"),
        RANDOM.gamma(0.5, size=count).astype("float32"),
    )


CLASSES = {
    "loss": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0),
    "metrics": lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
}


def test_parts_change_weights_as_the_whole_batch_does() -> None:
    # 10 does not divide by 4; the last batch has fewer examples than parts.
    batches = [weighted(10), weighted(10), weighted(3)]
    compile_with = {**CLASSES, "steps_per_execution": 3}
    same(dense, compile_with, batches, parts=4, terms=terms_of(ImageClassification))


TWO_DEVICES = """
import json
from dlcli.backend import load_backend
load_backend()
import keras
import numpy as np
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from dlcli.training.gradient_accumulation import AccumulatingModel

def trained(strategy, parts):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    data = random.normal(size=(8, 4)).astype("float32"), random.normal(size=(8, 3)).astype("float32")
    with strategy.scope():
        inputs = keras.Input((4,))
        network = AccumulatingModel(inputs, keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5))(inputs))
        network.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError())
        network.accumulate(parts, lambda inputs, targets: (tf.shape(inputs)[0], tf.shape(inputs)[0]))
        logs = network.fit(tf.data.Dataset.from_tensors(data).repeat(), steps_per_epoch=2, verbose=0, shuffle=False)
    return [*logs.history["loss"], *network.get_weights()[0].ravel().tolist()]

one = tf.distribute.OneDeviceStrategy("/CPU:0")
two = tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"])
print(json.dumps([trained(one, 1), trained(two, 2)]))
"""


def test_parts_on_two_devices_with_a_penalty() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(two, one, atol=1e-5)


def test_tokens_count_and_not_examples() -> None:
    def language() -> AccumulatingModel:
        tokens = keras.Input((None,), dtype="int32")
        states = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
        return AccumulatingModel(tokens, keras.layers.Dense(9)(states), name="language")

    ids = RANDOM.integers(1, 9, (7, 6)).astype("int32")
    ids[1, 1:], ids[2, 3:], ids[6] = 0, 0, 0  # texts of very different lengths, and one without any token
    compile_with = {
        "loss": TokenCrossentropy,
        "optimizer": lambda: keras.optimizers.SGD(0.5),
        "metrics": lambda: [TokenAccuracy()],
    }
    same(language, compile_with, [(ids, ids)] * 2, parts=3, terms=terms_of(LanguageModeling))


def test_a_generators_loss_counts_by_its_own_tokens() -> None:
    def electra() -> AccumulatingModel:
        tokens = keras.Input((None,), dtype="int32")
        hidden = keras.layers.Embedding(9, 4)(keras.ops.abs(tokens))
        places = keras.layers.Lambda(lambda pair: tf.boolean_mask(pair[0], pair[1] < 0), output_shape=(4,))
        logits = keras.layers.Dense(9)(places([hidden, tokens]))
        shown = keras.ops.cast(TokenReplacement()(tokens, logits), "float32")
        return AccumulatingModel(tokens, keras.ops.stack([0 * shown, shown], axis=-1), name="electra")

    ids = RANDOM.integers(1, 9, (6, 5)).astype("int32")
    marked = np.where(RANDOM.random(ids.shape) < np.linspace(0.1, 0.9, 6)[:, None], -ids, ids)
    compile_with = {"loss": lambda: DetectionLoss(0.0), "optimizer": lambda: keras.optimizers.SGD(1.0)}
    same(electra, compile_with, [(marked, ids)] * 2, parts=4, terms=terms_of(ReplacedTokenDetection))


def test_each_part_draws_its_own_noise() -> None:
    network = AccumulatingModel(
        inputs := keras.Input((4,)), keras.layers.Dense(3)(keras.layers.Dropout(0.5)(inputs))
    )
    network.compile(**{name: value() for name, value in CLASSES.items()})
    network.accumulate(5, terms_of(ImageClassification))
    network.train_on_batch(*weighted(10))
    _, draws = network.layers[1].seed_generator.state.numpy()
    assert draws == 5


def test_what_has_no_gradient_stays_as_it_is() -> None:
    inputs = keras.Input((4,))
    frozen = keras.layers.Dense(4)
    outputs = keras.layers.Dense(3)(inputs + 0 * keras.ops.stop_gradient(frozen(inputs)))
    network = AccumulatingModel(inputs, outputs)
    made = {name: value() for name, value in CLASSES.items()}
    network.compile(**made | {"optimizer": keras.optimizers.AdamW(0.1, weight_decay=0.1)})
    network.accumulate(2, terms_of(ImageClassification))
    before = frozen.get_weights()[0]
    with pytest.warns(UserWarning, match="Gradients do not exist"):  # Keras's own words, as for a whole batch
        network.train_on_batch(*weighted(10))
    np.testing.assert_array_equal(frozen.get_weights()[0], before)


def test_the_graph_does_not_grow_with_parts() -> None:
    network, data = dense(), tuple(tf.constant(part) for part in weighted(60))
    network.compile(**{name: value() for name, value in CLASSES.items()}, run_eagerly=True)
    network.train_on_batch(*data)  # makes all variables
    sizes = []
    for parts in (2, 50):
        network.accumulate(parts, terms_of(ImageClassification))
        sizes.append(len(tf.function(network.train_step).get_concrete_function(data).graph.get_operations()))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("digits_dcgan", ["gradient_accumulation=2"], "task gan has a training step of its own"),
        ("digits_dcgan", ["on_out_of_memory=halve_batch"], "task gan takes batches whole"),
        (
            "iris_mlp",
            ["gradient_accumulation=65", "batch_size=64"],
            "a batch of 64 cannot be cut into 65 parts",
        ),
    ],
)
def test_recipes_that_cannot_be_cut_are_refused(name: str, changes: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(name, [f"training.{change}" for change in changes])


def test_a_loss_of_whole_batches_is_refused() -> None:
    task = "task={name: tabular_classification, loss: dice}"
    with pytest.raises(RecipeError, match="loss dice is of a whole batch"):
        load_recipe("iris_mlp", [task, "training.gradient_accumulation=2"])
    load_recipe("iris_mlp", [task])
