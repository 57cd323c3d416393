"""The check of Adebayo et al. on a map that comes from the weights, and on one that does not."""

import keras
import numpy as np
import pytest
from keras import layers

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.network import Network
from dlcli.explain.trust.randomization import check, scrambled, ssim, weighted_layers

SIDE = 8


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([
        keras.Input((SIDE, SIDE, 3)), layers.Conv2D(4, 3, name="first"), layers.BatchNormalization(name="norm"),
    ])  # fmt: skip
    normalization = layers.Normalization(mean=[0.5] * 3, variance=[0.1] * 3)
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), normalization, inner, layers.Dropout(0.5), layers.Flatten(),
         layers.Dense(3, name="last")]
    )  # fmt: skip
    return Network(model, "image", np.zeros((1, SIDE, SIDE, 3), np.float32))


@pytest.fixture
def subjects():
    images = np.random.default_rng(0).random((4, SIDE, SIDE, 3)).astype(np.float32)
    return [Subject(str(index), image) for index, image in enumerate(images)]


def weights_of(network):
    return [each.numpy() for each in network.model.weights]


def occluding(network):
    """How much the output falls when a pixel is made black: comes from the weights alone."""

    def explain(subjects, outputs):
        found = []
        for subject, output in zip(subjects, outputs, strict=True):
            black = np.repeat(subject.inputs[None], SIDE**2, axis=0)
            black[np.arange(SIDE**2), np.arange(SIDE**2) // SIDE, np.arange(SIDE**2) % SIDE] = 0
            values = network.outputs(subject.inputs[None])[0, output] - network.outputs(black)[:, output]
            found.append(Attribution(values.reshape(SIDE, SIDE).astype(np.float32), signed=True))
        return found

    return explain


def edges(subjects, outputs):
    """A map of the picture, which knows nothing of the model."""
    return [Attribution(np.abs(np.diff(each.inputs.mean(-1), prepend=0)), signed=False) for each in subjects]


def test_the_layers_are_found_inside_nested_models_and_preprocessing_is_left_out(network):
    assert [name.split("/")[-1] for name, _ in weighted_layers(network)] == ["first", "norm", "last"]


def test_no_weight_is_left_out():
    class Own(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(3, name="inner")

        def build(self, shape):
            self.scale = self.add_weight(shape=(3,), name="scale")
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x) * self.scale

    tokens = keras.Input((4,), dtype="int32")
    sequence, *_ = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(
        layers.Embedding(9, 3)(tokens)
    )
    model = keras.Model(tokens, layers.Dense(2, name="last")(layers.Flatten()(Own()(sequence))))
    found = weighted_layers(Network(model, "text", np.ones((1, 4), np.int32)))
    assert sorted(id(each) for _, weights in found for each in weights) == sorted(map(id, model.weights))
    assert found[0][0].startswith("embedding")


def test_a_map_of_the_weights_passes_and_a_map_of_edges_does_not(network, subjects):
    before = weights_of(network)
    outputs = np.array([0, 1, 2, 0])
    passed = check(network, occluding(network), subjects, outputs)
    assert passed["passed"] is True
    assert abs(passed["spearman"]) < 0.5
    assert passed["verdict"].startswith("depends on the weights")
    # The cascade goes from the last layer to the first.
    assert [(each["layers"], each["down_to"].split("/")[-1]) for each in passed["stages"]] == [
        (1, "last"), (2, "norm"), (3, "first"),
    ]  # fmt: skip
    failed = check(network, edges, subjects, outputs)
    assert failed["passed"] is False
    assert failed["spearman"] == failed["ssim"] == 1
    assert "hardly depends" in failed["verdict"]
    for old, new in zip(before, weights_of(network), strict=True):
        np.testing.assert_array_equal(old, new)


def test_flat_maps_and_maps_of_few_parts_tell_nothing(network, subjects):
    def flat(subjects, outputs):
        return [Attribution(np.zeros((SIDE, SIDE), np.float32), signed=True) for _ in subjects]

    def two(subjects, outputs):
        return [Attribution(np.array([1.0, 2.0], np.float32), signed=True) for _ in subjects]

    for explain in (flat, two):
        result = check(network, explain, subjects, np.array([0, 1, 2, 0]))
        assert result["passed"] is None and "could not be checked" in result["verdict"]


def test_the_stages_are_few_and_the_last_scrambles_everything(network, subjects):
    stages = check(network, edges, subjects[:1], np.array([0]), stages=2)["stages"]
    assert [each["layers"] for each in stages] == [2, 3]


def test_the_weights_come_back_after_an_error(network, subjects):
    before = weights_of(network)
    calls = []

    def breaks(subjects, outputs):
        calls.append(any((old != new).any() for old, new in zip(before, weights_of(network), strict=True)))
        if len(calls) > 1:
            raise RuntimeError("out of memory")
        return edges(subjects, outputs)

    with pytest.raises(RuntimeError, match="out of memory"):
        check(network, breaks, subjects, np.array([0, 1, 2, 0]))
    assert calls == [False, True]
    for old, new in zip(before, weights_of(network), strict=True):
        np.testing.assert_array_equal(old, new)


def test_scrambling_keeps_every_weight_s_numbers_and_depends_on_the_seed(network):
    layer = network.model.layers[-1]
    before = layer.kernel.numpy()
    seen = []
    for seed in (0, 0, 1):
        with scrambled(layer.weights, seed=seed):
            seen.append(layer.kernel.numpy())
    assert (seen[0] != before).mean() > 0.9
    np.testing.assert_array_equal(np.sort(seen[0], axis=None), np.sort(before, axis=None))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).any()


def test_maps_that_are_not_finite_are_said_to_be_unchecked(network, subjects):
    def broken(subjects, outputs):
        return [Attribution(np.full((SIDE, SIDE), np.nan), signed=True) for _ in subjects]

    result = check(network, broken, subjects, np.array([0, 1, 2, 0]))
    assert result["passed"] is None
    assert "could not be checked" in result["verdict"]


def test_ssim_is_one_for_the_same_map_and_not_a_number_for_tiny_ones():
    some = np.random.default_rng(0).random((9, 9))
    assert ssim(some, 3 * some + 1) == pytest.approx(1)
    assert ssim(some, 1 - some) < 0
    assert np.isnan(ssim(some[:5, :5], some[:5, :5]))
