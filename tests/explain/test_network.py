"""The model as explanations see it: logits, entries, layers, for every kind of Keras model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dlcli.data.examples import DataInfo
from dlcli.errors import DlcliError
from dlcli.explain.hooks import hooked, layers_that_run, spatial
from dlcli.explain.network import Network
from dlcli.layers.predictions import Predictions

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("uint8")


def cnn(*ending: layers.Layer) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.Flatten()(x)
    for layer in ending:
        x = layer(x)
    return keras.Model(inputs, x)


ENDINGS = {
    "softmax in the dense layer": [layers.Dense(3, activation="softmax")],
    "softmax layer": [layers.Dense(3), layers.Softmax()],
    "activation layer": [layers.Dense(3), layers.Activation("softmax")],
    "of dlcli": [layers.Dense(3), Predictions("classes", ["a", "b", "c"])],
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_logits_are_found_and_their_softmax_is_what_the_model_gives(ending):
    model = cnn(*[type(layer).from_config(layer.get_config()) for layer in ending])
    network = Network(model, "image", IMAGES[:1])
    outputs = network.outputs(IMAGES)
    assert network.target == "classes" and network.scale == "logit"
    np.testing.assert_allclose(network.probabilities(outputs), model(IMAGES), atol=1e-6)
    dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    by_hand = keras.Model(model.input, dense.input)(IMAGES) @ dense.kernel + dense.bias
    np.testing.assert_allclose(outputs, by_hand, atol=1e-5)
    np.testing.assert_allclose(
        model(IMAGES).numpy().sum(axis=1), 1, atol=1e-5
    )  # the model itself is as it was


@pytest.mark.parametrize(
    "ending",
    [
        [layers.Dense(1, activation="sigmoid")],
        [layers.Dense(1), layers.Activation("sigmoid")],
        [layers.Dense(1), Predictions("classes", ["no", "yes"])],
    ],
)
def test_one_logit_has_two_sides(ending):
    model = cnn(*[type(layer).from_config(layer.get_config()) for layer in ending])
    network = Network(model, "image", IMAGES[:1])
    outputs = network.outputs(IMAGES)
    assert network.pair and network.num_outputs == 2
    np.testing.assert_allclose(outputs[:, 0], -outputs[:, 1])
    np.testing.assert_allclose(network.probabilities(outputs)[:, 1], model(IMAGES)[:, -1], atol=1e-6)


def test_labels_and_values_keep_their_meaning():
    labels = cnn(layers.Dense(3), Predictions("labels", ["a", "b", "c"]))
    network = Network(labels, "image", IMAGES[:1], class_names=["a", "b", "c"])
    assert network.target == "labels"
    np.testing.assert_allclose(network.probabilities(network.outputs(IMAGES)), labels(IMAGES), atol=1e-6)
    values = cnn(layers.Dense(2), Predictions("values", ["x", "y"], scale=[10.0, 2.0], offset=[5.0, 1.0]))
    network = Network(values, "image", IMAGES[:1])
    assert network.target == "values" and network.scale == "value"
    np.testing.assert_allclose(network.outputs(IMAGES), values(IMAGES), atol=1e-5)


def test_probabilities_are_explained_on_request():
    model = cnn(layers.Dense(3, activation="softmax"))
    network = Network(model, "image", IMAGES[:1], probability=True)
    assert network.scale == "probability"
    np.testing.assert_allclose(network.outputs(IMAGES), model(IMAGES), atol=1e-6)


def test_a_subclassed_model_whose_softmax_no_layer_holds_gives_log_probabilities():
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.dense = layers.Flatten(), layers.Dense(4)

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return keras.ops.softmax(self.dense(self.flat(keras.ops.cast(inputs, "float32") / 255)))

        def build(self, shape: tuple[int | None, ...]) -> None:
            self.dense.build((None, 192))

    model = Own()
    model(IMAGES)
    network = Network(model, "image", IMAGES[:1])
    outputs = network.outputs(IMAGES)
    np.testing.assert_allclose(outputs, np.log(model(IMAGES)), atol=1e-5)
    np.testing.assert_allclose(network.probabilities(outputs), model(IMAGES), atol=1e-6)


def test_a_map_of_decisions_is_their_mean():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(1, 3)(inputs))
    network = Network(model, "image", IMAGES[:1].astype("float32"))
    assert network.num_outputs == 1 and network.target == "values"
    batch = IMAGES.astype("float32")
    np.testing.assert_allclose(network.outputs(batch)[:, 0], np.mean(model(batch), axis=(1, 2, 3)), rtol=1e-5)


def test_several_outputs_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(DlcliError, match="2 outputs"):
        Network(model, "table", np.zeros((1, 4), "float32"))


def test_batches_and_compiling_change_nothing():
    network = Network(cnn(layers.Dense(3, activation="softmax")), "image", IMAGES[:1])
    many = np.concatenate([IMAGES] * 5)
    np.testing.assert_allclose(network.outputs(many, batch_size=4), network.outputs(many), atol=1e-6)
    np.testing.assert_allclose(network.outputs(many), network.forward(many), atol=1e-6)


def test_weights_that_change_are_seen_by_what_was_compiled():
    model = cnn(layers.Dense(3, activation="softmax"))
    network = Network(model, "image", IMAGES[:1])
    before = network.outputs(IMAGES)
    model.layers[-1].bias.assign([1.0, 2.0, 3.0])
    np.testing.assert_allclose(network.outputs(IMAGES) - before, np.tile([1.0, 2.0, 3.0], (3, 1)), atol=1e-5)


def test_whole_pixels_get_a_gradient_behind_the_layer_that_scales_them():
    network = Network(cnn(layers.Dense(3, activation="softmax")), "image", IMAGES[:1])
    entered = network.at_entry(tf.constant(IMAGES))
    np.testing.assert_allclose(entered, IMAGES / 255, atol=1e-6)
    np.testing.assert_allclose(
        network.from_entry(entered, tf.constant(IMAGES)), network.outputs(IMAGES), atol=1e-5
    )
    with tf.GradientTape() as tape:
        tape.watch(entered)
        logits = network.from_entry(entered, tf.constant(IMAGES))[:, 0]
    assert float(tf.reduce_max(tf.abs(tape.gradient(logits, entered)))) > 0


def test_pixels_that_no_layer_scales_have_no_gradient():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Conv2D(3, 3, padding="same")(keras.ops.cast(inputs, "float32") / 255)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(DlcliError, match="use occlusion, rise, lime or shap"):
        _ = Network(model, "image", IMAGES[:1]).entry


def test_an_embedding_that_also_gives_the_logits_is_replaced_once():
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32")
    embedding = layers.ReversibleEmbedding(11, 4)
    features = layers.Dense(4)(embedding(tokens))
    model = keras.Model(tokens, embedding(features, reverse=True))
    rows = np.array([[1, 2, 3, 0], [4, 5, 6, 7]], np.int32)
    network = Network(model, "text", rows, language=True)
    outputs = network.outputs(rows)
    np.testing.assert_allclose(
        outputs[0], model(rows)[0, 2], atol=1e-6
    )  # behind the last token, not the padding
    np.testing.assert_allclose(outputs[1], model(rows)[1, 3], atol=1e-6)
    entered = network.at_entry(tf.constant(rows))
    np.testing.assert_allclose(
        network.from_entry(entered * 0 + entered, tf.constant(rows)), outputs, atol=1e-5
    )
    assert np.abs(network.from_entry(entered * 0, tf.constant(rows)) - outputs).max() > 1e-3


def test_layers_are_found_inside_nested_models_in_the_order_in_which_they_run():
    inner = keras.Sequential([layers.Conv2D(2, 3, name="deep"), layers.ReLU(name="relu")], name="inner")
    model = keras.Sequential([keras.Input((8, 8, 3)), inner, layers.GlobalAveragePooling2D(name="pool")])
    seen = layers_that_run(model, IMAGES[:1].astype("float32"))
    assert [each.name for each in seen] == ["inner/deep", "inner/relu", "pool"]
    assert [each.name for each in seen if spatial(each)] == ["inner/deep", "inner/relu"]
    assert seen[0].shape == (1, 6, 6, 2) and seen[-1].is_output


def test_a_hook_is_gone_after_its_block_also_when_it_raises():
    layer = layers.Dense(2)
    expected = layer(np.ones((1, 3), "float32"))
    with pytest.raises(ZeroDivisionError), hooked(layer, lambda call, *args, **kwargs: 1 / 0):
        layer(np.ones((1, 3), "float32"))
    assert "call" not in layer.__dict__
    np.testing.assert_array_equal(layer(np.ones((1, 3), "float32")), expected)


def test_a_model_made_of_a_list_of_one_input_is_given_a_list():
    whole = cnn(layers.Dense(3))
    listed = keras.Model(whole.inputs, whole.output)
    network = Network(listed, "image", IMAGES[:1])
    np.testing.assert_allclose(network.outputs(IMAGES), whole(IMAGES), atol=1e-6)


def test_class_names_must_be_as_many_as_outputs():
    info = DataInfo("image", (8, 8, 3), "classes", ("a", "b"))
    with pytest.raises(DlcliError, match="3 numbers"):
        Network(cnn(layers.Dense(3)), "image", IMAGES[:1], class_names=info.class_names)
