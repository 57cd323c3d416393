"""The Dirac initializer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.layers import Dirac


def test_the_first_filters_pass_their_channel_through():
    keras.utils.set_random_seed(0)
    layer = keras.layers.Conv2D(7, 3, padding="same", use_bias=False, kernel_initializer=Dirac())
    images = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")
    outputs = np.asarray(layer(images))
    np.testing.assert_array_equal(outputs[..., :4], images)
    rest = np.asarray(layer.kernel)[..., 4:]
    assert rest.std() > 0
    assert np.abs(rest).max() <= 1 / np.sqrt(9 * 4)
    assert np.abs(rest).max() > 0.9 / np.sqrt(9 * 4)


def test_more_channels_than_filters():
    kernel = np.asarray(Dirac()((3, 3, 5, 2)))
    expected = np.zeros((3, 3, 5, 2))
    expected[1, 1, 0, 0] = expected[1, 1, 1, 1] = 1
    np.testing.assert_array_equal(kernel, expected)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_the_centre_of_even_kernels_is_after_the_middle(side):
    kernel = np.asarray(Dirac()((side, side, 1, 1)))[..., 0, 0]
    assert kernel[side // 2, side // 2] == kernel.sum() == 1


def test_seeds_work_as_in_keras():
    shape = (3, 3, 2, 8)
    np.testing.assert_array_equal(Dirac(3)(shape), Dirac(3)(shape))
    assert not np.array_equal(Dirac(3)(shape), Dirac(4)(shape))
    keras.utils.set_random_seed(1)
    first, second = np.asarray(Dirac()(shape)), np.asarray(Dirac()(shape))
    assert not np.array_equal(first, second)
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(Dirac()(shape), first)


def test_it_can_be_saved():
    restored = keras.initializers.deserialize(keras.initializers.serialize(Dirac(seed=5)))
    assert isinstance(restored, Dirac)
    np.testing.assert_array_equal(restored((3, 3, 2, 8)), Dirac(5)((3, 3, 2, 8)))


def test_other_kernels_are_refused():
    with pytest.raises(ValueError, match=r"Received: \(3, 4\)"):
        Dirac()((3, 4))
