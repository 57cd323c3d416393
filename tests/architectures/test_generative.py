"""What holds for every architecture of the table that is a set of networks."""

from __future__ import annotations

import inspect
from itertools import product
from pkgutil import resolve_name
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from dlcli.architectures import ARCHITECTURES, GENERATIVE
from dlcli.pretrained.model_file import load_model_file

BATCH = CLASSES = 4


class Tiny(NamedTuple):
    """A small member of a family.

    Args:
        shape: of the images.
        arguments: those that use the whole builder.
        labels: whether it can be told classes.
    """

    shape: tuple[int, int, int]
    arguments: dict[str, Any]
    labels: bool = True


# A new family needs a row; one whose arguments exclude each other has several.
TINY = {
    "mlp_gan": [
        Tiny((6, 5, 1), {"latent_dimension": 8, "hidden": [12], "discriminator_hidden": [12], "dropout": 0.0})
    ],
    "dcgan": [
        Tiny((8, 16, 3), {"latent_dimension": 8, "filters": 4}),
        Tiny(
            (14, 14, 1),
            {"latent_dimension": 8, "filters": 4, "spectral_normalization": True, "upsampling": "nearest"}
            | {"normalization": "layer", "discriminator_normalization": "none"},
        ),
    ],
    "resnet_gan": [
        Tiny((16, 16, 3), {"latent_dimension": 8, "filters": [8, 6, 4], "discriminator_filters": [4, 6, 6]}),
        Tiny(
            (10, 20, 1),
            {"latent_dimension": 8, "filters": 4, "discriminator_filters": 4}
            | {"spectral_normalization": False, "discriminator_normalization": "layer"},
        ),
    ],
    "style_gan": [
        Tiny((16, 16, 3), {"latent_dimension": 8, "filters": 4, "largest_filters": 6, "mapping_layers": 2}),
        Tiny(
            (8, 12, 1),
            {
                "latent_dimension": 8,
                "filters": 4,
                "mapping_layers": 0,
                "noise": False,
                "minibatch_groups": None,
            },
        ),
    ],
    "cycle_gan": [
        Tiny(
            (16, 24, 3),
            {"filters": 4, "blocks": 1, "discriminator_filters": 4, "discriminator_layers": 2},
            labels=False,
        )
    ],
    "pix2pix": [
        Tiny(
            (16, 16, 3),
            {"filters": 4, "dropout": 0.0, "discriminator_filters": 4, "discriminator_layers": 2},
            labels=False,
        )
    ],
    "vae": [Tiny((8, 8, 1), {"latent_dimension": 5, "filters": [4, 6], "dense": 8}, labels=False)],
    "diffusion_unet": [
        Tiny(
            (8, 8, 3),
            {"filters": 8, "multipliers": [1, 2], "num_blocks": 1, "attention_size": 4, "num_heads": 2},
        )
    ],
}
CASES = [
    pytest.param((name, row, labels), id=f"{name}-{place}{'-labels' * labels}")
    for name, rows in TINY.items()
    for (place, row), labels in product(enumerate(rows), (False, True))
    if row.labels or not labels
]
Networks = dict[str, keras.Model]


def test_every_family_has_a_row():
    assert set(TINY) == set(GENERATIVE)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Tiny, bool]:
    return request.param


@pytest.fixture(scope="module")
def networks(case: tuple[str, Tiny, bool]) -> Networks:
    return build(*case)


@pytest.fixture(scope="module")
def moved(networks: Networks) -> Networks:
    """Weights off their start, where gains of one and strengths of zero hide what they do."""
    rng = np.random.default_rng(3)
    for network in networks.values():
        for weight in network.trainable_weights:
            weight.assign(weight + rng.normal(size=weight.shape) * 0.3)
    return networks


def build(name: str, row: Tiny, labels: bool) -> Networks:
    keras.utils.set_random_seed(0)
    builder = resolve_name(ARCHITECTURES[name])
    return builder(keras.Input(row.shape), CLASSES if labels else 0, **row.arguments)


