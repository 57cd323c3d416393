"""The steps of image translation: what they minimize, and what the buffer shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from dlcli.training.steps.cycle import CycleTrainer
from dlcli.training.steps.image_buffer import ImageBuffer
from dlcli.training.steps.paired import PairedTrainer
from dlcli.training.steps.trainer import Trainer

SHAPE = (3, 2, 1)
RATE = 0.1
Losses = Callable[[dict[str, keras.Model]], Any]


class Scale(keras.layers.Layer):
    """images * weight: gradients that can be followed by hand."""

    def __init__(self, value: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(value), name="scale")
        self.built = True

    def call(self, images: Any) -> Any:
        return images * self.scale

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def scaling(value: float, name: str) -> keras.Model:
    images = keras.Input(SHAPE, name="images")
    return keras.Model(images, Scale(value)(images), name=name)


def judging_pairs() -> keras.Model:
    source, images = keras.Input(SHAPE, name="source"), keras.Input(SHAPE, name="images")
    logits = keras.layers.Add()([Scale(0.3)(source), Scale(-0.7)(images)])
    return keras.Model({"source": source, "images": images}, logits)


def step(trainer: Trainer, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """One step of plain gradient descent."""
    trainer.compile_players({player: keras.optimizers.SGD(RATE) for player in trainer.players})
    data = tf.data.Dataset.from_tensors((batch, tf.zeros(len(next(iter(batch.values()))))))
    return {name: values[0] for name, values in trainer.fit(data, verbose=0, shuffle=False).history.items()}


def descended(networks: dict[str, keras.Model], roles: list[str], loss: Callable[[], Any]) -> np.ndarray:
    """Where plain gradient descent on `loss` takes the weights of these networks."""
    variables = [weight for role in roles for weight in networks[role].trainable_variables]
    with tf.GradientTape() as tape:
        value = loss()
    return np.array(variables) - RATE * np.array(tape.gradient(value, variables))


def weights(networks: dict[str, keras.Model], roles: list[str]) -> np.ndarray:
    return np.array([weight for role in roles for weight in networks[role].trainable_variables])


def mean_difference(first: Any, second: Any) -> Any:
    return ops.mean(ops.abs(first - second))


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.uniform(-1, 1, (2, *SHAPE)).astype("float32") for name in ("a", "b")}


@pytest.mark.parametrize("identity_weight", [0.0, 5.0])
def test_cycle_gan_minimizes_the_losses_of_the_paper(
    images: dict[str, np.ndarray], identity_weight: float
) -> None:
    """Zhu et al. 2017, equations 1 to 3 with squares (section 4); half of it for the discriminators."""
    values = {"a_to_b": 0.9, "b_to_a": 0.8, "discriminator_a": 0.4, "discriminator_b": -0.6}
    networks = {role: scaling(value, role) for role, value in values.items()}
    forward, backward, judge_a, judge_b = networks.values()
    a, b = images["a"], images["b"]

    def generators() -> Any:
        cycle = mean_difference(backward(forward(a)), a) + mean_difference(forward(backward(b)), b)
        fooled = ops.mean((judge_b(forward(a)) - 1) ** 2) + ops.mean((judge_a(backward(b)) - 1) ** 2)
        identity = mean_difference(forward(b), b) + mean_difference(backward(a), a)
        return fooled + 10 * cycle + identity_weight * identity

    def discriminators() -> Any:
        fake_a, fake_b = backward(b), forward(a)
        return 0.5 * (
            ops.mean((judge_a(a) - 1) ** 2)
            + ops.mean(judge_a(fake_a) ** 2)
            + ops.mean((judge_b(b) - 1) ** 2)
            + ops.mean(judge_b(fake_b) ** 2)
        )

    drawing, judging = ["a_to_b", "b_to_a"], ["discriminator_a", "discriminator_b"]
    expected = [descended(networks, drawing, generators), descended(networks, judging, discriminators)]
    cycle = float(mean_difference(backward(forward(a)), a) + mean_difference(forward(backward(b)), b)) / 2
    logs = step(CycleTrainer(networks, identity_weight=identity_weight, buffer=0), images)
    np.testing.assert_allclose(weights(networks, drawing), expected[0], rtol=1e-5)
    np.testing.assert_allclose(weights(networks, judging), expected[1], rtol=1e-5)
    assert logs["cycle_loss"] == pytest.approx(cycle, rel=1e-5)
    assert ("identity_loss" in logs) == (identity_weight > 0)


def test_pix2pix_minimizes_the_losses_of_the_paper(images: dict[str, np.ndarray]) -> None:
    """Isola et al. 2017, equations 1 and 4; the generator sees the discriminator after its update, as in algorithm 1
    of Goodfellow et al. 2014.
    """
    networks = {"generator": scaling(0.5, "generator"), "discriminator": judging_pairs()}
    generator, judge = networks.values()
    source, target = tf.constant(images["a"]), tf.constant(images["b"])

    def judged(drawn: Any) -> Any:
        return judge({"source": source, "images": drawn})

    def discriminator() -> Any:
        real, fake = judged(target), judged(generator(source))
        return 0.5 * (ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake)))

    def drawing() -> Any:
        drawn = generator(source)
        return ops.mean(ops.softplus(-judged(drawn))) + 100 * mean_difference(drawn, target)

    expected_judge = descended(networks, ["discriminator"], discriminator)
    start = weights(networks, ["discriminator"])
    judge.set_weights(list(expected_judge))
    expected = descended(networks, ["generator"], drawing)
    judge.set_weights(list(start))
    step(PairedTrainer(networks), {"source": images["a"], "target": images["b"]})
    np.testing.assert_allclose(weights(networks, ["discriminator"]), expected_judge, rtol=1e-5)
    np.testing.assert_allclose(weights(networks, ["generator"]), expected, rtol=1e-5)


def test_buffer_is_that_of_a_loop_over_images() -> None:
    random = np.random.default_rng(3)
    size, batch = 5, 2
    buffer, held = ImageBuffer(size, SHAPE), []
    exchange = tf.function(buffer.exchange)
    returned = 0
    for number in range(30):
        images = np.stack([np.full(SHAPE, 2 * number + place, np.float32) for place in range(batch)])
        draws = random.random((batch, 2)).astype("float32")
        expected = images.copy()
        if len(held) < size:
            held += list(images)[: size - len(held)]
        else:
            for place in range(batch):
                slot = (int(draws[0, 1] * size) + place) % size
                if draws[place, 0] < 0.5:
                    expected[place], held[slot] = held[slot], images[place]
                    returned += 1
        np.testing.assert_array_equal(exchange(images, draws), expected)
        np.testing.assert_array_equal(buffer.images[: len(held)], np.stack(held))
    assert returned > 10


def test_discriminators_see_the_buffer(images: dict[str, np.ndarray]) -> None:
    networks = {
        role: scaling(0.5, role) for role in ("a_to_b", "b_to_a", "discriminator_a", "discriminator_b")
    }
    trainer = CycleTrainer(networks, buffer=2)
    draws = np.zeros((2, 2, 2), np.float32)
    drawn = networks["b_to_a"](images["b"])
    step(trainer, images | {"buffer": draws})
    np.testing.assert_allclose(trainer.buffers[0].images, drawn, rtol=1e-6)
    seen = []
    trainer.buffers[0].exchange = lambda fake, draws: seen.append(draws.shape) or fake  # type: ignore[method-assign]
    step(trainer, images | {"buffer": draws})
    assert seen[0] == (2, 2)
    assert trainer.count_params() == 4, "the buffers are no parameters"
    kept = {id(variable) for variable in trainer.non_trainable_variables}  # of a checkpoint
    assert {id(buffer.images) for buffer in trainer.buffers} <= kept
