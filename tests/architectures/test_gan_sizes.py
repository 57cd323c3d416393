"""Sizes of the networks of GANs: parameter counts of the papers' tables and of well-known implementations."""

from __future__ import annotations

import math
from itertools import pairwise
from pkgutil import resolve_name
from typing import Any

import keras
import pytest

from dlcli.architectures import ARCHITECTURES

BATCH_NORMALIZATION = 2  # parameters a channel


def count(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def build(name: str, shape: tuple[int, int, int], num_classes: int = 0, **arguments: Any) -> dict[str, Any]:
    return resolve_name(ARCHITECTURES[name])(keras.Input(shape), num_classes, **arguments)


def convolution(before: int, after: int, size: int = 3) -> int:
    return size * size * before * after + after


def generator_of_the_tables(latents: int, side: int, widths: list[int]) -> int:
    """Dense; blocks up, each BN, conv, BN, conv and a learnt shortcut; BN, conv (appendix B.4)."""
    total = (latents + 1) * side * side * widths[0]
    for before, after in pairwise(widths):
        total += convolution(before, after) + convolution(after, after) + convolution(before, after, 1)
        total += BATCH_NORMALIZATION * (before + after)
    return total + BATCH_NORMALIZATION * widths[-1] + convolution(widths[-1], 3)


def discriminator_of_the_tables(widths: list[int], halved: int) -> int:
    """Blocks, the first on pixels; hidden layers as wide as a block's input, shortcuts where something changes."""
    total, before = 0, 3
    for place, after in enumerate(widths):
        hidden = before if place else after
        total += convolution(before, hidden) + convolution(hidden, after)
        if place < halved or before != after:
            total += convolution(before, after, 1)
        before = after
    return total + before + 1


@pytest.mark.parametrize(
    ("side", "start", "widths", "judges", "halved"),
    [
        # CIFAR-10: 4.3 and 1.1 million parameters
        (32, 4, [256] * 4, [128] * 4, 2),
        # STL-10
        (48, 6, [512, 256, 128, 64], [64, 128, 256, 512, 1024], 4),
        # ImageNet
        pytest.param(
            128,
            4,
            [1024, 1024, 512, 256, 128, 64],
            [64, 128, 256, 512, 1024, 1024],
            5,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_resnet_gan_is_the_papers(side, start, widths, judges, halved):
    networks = build("resnet_gan", (side, side, 3))
    assert count(networks["generator"]) == generator_of_the_tables(128, start, widths)
    assert count(networks["discriminator"]) == discriminator_of_the_tables(judges, halved)


def test_resnet_gan_for_cifar10_in_figures():
    networks = build("resnet_gan", (32, 32, 3))
    assert (count(networks["generator"]), count(networks["discriminator"])) == (4_276_739, 1_053_825)
    # Gains and biases for each of ten classes in six normalizations of 256, and ten vectors of 128.
    told = build("resnet_gan", (32, 32, 3), 10)
    assert count(told["generator"]) == 4_276_739 + 9 * 6 * 2 * 256
    assert count(told["discriminator"]) == 1_053_825 + 10 * 128


def test_resnet_gan_with_layer_normalization_is_wgan_gps():
    """Its generator has 128 filters throughout; the published code normalizes with one gain for each channel."""
    arguments = {"filters": 128, "discriminator_normalization": "layer", "spectral_normalization": False}
    networks = build("resnet_gan", (32, 32, 3), **arguments)
    assert count(networks["generator"]) == generator_of_the_tables(128, 4, [128] * 4)
    # Before each activation but that of pixels: two in later blocks, one in the first, one at the end.
    assert count(networks["discriminator"]) == 1_053_825 + 8 * 2 * 128
    assert not any(layer.name.startswith("spectral") for layer in networks["discriminator"].layers)


def test_dcgan_is_pytorchs_example():
    """https://github.com/pytorch/examples/tree/main/dcgan has no biases: ours are next to pixels and at the logit."""
    networks = build("dcgan", (64, 64, 3))
    assert count(networks["generator"]) == 3_576_704 + 3
    assert count(networks["discriminator"]) == 2_765_568 + 64 + 1


@pytest.mark.slow
def test_style_gan_is_nvidias_at_1024_pixels():
    """As the log of NVlabs/stylegan2-ada-pytorch prints for its configuration stylegan2."""
    networks = build("style_gan", (1024, 1024, 3), latent_dimension=512, filters=32)
    assert count(networks["generator"]) == 30_370_060
    assert count(networks["discriminator"]) == 29_012_513


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": [8, 8]}, r"4 filters for images of 32x32.*Received: filters=\[8, 8\]"),
        ({"discriminator_filters": [8]}, r"at least 2 discriminator_filters.*Received: .*\[8\]"),
    ],
)
def test_lists_that_do_not_fit_the_image_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build("resnet_gan", (32, 32, 3), **arguments)


def test_a_generator_that_could_not_be_told_its_class_is_refused():
    with pytest.raises(ValueError, match="Received: normalization='none'"):
        build("resnet_gan", (32, 32, 3), 3, normalization="none")


@pytest.mark.parametrize(
    ("name", "option", "role"),
    [
        ("resnet_gan", {"normalization": "none"}, "generator"),
        ("resnet_gan", {"latent_dimension": 7}, "generator"),
        ("resnet_gan", {"discriminator_filters": [2, 3, 4]}, "discriminator"),
        ("style_gan", {"latent_dimension": 7}, "generator"),
        ("style_gan", {"mapping_layers": 3}, "generator"),
        ("style_gan", {"noise": False}, "generator"),
        ("style_gan", {"minibatch_groups": None}, "discriminator"),
        ("style_gan", {"largest_filters": 3}, "discriminator"),
        ("style_gan", {"largest_filters": 3}, "generator"),
    ],
)
def test_every_option_changes_a_network(name, option, role):
    small = {"filters": 2} | ({"discriminator_filters": 2} if name == "resnet_gan" else {})
    plain, changed = build(name, (16, 16, 1), **small), build(name, (16, 16, 1), **{**small, **option})
    assert count(plain[role]) != count(changed[role])