def inputs_of(network: keras.Model, seed: int = 0) -> Any:
    """A batch of what a network reads."""
    rng = np.random.default_rng(seed)

    def numbers(part: keras.KerasTensor) -> tf.Tensor:
        if part.dtype == "int32":
            return tf.constant((np.arange(BATCH) + seed) % CLASSES, "int32")
        shape = (BATCH, *part.shape[1:])
        return tf.constant(
            rng.uniform(-1, 1, shape) if len(shape) == 4 else rng.normal(size=shape), "float32"
        )

    return keras.tree.map_structure(numbers, network.input)


def given(network: keras.Model, **parts: Any) -> Any:
    """Inputs as `inputs_of`, with the images that are given."""
    inputs = inputs_of(network)
    return inputs | parts if isinstance(inputs, dict) else parts.get("images", inputs)


def judged(discriminator: keras.Model, real: Any, fake: Any, **others: Any) -> tuple[Any, Any]:
    """Losses of who draws and of who judges."""
    on_fake = discriminator(given(discriminator, images=fake, **others), training=True)
    on_real = discriminator(given(discriminator, images=real, **others), training=True)
    softplus = ops.softplus
    return ops.mean(softplus(-on_fake)), ops.mean(softplus(-on_real)) + ops.mean(softplus(on_fake))


def losses(name: str, networks: Networks) -> dict[str, Any]:
    """Role -> what its weights lower in training."""
    task = GENERATIVE[name][0]
    if task == "gan":
        generator, discriminator = networks["generator"], networks["discriminator"]
        fake = generator(inputs_of(generator), training=True)
        # One image is judged by itself: a group's spread says nothing to a generator that has only begun.
        draws, judges = judged(discriminator, images_like(fake, 1), fake)
        return {"generator": draws, "discriminator": judges}
    if name == "pix2pix":
        source = inputs_of(networks["generator"])
        fake = networks["generator"](source, training=True)
        draws, judges = judged(networks["discriminator"], images_like(fake, 1), fake, source=source)
        return {"generator": draws + ops.mean(ops.abs(fake - source)), "discriminator": judges}
    if name == "cycle_gan":
        a, b = inputs_of(networks["a_to_b"]), inputs_of(networks["b_to_a"], 1)
        fake_a, fake_b = networks["b_to_a"](b, training=True), networks["a_to_b"](a, training=True)
        cycle = ops.mean(ops.abs(networks["b_to_a"](fake_b, training=True) - a))
        cycle += ops.mean(ops.abs(networks["a_to_b"](fake_a, training=True) - b))
        draws_a, judges_a = judged(networks["discriminator_a"], a, fake_a)
        draws_b, judges_b = judged(networks["discriminator_b"], b, fake_b)
        drawn = cycle + draws_a + draws_b
        return {"a_to_b": drawn, "b_to_a": drawn, "discriminator_a": judges_a, "discriminator_b": judges_b}
    if task == "autoencoding":
        images = inputs_of(networks["encoder"])
        means, log_variances = ops.split(networks["encoder"](images, training=True), 2, axis=-1)
        noise = images_like(means, 2)
        drawn = networks["decoder"](means + ops.exp(0.5 * log_variances) * noise, training=True)
        divergence = ops.mean(ops.square(means) + ops.exp(log_variances) - log_variances)
        loss = ops.mean(ops.square(drawn - images)) + divergence
        return {"encoder": loss, "decoder": loss}
    denoised = networks["denoiser"](inputs_of(networks["denoiser"]), training=True)
    return {"denoiser": ops.mean(ops.square(denoised - images_like(denoised, 1)))}


def images_like(tensor: Any, seed: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=tensor.shape) * 0.5, "float32")


def output_shapes(name: str, row: Tiny) -> dict[str, tuple[int | None, ...]]:
    """Role -> shape without the batch; None for what the architecture chooses."""
    patches = (None, None, 1)
    return {
        "gan": {"generator": row.shape, "discriminator": (1,)},
        "autoencoding": {"encoder": (10,), "decoder": row.shape},
        "diffusion": {"denoiser": row.shape},
    }.get(GENERATIVE[name][0]) or {
        "cycle_gan": {
            "a_to_b": row.shape,
            "b_to_a": row.shape,
            "discriminator_a": patches,
            "discriminator_b": patches,
        },
        "pix2pix": {"generator": row.shape, "discriminator": patches},
    }[name]


