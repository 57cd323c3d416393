"""The networks of image translation at their papers' sizes, against the counts of the authors' own code."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dlcli.architectures.cycle_gan import cycle_gan
from dlcli.architectures.patch_discriminator import patch_discriminator
from dlcli.architectures.pix2pix import pix2pix


def images(side: int) -> keras.KerasTensor:
    return keras.Input((side, side, 3))


def trained(network: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


def test_cycle_gan_counts_of_the_authors_code() -> None:
    """junyanz/pytorch-CycleGAN-and-pix2pix prints 11.378 M and 2.765 M."""
    networks = cycle_gan(images(256))
    assert trained(networks["a_to_b"]) == trained(networks["b_to_a"]) == 11_378_179
    assert trained(networks["discriminator_a"]) == 2_764_737
    assert networks["discriminator_a"].output_shape == (None, 30, 30, 1)
    six = trained(cycle_gan(images(128))["a_to_b"])
    assert six == 11_378_179 - 3 * 2 * (9 * 256 * 256 + 256), "three residual blocks less below 256 pixels"


def test_pix2pix_counts_of_the_authors_code() -> None:
    """The authors' code prints 54.414 M and 2.769 M; it leaves out the 576 biases of two layers without normalization."""
    networks = pix2pix(images(256), normalization="batch")
    assert trained(networks["generator"]) == 54_413_955 + 64 + 512
    assert trained(networks["discriminator"]) == 2_768_705


def test_dropout_is_in_the_three_innermost_layers_of_the_decoder() -> None:
    """CD512-CD512-CD512-C512-...: Isola et al. 2017, section 6.1.1."""
    generator = pix2pix(images(32), filters=2, discriminator_filters=2, discriminator_layers=1)["generator"]
    dropouts = [layer for layer in generator.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.output.shape[1] for layer in dropouts] == [2, 4, 8]


@pytest.mark.parametrize(("layers", "width"), [(1, 16), (2, 34), (3, 70)])
def test_patches_are_as_wide_as_the_paper_says(layers: int, width: int) -> None:
    """A logit in the middle changes with the pixels of its patch and with no others; Isola et al. 2017, section 6.1.2."""
    inputs = keras.Input((96, 96, 1))
    network = patch_discriminator(
        inputs, inputs, filters=2, layers=layers, normalization="batch", name="patches"
    )
    row = network.output_shape[1] // 2
    batch = np.zeros((97, 96, 96, 1), np.float32)  # the last one stays empty
    batch[np.arange(96), np.arange(96)] = 1
    logits = np.asarray(network(batch))[:, row, row, 0]
    assert (logits[:96] != logits[96]).sum() == width


@pytest.mark.parametrize(
    ("build", "side", "arguments", "message"),
    [
        (cycle_gan, 30, {}, "Expected sides divisible by 4"),
        (cycle_gan, 16, {}, "at least 24 pixels for discriminator_layers 3"),
        (pix2pix, 15, {}, "Expected sides divisible by 2. Received: 15x15"),
        (pix2pix, 48, {"depth": 5}, "Expected sides divisible by 32. Received: 48x48"),
    ],
)
def test_sides_that_do_not_fit(build: Any, side: int, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(images(side), filters=4, discriminator_filters=4, **arguments)
