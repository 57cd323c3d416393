"""Class activation maps: numbers known from elsewhere, every kind of model, and what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.image import pixels
from dlcli.explain.image.cam import (
    grad_cam,
    grad_cam_map,
    grad_cam_plus_plus,
    layer_cam,
    layer_cam_map,
    layer_maps,
    plus_plus_weights,
    score_cam,
)
from dlcli.explain.image.layers import layer_of, map_layers
from dlcli.explain.network import Network
from dlcli.layers.predictions import Predictions

layers = keras.layers
ALL = (grad_cam, grad_cam_plus_plus, layer_cam, score_cam)
SIDE, CLASSES = 12, 3


def network_of(model: keras.Model, shape=(SIDE, SIDE, 3), dtype="float32") -> Network:
    return Network(model, "image", np.zeros((1, *shape), dtype))


def pictures(count=5, shape=(SIDE, SIDE, 3), dtype="float32", seed=0) -> list[Subject]:
    levels = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    images = levels.astype("uint8") if dtype == "uint8" else (levels / 255).astype("float32")
    return [Subject(str(index), image) for index, image in enumerate(images)]


def values_of(method, network, subjects, outputs, **options) -> np.ndarray:
    return np.stack([each.values for each in method(network, subjects, np.asarray(outputs), **options)])


# --- numbers from elsewhere -------------------------------------------------------------------------------------------


def captum_network() -> Network:
    """`BasicModel_ConvNet_One_Conv` of captum/testing/helpers/basic_models.py, whose Flatten has channels first."""
    image = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 3, name="conv", kernel_initializer="ones")(image)
    x = layers.ReLU(name="relu")(x)
    x = layers.Flatten()(layers.Permute((3, 1, 2))(x))
    model = keras.Model(image, layers.ReLU()(layers.Dense(4, name="fc")(x)))
    model.get_layer("conv").bias.assign([-50.0, -75.0])
    model.get_layer("fc").kernel.assign(np.repeat([[1.0]] * 5 + [[-1.0]] * 3, 4, axis=1))
    return network_of(model, (4, 4, 1))


@pytest.mark.parametrize(
    ("layer", "expected"), [("conv", [[11.25, 13.5], [20.25, 22.5]]), ("relu", [[0, 4], [28, 32.5]])]
)
def test_grad_cam_gives_the_numbers_of_captum(layer, expected):
    """captum tests/attr/layer/test_grad_cam.py, `test_simple_input_conv` and `..._relu`."""
    network = captum_network()
    image = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    found = layer_maps(network, layer_of(network, "grad_cam", layer), image, [0], grad_cam_map)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_layer_cam_counts_a_place_by_its_own_positive_gradient():
    # On captum's network after ReLU: channel 0 is (0, 4, 28, 37) * 1; of channel 1 only the first place has gradient 1.
    network = captum_network()
    image = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    seen = layer_of(network, "layer_cam", "relu")
    features = np.asarray(network.with_layer(seen.layer, image)[1])[0]
    expected = features[..., 0] + features[..., 1] * np.array([[1, 0], [0, 0]])
    np.testing.assert_allclose(layer_maps(network, seen, image, [0], layer_cam_map)[0], expected)


MAPS = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0]], "float32").T.reshape(1, 2, 2, 4)


def test_grad_cam_plus_plus_gives_the_weights_of_xplique():
    """xplique tests/attributions/test_grad_cam_pp.py, `test_weights_computation`; a map of zeros has weight 0, not NaN.

    xplique takes means over the 4 places where the paper, and this, has sums; so A is divided by 4, and the weights.
    """
    found = np.asarray(plus_plus_weights(tf.constant(MAPS / 4), tf.constant(MAPS)))[0] / 4
    expected = [4 / (8 + 4), 2 / (4 + 1) * 0.5, 0, 0.25 / (2 * 0.25 + 0.5**3 * 0.125) * 0.125]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_grad_cam_plus_plus_is_equation_19_and_stays_finite():
    # Equation 19 with the paper's sums, by hand: 4 / (2 + 4), 2 / (2 + 2), 0, 0.5 / (2 + 0.5 * 0.5).
    found = plus_plus_weights(tf.constant(MAPS), tf.constant(MAPS))
    np.testing.assert_allclose(found[0], [4 / 6, 0.5, 0, 0.5 / 2.25], rtol=1e-6)
    # A sum of -2 would make the denominator 0 at a gradient of 1.
    below = plus_plus_weights(tf.fill([1, 2, 2, 1], -0.5), tf.ones([1, 2, 2, 1]))
    assert np.asarray(below).tolist() == [[2.0]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["Gradcam", "Layercam"])
def test_equal_to_tf_keras_vis_where_that_works(method):
    pytest.importorskip("tf_keras_vis", reason="tf-keras-vis is what maps are compared with")
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.utils.scores import CategoricalScore

    model, subjects, classes = functional(plain_stack()), pictures(), [0, 1, 2, 1, 0]
    theirs = {"Gradcam": Gradcam, "Layercam": Layercam}[method](model, clone=False)
    expected = theirs(
        CategoricalScore(classes),
        np.stack([each.inputs for each in subjects]),
        penultimate_layer="last_conv",
        expand_cam=False,
        normalize_cam=False,
    )
    network = network_of(model)
    combine = {"Gradcam": grad_cam_map, "Layercam": layer_cam_map}[method]
    seen = layer_of(network, "grad_cam", "last_conv")
    found = layer_maps(network, seen, network.batch(subjects), classes, combine)
    assert np.asarray(found).max() > 1e-3
    np.testing.assert_allclose(found, np.asarray(expected).reshape(found.shape), atol=1e-6)


@pytest.mark.parametrize(("baseline", "level"), [("black", 0), ("white", 1)])
def test_score_cam_is_the_increase_of_confidence_channel_by_channel(baseline, level):
    network, (subject,), output = network_of(functional(plain_stack())), pictures(1), 2
    seen = layer_of(network, "score_cam")
    features = np.asarray(network.with_layer(seen.layer, subject.inputs[None])[1])[0]
    hidden = np.full((SIDE, SIDE, 3), level, "float32")
    start = network.outputs(hidden[None])[0, output]
    cam = np.zeros(features.shape[:2])
    for channel in np.moveaxis(features, -1, 0):
        if np.ptp(channel) == 0:
            continue
        mask = tf.image.resize((channel - channel.min())[..., None] / np.ptp(channel), (SIDE, SIDE)).numpy()
        gained = network.outputs((subject.inputs * mask + hidden * (1 - mask))[None])[0, output] - start
        cam += gained * channel
    expected = tf.image.resize(np.maximum(cam, 0)[..., None], (SIDE, SIDE))[..., 0]
    found = values_of(score_cam, network, [subject], [output], baseline=baseline)[0]
    assert found.max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- every kind of model ----------------------------------------------------------------------------------------------


def plain_stack() -> list[keras.layers.Layer]:
    keras.utils.set_random_seed(1)
    return [
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(6, 3, activation="relu", name="last_conv"),
        layers.MaxPooling2D(),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(CLASSES, bias_initializer=keras.initializers.RandomNormal(stddev=1)),
    ]


def functional(stack: list[keras.layers.Layer]) -> keras.Model:
    image = x = keras.Input((SIDE, SIDE, 3))
    for layer in stack:
        x = layer(x)
    return keras.Model(image, x)


def textbook(model: keras.Model, layer: str, images: np.ndarray, classes: list[int]) -> np.ndarray:
    """Grad-CAM as keras.io has it, which only works on a flat functional model."""
    both = keras.Model(model.inputs[0], [model.get_layer(layer).output, model.outputs[0]])
    with tf.GradientTape() as tape:
        features, outputs = both(images, training=False)
        score = tf.gather(outputs, classes, axis=1, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
    return tf.image.resize(maps[..., None], (SIDE, SIDE))[..., 0].numpy()


@keras.saving.register_keras_serializable("test_cam")
class Subclassed(keras.Model):
    def __init__(self, stack, **kwargs):
        super().__init__(**kwargs)
        self.stack = stack

    def call(self, images, training=False):
        for layer in self.stack:
            images = layer(images)
        return images


def nested(stack: list[keras.layers.Layer]) -> keras.Model:
    image = keras.Input((SIDE, SIDE, 3))
    backbone = keras.Sequential(stack[:5], name="backbone")
    middle = keras.Sequential([backbone], name="middle")
    x = middle(image)
    for layer in stack[5:]:
        x = layer(x)
    return keras.Model(image, x)


KINDS = {
    "functional": functional,
    "sequential": lambda stack: keras.Sequential([keras.Input((SIDE, SIDE, 3)), *stack]),
    "sequential without Input": keras.Sequential,
    "nested": nested,
    "subclassed": Subclassed,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_the_textbook_map(kind):
    stack, subjects, classes = plain_stack(), pictures(), [0, 1, 2, 2, 1]
    reference, images = functional(stack), np.stack([each.inputs for each in subjects])
    late, early = (textbook(reference, each, images, classes) for each in ("last_conv", stack[0].name))
    network = network_of(KINDS[kind](stack))
    found = grad_cam(network, subjects, np.array(classes))
    np.testing.assert_allclose(np.stack([each.values for each in found]), late, atol=1e-6)
    name = found[0].settings["layer"]
    assert name == ("middle/backbone/last_conv" if kind == "nested" else "last_conv")
    assert not found[0].signed
    # Another layer is compiled anew; the last part of its name is enough.
    np.testing.assert_allclose(
        values_of(grad_cam, network, subjects, classes, layer=stack[0].name), early, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["sequential", "nested"])
def test_a_reloaded_file_gives_the_same_map(kind, tmp_path):
    model = KINDS[kind](plain_stack())
    before = values_of(grad_cam, network_of(model), pictures(), [0, 1, 2, 2, 1])
    model.save(tmp_path / "model.keras")
    again = network_of(keras.saving.load_model(tmp_path / "model.keras"))
    np.testing.assert_allclose(
        values_of(grad_cam, again, pictures(), [0, 1, 2, 2, 1]), before, rtol=1e-5, atol=1e-7
    )


def dlcli_model() -> keras.Model:
    """As `dlcli train` saves one: uint8 in, scaled inside, a residual block, probabilities of named classes out."""
    keras.utils.set_random_seed(2)
    image = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    shortcut = x
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.ReLU(name="last_relu")(layers.Add()([x, shortcut]))
    x = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, Predictions("classes", ("a", "b", "c"))(x))


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_a_model_of_dlcli_whatever_the_batch_and_its_order(method, monkeypatch):
    network, subjects = network_of(dlcli_model(), dtype="uint8"), pictures(5, dtype="uint8")
    classes = np.array([2, 1, 0, 1, 2])
    found = method(network, subjects, classes)
    assert {each.settings["layer"] for each in found} == {"last_relu"}
    assert all(each.problem is None and each.values.dtype == np.float32 for each in found)
    monkeypatch.setattr(pixels, "PIXELS_AT_ONCE", 2 * SIDE * SIDE)  # two images in one call
    backwards = values_of(method, network, subjects[::-1], classes[::-1])[::-1]
    np.testing.assert_allclose(np.stack([each.values for each in found]), backwards, rtol=1e-4, atol=1e-6)
    other = values_of(method, network, subjects, (classes + 1) % 3)
    assert np.abs(other - backwards).max() > 1e-4, "another class has another map"


def test_logits_are_explained_and_not_the_softmax():
    # The gradient of a saturated softmax is 0, that of its logit is not.
    model = dlcli_model()
    model.layers[-2].kernel.assign(model.layers[-2].kernel * 1000)
    network = network_of(model, dtype="uint8")
    subjects = pictures(2, dtype="uint8")
    best = network.outputs(network.batch(subjects)).argmax(axis=1)
    assert values_of(grad_cam, network, subjects, best).max() > 1


def test_weights_that_change_change_the_map():
    # The compiled function must not keep the weights that it was traced with: the randomization check relies on it.
    model = dlcli_model()
    network, subjects = network_of(model, dtype="uint8"), pictures(2, dtype="uint8")
    before = values_of(grad_cam, network, subjects, [0, 0])
    model.layers[-2].kernel.assign(-model.layers[-2].kernel)
    assert np.abs(values_of(grad_cam, network, subjects, [0, 0]) - before).max() > 1e-3


def test_an_output_that_depends_on_nothing_has_a_flat_map():
    model = functional(plain_stack())
    model.layers[-1].kernel.assign(np.zeros(model.layers[-1].kernel.shape))
    network = network_of(model)
    for method in ALL:
        assert method(network, pictures(1), np.array([0]))[0].problem == "flat_map"


# --- the layer --------------------------------------------------------------------------------------------------------


def test_a_wrong_name_lists_the_layers_with_their_shapes():
    network = network_of(nested(plain_stack()))
    with pytest.raises(DlcliError) as error:
        layer_of(network, "grad_cam", "middle/backbone/lost_conv")
    message = str(error.value)
    assert "did you mean middle/backbone/last_conv?" in message
    assert "middle/backbone/last_conv (4, 4, 6)" in message
    assert "middle/backbone/dropout" in message and "(2, 2, 6)" in message


def test_a_layer_without_a_map_says_what_it_gives():
    network = network_of(captum_network().model, (4, 4, 1))
    with pytest.raises(DlcliError, match=r"--layer fc: gives \(4\), which is no map .*conv \(2, 2, 2\)"):
        layer_of(network, "grad_cam", "fc")


def test_two_layers_of_one_name_need_the_whole_name():
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.Sequential([layers.Conv2D(4, 3, name="conv")], name="one")(image)
    x = keras.Sequential([layers.Conv2D(4, 3, name="conv")], name="two")(x)
    network = network_of(keras.Model(image, layers.Dense(2)(layers.Flatten()(x))))
    with pytest.raises(DlcliError, match=r"2 layers are called so; .*one/conv .*two/conv"):
        layer_of(network, "grad_cam", "conv")
    assert layer_of(network, "grad_cam", "one/conv").shape == (1, 10, 10, 4)


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_a_model_without_a_map_is_refused_with_methods_that_work(method):
    image = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = layers.BatchNormalization()(layers.Rescaling(1 / 255)(image))  # a map, but of pixels
    x = layers.Dense(8, activation="relu")(layers.Flatten()(x))
    network = network_of(keras.Model(image, layers.Dense(2)(x)), dtype="uint8")
    with pytest.raises(DlcliError, match=rf"{method.__name__} needs .*integrated_gradients.*lime, shap"):
        method(network, pictures(1, dtype="uint8"), np.array([0]))


def test_a_vision_transformer_is_refused_unless_its_layer_is_named():
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(8, 3, strides=3, name="patches")(image)
    x = layers.Reshape((16, 8))(x)
    for _ in range(2):
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 2)(normal, normal)
        x = x + layers.Dense(8, activation="relu")(layers.LayerNormalization()(x))
    network = network_of(keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))))
    assert [seen.name for seen in map_layers(network.layers)] == ["patches"], "attention's scores are no maps"
    with pytest.raises(DlcliError, match=r"patches \(4, 4, 8\).* works on a sequence of patches"):
        layer_of(network, "grad_cam")
    assert layer_of(network, "grad_cam", "patches").name == "patches"


def test_the_default_is_behind_the_last_weights_and_not_their_pooling():
    network = network_of(functional(plain_stack()))
    assert layer_of(network, "grad_cam").name == "last_conv"
    assert len(map_layers(network.layers)) == 5
