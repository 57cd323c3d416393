"""Two devices train as one does: the same batches, the same weights, the same history, whatever the recipe says."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Of digits 145 images to train on: of a batch size of 48 the last batch has 1, of 53 it has 39.
CNN = """
task: image_classification
dataset: {name: digits, validation_split: 0.9, normalization: standardize}
architecture: {name: cnn, filters: [4, 8], normalization: none}
"""
DENSE = CNN.replace("normalization: none", "dense: [8], normalization: none")
NORMALIZED = CNN.replace("normalization: none", "normalization: batch")
RESNET = """
task: image_classification
dataset: {name: digits, validation_split: 0.9, normalization: standardize}
architecture: {name: resnet, depth: 20}
"""
LSTM = """
task: text_classification
dataset: {name: text_csv, path: texts.csv, text: text, target: label, max_length: 12, validation_split: 0.3}
architecture: {name: rnn, units: [6], embedding_width: 6}
"""
TRANSFORMER = """
task: text_classification
dataset: {name: text_csv, path: texts.csv, text: text, target: label, max_length: 12, validation_split: 0.3}
architecture: {name: transformer, num_layers: 1, num_heads: 2, width: 8, feedforward_width: 8, dropout: 0.0}
"""
MASKED = """
task: {name: masked_language_modeling, mask_rate: 0.3}
dataset: {name: text_csv, path: texts.csv, text: text, target: label, max_length: 12, validation_split: 0.3}
architecture: {name: bert, num_layers: 1, num_heads: 2, width: 8, dropout: 0.0}
"""
DCGAN = """
task: {name: gan}
dataset: {name: digits}
architecture: {name: dcgan, filters: 4, latent_dimension: 8}
"""
VAE = """
task: {name: autoencoding}
dataset: {name: digits, validation_split: 0.9}
architecture: {name: vae}
"""
DIFFUSION = """
task: {name: diffusion}
dataset: {name: digits, validation_split: 0.9}
architecture: {name: diffusion_unet, filters: 8, num_blocks: 1}
"""
TWO_PER_STEP = {"batch_size": 48, "steps_per_epoch": 3}
SGD = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": SGD,
    "adam": {"name": "adam", "learning_rate": 0.003},
    "adamw": {"name": "adamw", "learning_rate": 0.003, "weight_decay": 0.1},
    "lion": {"name": "lion", "learning_rate": 0.001},
    "muon": {"name": "muon", "learning_rate": 0.003},
    "adafactor": {"name": "adafactor", "learning_rate": 0.003},
}


def case(name: str, text: str, optimizer: dict[str, Any] | str = "sgd", **sections: Any) -> dict[str, Any]:
    """A recipe of three epochs, with one device and with two."""
    training = {"epochs": 3, "batch_size": 53, **sections.pop("training", {})}
    source = sections.pop("source", None)
    chosen = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer
    parts = {"optimizer": chosen, "training": training, **sections}
    recipe = text + "\n".join(f"{key}: {json.dumps(value)}" for key, value in parts.items())
    return {"name": name, "recipe": recipe, **({} if source is None else {"source": source})}


def clipped(**how: float) -> dict[str, Any]:
    return {"regularization": {"gradient_clipping": how}}


ALWAYS = [
    case(
        "last batch of one image, clipped, penalized, smoothed, weighted, averaged",
        CNN,
        regularization={
            "gradient_clipping": {"norm": 0.3},
            "l2": 0.01,
            "label_smoothing": 0.1,
            "class_weights": {"0": 5.0, "1": 0.2},
            "ema": 0.8,
        },
        training={"batch_size": 48},
    ),
    case("odd batches, batch normalization", NORMALIZED, "adam", **clipped(global_norm=0.5)),
    case(
        "masked texts of unequal lengths, clipped",
        MASKED,
        regularization={"gradient_clipping": {"value": 0.05}},
        training={"batch_size": 13},
    ),
]
ONE_LEFT = {"training": {"batch_size": 48}}
IMAGE_CASES = [
    *(case(f"cnn, {name}", CNN, name) for name in OPTIMIZERS),
    *(case(f"cnn, batch normalization, {name}", NORMALIZED, name) for name in OPTIMIZERS),
    case("cnn, clipped by norm", CNN, **clipped(norm=0.1)),
    case("cnn, clipped by value", CNN, **clipped(value=0.02)),
    case("cnn, clipped by global norm", CNN, **clipped(global_norm=0.1)),
    case("cnn, averaged", CNN, regularization={"ema": 0.9}),
    case("cnn, L1 and L2", CNN, regularization={"l1": 0.001, "l2": 0.01}),
    case("cnn, class weights", CNN, regularization={"class_weights": {"0": 5.0, "1": 0.2}}),
    case("cnn, balanced class weights", CNN, regularization={"class_weights": "balanced"}),
    case("cnn, label smoothing", CNN, regularization={"label_smoothing": 0.2}),
    case("cnn, max norm", CNN, regularization={"max_norm": 0.5}),
    case("cnn, early stopping", CNN, regularization={"early_stopping": {"patience": 1, "min_delta": 0.5}}),
    case("cnn, in parts", CNN, training={"gradient_accumulation": 4}),
    case("cnn, one image left", CNN, **ONE_LEFT),
    case("cnn, one image left, in parts", CNN, training={"batch_size": 48, "gradient_accumulation": 3}),
    case("cnn, batch normalization, one image left", NORMALIZED, **ONE_LEFT),
    case("cnn, cosine decay", CNN, schedule={"name": "cosine_decay", "warmup_epochs": 1}),
    case("cnn, plateau", CNN, schedule={"name": "reduce_on_plateau", "patience": 1}),
    case("cnn, layer decay", CNN, source=case("", CNN)["recipe"], finetune={"layer_decay": 0.5}),
    case("cnn, LoRA", DENSE, source=case("", DENSE)["recipe"], finetune={"lora": {"rank": 2}}),
    case(
        "cnn, stages",
        NORMALIZED,
        source=case("", NORMALIZED)["recipe"],
        finetune={"stages": [{"freeze": "all", "epochs": 1}, {"epochs": 2, "learning_rate": 0.01}]},
    ),
]
DEEP_CASES = [
    case("resnet 20, sgd", RESNET, {"name": "sgd", "learning_rate": 0.0001, "momentum": 0.5}),
    case("resnet 20, adam", RESNET, {"name": "adam", "learning_rate": 0.0001}),
    case(
        "dcgan, adam", DCGAN, {"name": "adam", "learning_rate": 0.001, "beta_1": 0.5}, training=TWO_PER_STEP
    ),
    case("dcgan, sgd", DCGAN, {"name": "sgd", "learning_rate": 0.01}, training=TWO_PER_STEP),
    case("vae", VAE, "adam", training={"batch_size": 48}),
    case("diffusion", DIFFUSION, "adam", training={"batch_size": 48}),
]
TEXT_CASES = [
    *(case(f"lstm, {name}", LSTM, name, training={"batch_size": 13}) for name in OPTIMIZERS),
    *(case(f"transformer, {name}", TRANSFORMER, name, training={"batch_size": 13}) for name in OPTIMIZERS),
    *(case(f"masked, {name}", MASKED, name, training={"batch_size": 13}) for name in ("sgd", "adam")),
    case("lstm, in parts", LSTM, training={"batch_size": 13, "gradient_accumulation": 3}),
    case("lstm, one text left", LSTM, training={"batch_size": 8}),
    case("masked, one text left", MASKED, training={"batch_size": 8}),
]


def differences(folder: Path, cases: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `two_devices.py` finds."""
    draws = random.Random(0)
    lines = ["text,label"]
    for number in range(70):
        words = [f"word{draws.randrange(20)}" for _ in range(draws.randrange(1, 12))]
        lines.append(f"{' '.join(words)} {'good' if number % 3 else 'bad'},{'yes' if number % 3 else 'no'}")
    table = folder / "texts.csv"
    table.write_text("\n".join(lines))
    given = json.dumps(cases).replace("texts.csv", str(table))
    program = Path(__file__).parent / "two_devices.py"
    done = subprocess.run(
        [sys.executable, program, folder / "runs"], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def check(name: str, found: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    if "error" in found:
        return [f"{name}: {found['error'][-1500:]}"]
    wrong = []
    bound = 1e-5 if found["normalizes_batches"] else 1e-6
    for part in ("trainable", "non_trainable", "model"):
        if not found[part] <= bound:
            wrong.append(f"{name}: {part} {found[part]:.1e}")
    if found["moved"] < 1e-3:
        wrong.append(f"{name}: has learnt nothing")
    rows, others = found["histories"]
    if len(rows) != len(others) or found["best_epochs"][0] != found["best_epochs"][1]:
        wrong.append(f"{name}: {len(rows)} epochs, {len(others)} with two devices")
    pairs = [*zip(rows, others, strict=False), found["metrics"]]
    for row, other in pairs:
        assert row.keys() == other.keys()
        wrong += [
            f"{name}: {key} {row[key]} and {other[key]}"
            for key in row
            if key != "examples_per_second" and other[key] != pytest.approx(row[key], rel=1e-5, abs=1e-6)
        ]
    return wrong


def test_two_devices_train_as_one(tmp_path: Path) -> None:
    found = differences(tmp_path, ALWAYS)
    wrong = [text for name, results in found.items() for text in check(name, results)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("cases", [IMAGE_CASES, TEXT_CASES, DEEP_CASES], ids=["images", "texts", "deep"])
def test_all_that_learns_is_as_on_one_device(tmp_path: Path, cases: list[dict[str, Any]]) -> None:
    found = differences(tmp_path, cases)
    wrong = [text for name, results in found.items() for text in check(name, results)]
    assert len(found) == len(cases)
    assert not wrong, "\n".join(wrong)
