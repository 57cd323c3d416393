"""Parameter counts, exactly as the papers or their well-known implementations print them."""

from __future__ import annotations

import math
from pkgutil import resolve_name

import keras
import pytest

from dlcli.architectures import ARCHITECTURES

GREY, CIFAR, IMAGENET = (32, 32, 1), (32, 32, 3), (224, 224, 3)
PLAIN = {"normalization": "none"}
TUTORIAL = {"filters": [32, 64, 64], "dense": [64], "padding": "valid", "normalization": "none"}


def slow(*row):
    return pytest.param(*row, marks=pytest.mark.slow)


COUNTS = [
    ("perceptron", (28, 28, 1), 10, {}, 7_850),
    ("mlp", (28, 28, 1), 10, {}, 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
    # TensorFlow's tutorial, https://www.tensorflow.org/tutorials/images/cnn
    ("cnn", CIFAR, 10, TUTORIAL, 122_570),
    # C1 156, C3 2416, C5 48,120, F6 10,164, output 850
    ("lenet5", GREY, 10, {}, 61_706),
    ("lenet5", (28, 28, 1), 10, {}, 61_706),
    # bearpaw/pytorch-classification: 2.47 M
    ("alexnet", CIFAR, 10, {}, 2_472_266),
    # One tower of 96, 256, 384, 384, 256 filters: 62.38 M
    ("alexnet", IMAGENET, 1000, {}, 62_378_344),
    ("alexnet", (227, 227, 3), 1000, {}, 62_378_344),
    # kuangliu/pytorch-cifar's 14,728,266 without the 4,224 biases that batch normalization cancels
    ("vgg", CIFAR, 10, {"depth": 16}, 14_724_042),
    # torchvision's vgg11 to vgg19; table 2 of the paper: 133, 133, 138, 144 million
    ("vgg", IMAGENET, 1000, {"depth": 16, **PLAIN}, 138_357_544),
    slow("vgg", IMAGENET, 1000, {"depth": 11, **PLAIN}, 132_863_336),
    slow("vgg", IMAGENET, 1000, {"depth": 13, **PLAIN}, 133_047_848),
    slow("vgg", IMAGENET, 1000, {"depth": 19, **PLAIN}, 143_667_240),
    # Table 6: 0.27, 0.46, 0.66, 0.85, 1.7 million; exact in akamaster/pytorch_resnet_cifar10
    ("resnet", CIFAR, 10, {"depth": 20}, 269_722),
    slow("resnet", CIFAR, 10, {"depth": 32}, 464_154),
    slow("resnet", CIFAR, 10, {"depth": 44}, 658_586),
    slow("resnet", CIFAR, 10, {"depth": 56}, 853_018),
    ("resnet", CIFAR, 10, {"depth": 110}, 1_727_962),
    # Option B: two 1x1 convolutions and their normalizations more (16 * 32 + 64 + 32 * 64 + 128)
    ("resnet", CIFAR, 10, {"depth": 20, "shortcut": "project"}, 269_722 + 2_752),
    # kuangliu/pytorch-cifar's ResNet18
    ("resnet", CIFAR, 10, {"depth": 18, "stem": "small"}, 11_173_962),
    # torchvision's resnet18 to resnet152
    ("resnet", IMAGENET, 1000, {"depth": 18}, 11_689_512),
    slow("resnet", IMAGENET, 1000, {"depth": 34}, 21_797_672),
    ("resnet", IMAGENET, 1000, {"depth": 50}, 25_557_032),
    slow("resnet", IMAGENET, 1000, {"depth": 101}, 44_549_160),
    slow("resnet", IMAGENET, 1000, {"depth": 152}, 60_192_808),
    # Table 4: 36.5, 11.0, 8.9 million
    ("wide_resnet", CIFAR, 10, {}, 36_479_194),
    ("wide_resnet", CIFAR, 10, {"depth": 16, "width": 8}, 10_961_370),
    slow("wide_resnet", CIFAR, 10, {"depth": 40, "width": 4}, 8_949_210),
    # airbench94: 1.97 million. Whitening bias 24; groups of 9 * (in + out) * out and 2 * out; output 2,570
    (
        "airbench",
        CIFAR,
        10,
        {},
        24 + 9 * ((24 + 64) * 64 + (64 + 256) * 256 + 512 * 256) + 2 * (64 + 256 + 256) + 2_570,
    ),
    # keras.applications' EfficientNetB0 (5,330,571 with 42,023 statistics) with 10 classes for 1000
    ("application", IMAGENET, 10, {"model": "efficientnet_b0", "weights": "none"}, 4_020_358),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "classes", "arguments", "expected"), COUNTS)
def test_trainable_parameters(name, shape, classes, arguments, expected):
    inputs = keras.Input(shape)
    # Zeros cost no drawing of 138 million numbers.
    cheap = {"initializer": "zeros"} if name not in ("perceptron", "airbench", "application") else {}
    features = resolve_name(ARCHITECTURES[name])(inputs, **arguments, **cheap)
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(inputs, keras.layers.Dense(classes, kernel_initializer="zeros")(features))
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == expected