def test_roles_and_shapes(case, networks):
    name, row, labels = case
    shapes = output_shapes(name, row)
    assert set(networks) == set(shapes)
    for role, network in networks.items():
        output = network(inputs_of(network))
        assert output.dtype == tf.float32, role
        assert len(output.shape) == len(shapes[role]) + 1, role
        for size, expected in zip(output.shape, (BATCH, *shapes[role]), strict=True):
            assert expected in (None, size), (role, output.shape)
        assert np.isfinite(output).all()
        assert ("labels" in network.input if isinstance(network.input, dict) else False) == labels, role


def test_the_same_seed_gives_the_same_weights(case, networks):  # before any test that changes them
    for role, network in build(*case).items():
        for a, b in zip(network.weights, networks[role].weights, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_every_trainable_weight_gets_a_gradient(case, networks):
    with tf.GradientTape(persistent=True) as tape:
        values = losses(case[0], networks)
    assert set(values) == set(networks)
    dead = []
    for role, network in networks.items():
        weights = network.trainable_weights
        gradients = tape.gradient(values[role], [weight.value for weight in weights])
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is None or not np.any(tf.convert_to_tensor(gradient)):
                dead.append(f"{role}: {weight.path}")
    assert dead == []


def test_a_saved_network_gives_equal_outputs(moved, tmp_path):
    for role, network in moved.items():
        network.save(tmp_path / f"{role}.keras")
        loaded = load_model_file(tmp_path / f"{role}.keras")
        inputs = inputs_of(network)
        np.testing.assert_allclose(loaded(inputs), network(inputs), atol=1e-5, rtol=1e-5)


def test_what_is_told_changes_what_comes_out(moved):
    for role, network in moved.items():
        if not isinstance(network.input, dict):
            continue
        inputs = inputs_of(network)
        expected = np.asarray(network(inputs))
        for part, value in inputs.items():
            rolled = inputs | {part: tf.roll(value, 1, axis=0)}
            others = np.abs(np.asarray(network(rolled)) - expected).reshape(BATCH, -1).max(axis=1)
            assert (others > 1e-4).all(), (role, part)


def test_an_image_does_not_depend_on_its_batch(case, moved):
    for role, network in moved.items():
        if role.startswith("discriminator") and case[1].arguments.get("minibatch_groups", 4):
            continue  # the spread of a batch is what such a discriminator is told
        inputs = inputs_of(network)
        alone = keras.tree.map_structure(lambda part: part[1:2], inputs)
        np.testing.assert_allclose(network(alone), network(inputs)[1:2], atol=1e-5)


@pytest.mark.parametrize("name", sorted(GENERATIVE))
def test_the_signature_is_a_schema(name):
    builder = resolve_name(ARCHITECTURES[name])
    inputs, num_classes, *options = inspect.signature(builder).parameters.values()
    assert (inputs.name, num_classes.name, num_classes.default) == ("inputs", "num_classes", 0)
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    assert len(options) <= 7
    assert all(
        f"{parameter.name}: " in inspect.getdoc(builder) for parameter in (inputs, num_classes, *options)
    )


@pytest.mark.parametrize("name", ["dcgan", "resnet_gan", "style_gan"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (48, 48, 3)])
def test_sides_of_usual_data(name, shape):
    narrow = {"filters": 2} | ({"discriminator_filters": 2} if name == "resnet_gan" else {})
    networks = resolve_name(ARCHITECTURES[name])(keras.Input(shape), **narrow)
    assert networks["generator"].output.shape == (None, *shape)


@pytest.mark.parametrize("name", ["dcgan", "resnet_gan", "style_gan"])
def test_sides_that_do_not_halve_are_refused(name):
    with pytest.raises(ValueError, match="Received: 30x31"):
        resolve_name(ARCHITECTURES[name])(keras.Input((30, 31, 3)))
