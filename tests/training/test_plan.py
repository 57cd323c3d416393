"""A plan's numbers, against networks small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlcli.errors import DlcliError
from dlcli.recipe.load import load_recipe
from dlcli.training import plan as plans
from dlcli.training.plan import make_plan, print_plan

BASE = ("optimizer={name: sgd, learning_rate: 0.1}", "schedule=constant", "training.epochs=3")


def plan(tmp_path: Path, *changes: str, name: str = "iris_mlp") -> dict[str, Any]:
    return make_plan(load_recipe(name, [*BASE, *changes]), tmp_path / "plan.png")


def test_one_layer_counted_by_hand(tmp_path: Path) -> None:
    found = plan(tmp_path, "architecture=perceptron", "training.batch_size=16")
    assert found["parameters"] == {"trainable": 4 * 3 + 3, "total": 4 * 3 + 3}
    assert found["flops_per_example"] == 2 * 4 * 3 + 3  # a multiply-add is two, a bias one
    assert found["data"] == {"train": 108, "validation": 12, "test": 30}
    assert (found["steps_per_epoch"], found["steps"]) == (7, 21)
    assert (found["input_shape"], found["output_shape"]) == ([4], [3])
    assert found["classes"] == ["setosa", "versicolor", "virginica"]
    assert [layer["parameters"] for layer in found["layers"]] == [0, 0, 15]
    assert found["learning_rate"] == pytest.approx({"first": 0.1, "highest": 0.1, "last": 0.1})
    json.dumps(found, allow_nan=False)
    with Image.open(tmp_path / "plan.png") as picture:
        assert picture.width > 100


def test_hidden_layers_and_batch_normalization_counted_by_hand(tmp_path: Path) -> None:
    found = plan(tmp_path, "architecture={name: mlp, hidden: [16, 8], activation: linear}")
    kernels = 4 * 16 + 16 * 8 + 8 * 3
    biases = 16 + 8 + 3
    assert found["parameters"]["total"] == kernels + biases
    assert found["flops_per_example"] == 2 * kernels + biases
    normalized = plan(tmp_path, "architecture={name: mlp, hidden: [16], normalization: batch}")
    # No bias below a normalization; its mean and variance are not trained.
    assert normalized["parameters"] == {
        "trainable": 4 * 16 + 2 * 16 + 16 * 3 + 3,
        "total": 115 + 4 * 16 - 32 + 32,
    }


def test_a_convolution_counted_by_hand(tmp_path: Path) -> None:
    base = plan(
        tmp_path, "architecture={name: cnn, filters: [4], dense: [8], normalization: none}", name="digits_cnn"
    )
    convolutions = [layer for layer in base["layers"] if layer["type"] == "Conv2D"]
    dense = [layer for layer in base["layers"] if layer["type"] == "Dense"]
    multiply_adds = 0
    for layer in convolutions:
        height, width, filters = layer["output"]
        multiply_adds += height * width * (layer["parameters"] - filters)
    multiply_adds += sum(layer["parameters"] - layer["output"][0] for layer in dense)
    # Biases, activations and pooling come on top, and cost far less.
    assert 2 * multiply_adds < base["flops_per_example"] < 2.2 * multiply_adds


def test_memory_grows_with_the_batch_by_its_activations_and_with_the_optimizers_slots(tmp_path: Path) -> None:
    small, large = (
        plan(tmp_path, "architecture=perceptron", f"training.batch_size={size}") for size in (16, 32)
    )
    activations = 4 + 4 + 3  # input, flattened, logits
    assert large["memory_bytes"] - small["memory_bytes"] == 4 * 16 * activations
    adam = plan(tmp_path, "architecture=perceptron", "training.batch_size=16", "optimizer={name: adam}")
    assert adam["memory_bytes"] - small["memory_bytes"] == 4 * 2 * 15  # two moments a weight
    assert small["memory_bytes"] > 4 * (2 * 15 + 16 * activations)
    parts = plan(
        tmp_path, "architecture=perceptron", "training.batch_size=32", "training.gradient_accumulation=5"
    )
    # Outputs of 7 examples at most, and the gradients' sum beside those of a part.
    assert large["memory_bytes"] - parts["memory_bytes"] == 4 * ((32 - 7) * activations - 15)


def test_several_devices_share_batch_and_activations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans.out, "width", 200)
    changes = ("architecture=perceptron", "training.batch_size=15")
    one = plan(tmp_path, *changes)
    assert one["distribution"] == {
        "strategy": "none", "devices": ["CPU:0"], "workers": 1, "replicas": 1, "why": "one CPU is here",
        "described": "CPU:0",
    }  # fmt: skip
    assert one["batch_size_per_replica"] == 15
    two = plan(tmp_path, *changes, "distribution.logical_devices=2")
    assert (two["distribution"]["strategy"], two["distribution"]["devices"]) == (
        "mirrored",
        ["CPU:0", "CPU:1"],
    )
    assert (two["batch_size"], two["batch_size_per_replica"], two["steps"]) == (15, 8, one["steps"])
    activations, weights = 4 + 4 + 3, 15
    # Outputs of 8 examples at most, and the sum of all devices' gradients beside a device's own.
    assert one["memory_bytes"] - two["memory_bytes"] == 4 * ((15 - 8) * activations - weights)
    print_plan(two, as_json=False)
    printed = capsys.readouterr().out
    assert "mirrored: CPU:0, CPU:1 (logical_devices 2)" in printed
    assert "15, 8 at most on each of 2 devices" in printed and "MiB on each device" in printed


def test_workers_are_planned_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [f"127.0.0.1:{port}" for port in (1, 2, 3, 4)]
    task = {"type": "worker", "index": 2}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": addresses}, "task": task}))
    found = plan(
        tmp_path, "architecture=perceptron", "training.batch_size_per_replica=4",
        "training.scale_learning_rate=linear",
    )  # fmt: skip
    assert (found["distribution"]["strategy"], found["distribution"]["workers"]) == ("multi_worker", 4)
    assert (found["batch_size"], found["batch_size_per_replica"]) == (16, 4)
    assert found["learning_rate"]["first"] == pytest.approx(0.4)
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(DlcliError, match="neither TF_CONFIG nor Slurm names several workers"):
        plan(tmp_path, "distribution.strategy=multi_worker")


def test_a_plan_is_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans.out, "width", 160)
    found = plan(tmp_path, "architecture=perceptron")
    print_plan(found, as_json=False)
    printed = capsys.readouterr().out
    for text in ("perceptron for tabular_classification", "train 108", "15 (15 trainable)", "21 (7 an epoch"):
        assert text in printed


def test_two_networks_are_counted_one_by_one(tmp_path: Path) -> None:
    """mlp_gan of the digits: 64 pixels, 4 latents, one hidden layer on each side."""
    architecture = "{name: mlp_gan, latent_dimension: 4, hidden: [8], discriminator_hidden: [6], dropout: 0}"
    found = make_plan(
        load_recipe(
            "digits_cnn",
            [
                "task={name: gan, objective: wasserstein}", f"architecture={architecture}", "training.epochs=2",
                "dataset={name: digits}", "training.batch_size=16", "regularization={}",
                "optimizer={generator: {name: sgd, learning_rate: 0.1}, discriminator: {name: sgd, learning_rate: 0.2}}",
                "schedule={generator: constant, discriminator: {name: polynomial_decay, end_learning_rate: 0, power: 1}}",
            ],
        ),
        tmp_path / "plan.png",
    )  # fmt: skip
    generator, discriminator = 4 * 8 + 8 + 8 * 64 + 64, 64 * 6 + 6 + 6 + 1
    networks = found["networks"]
    assert networks["generator"]["parameters"] == {"trainable": generator, "total": generator}
    assert networks["discriminator"]["parameters"] == {"trainable": discriminator, "total": discriminator}
    assert found["parameters"]["trainable"] == generator + discriminator
    flops = {role: about["flops_per_example"] for role, about in networks.items()}
    assert flops["discriminator"] >= 2 * (64 * 6 + 6) and sum(flops.values()) == found["flops_per_example"]
    assert found["input_shape"] == {"generator": [4], "discriminator": [8, 8, 1]}
    assert found["output_shape"] == {"generator": [8, 8, 1], "discriminator": [1]}
    names = [layer["name"] for layer in found["layers"]]
    assert {name.split("/")[0] for name in names} == {"generator", "discriminator"}
    rates = found["learning_rates"]
    assert rates["generator"] == pytest.approx({"first": 0.1, "highest": 0.1, "last": 0.1})
    # Five updates of the critic in a step: its rate ends near 0 only when they are counted.
    assert rates["discriminator"]["first"] == pytest.approx(0.2)
    assert rates["discriminator"]["last"] < 0.2 * 6 / (5 * found["steps"])
    # The discriminator's outputs are kept for real and for drawn images.
    outputs = {role: sum(int(np.prod(layer["output"])) for layer in found["layers"] if layer["name"].startswith(role))
               for role in networks}  # fmt: skip
    activations = outputs["generator"] + 2 * outputs["discriminator"]
    weights = 2 * (generator + discriminator)
    assert found["memory_bytes"] == pytest.approx(4 * (weights + 16 * activations), rel=0.01)


def test_two_networks_are_shown_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(
        "digits_cnn",
        [
            "task={name: gan}",
            "architecture={name: mlp_gan, hidden: [4]}",
            "dataset={name: digits}",
            "regularization={}",
        ],
    )
    print_plan(make_plan(recipe, tmp_path / "plan.png"), as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "generator/dense" in shown and "discriminator/logits" in shown
    assert "M an image forward" in shown and "discriminator first" in shown
    assert "10 names" not in shown, "images come out, not classes"
