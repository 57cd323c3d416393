"""Models from elsewhere come back as they were saved, and what is no such model is told apart."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import dlcli.tasks.language_modeling  # noqa: F401  registers classes that are no layers
from dlcli.errors import DlcliError
from dlcli.layers import PositionEmbedding
from dlcli.pretrained import model_file
from dlcli.pretrained.model_file import checked_weights_file, load_model_file

Config = dict[str, Any]
INPUT = np.random.default_rng(0).random((3, 4), "float32")


def small_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,), name="input"),
            keras.layers.Dense(3, activation="gelu", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )


# Good models


def functional(*layers: Callable[[Any], Any], shape: tuple[int | None, ...] = (4,)) -> keras.Model:
    x = inputs = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def normalized() -> keras.Model:
    layer = keras.layers.Normalization()
    layer.adapt(INPUT)
    return functional(layer, keras.layers.Dense(2))


def trained() -> keras.Model:
    model = small_model()
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    metrics = ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.mean_squared_error]
    model.compile(keras.optimizers.Adam(schedule), keras.losses.MeanSquaredError(), metrics=metrics)
    model.optimizer.build(model.trainable_variables)
    return model


def quantized() -> keras.Model:
    model = small_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of layers that stay as they are
        model.quantize("int8")
    return model


GOOD: dict[str, Callable[[], keras.Model]] = {
    "dense": small_model,
    "trained": trained,
    "normalization": normalized,
    "quantized": quantized,
    "operations": lambda: functional(
        lambda x: keras.ops.clip(x[:, 1:] * 2.0 + keras.ops.mean(x, axis=1, keepdims=True), -1, 1),
        keras.activations.relu,
        keras.ops.softmax,
    ),
    "nested": lambda: functional(
        functional(small_model(), keras.layers.Activation(keras.activations.silu)), keras.layers.Dense(1)
    ),
    "recurrent": lambda: functional(
        keras.layers.Reshape((4, 1)),
        keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True)),
        keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.GRUCell(2), keras.layers.LSTMCell(2)])),
    ),
    "convolutions": lambda: functional(
        keras.layers.Reshape((2, 2, 1)),
        keras.layers.RandomFlip(seed=3),
        keras.layers.SeparableConv2D(3, 1, depthwise_initializer=keras.initializers.Orthogonal(seed=1)),
        keras.layers.BatchNormalization(gamma_regularizer=keras.regularizers.L2(0.1)),
        keras.layers.TimeDistributed(keras.layers.Dense(2, kernel_constraint="max_norm")),
        keras.layers.Dropout(0.5, seed=1),
    ),
    "attention": lambda: functional(
        keras.layers.Reshape((4, 1)),
        keras.layers.EinsumDense("abc,cd->abd", (None, 6), dtype="mixed_bfloat16"),
        PositionEmbedding("learned", max_length=8),
        lambda x: keras.layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x, use_causal_mask=True),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_models_come_back_as_they_were(files: Any, name: str, tmp_path: Path) -> None:
    model = GOOD[name]()
    loaded = load_model_file(files.save(model, tmp_path / "model.keras"))
    np.testing.assert_array_equal(np.asarray(loaded(INPUT)), np.asarray(model(INPUT)))
    assert not loaded.compiled
    assert [weight.trainable for weight in loaded.weights] == [weight.trainable for weight in model.weights]


@pytest.mark.parametrize("name", ["dense", "trained", "normalization", "nested", "recurrent"])
def test_h5_models_come_back_as_they_were(files: Any, name: str, tmp_path: Path) -> None:
    model = GOOD[name]()
    loaded = load_model_file(files.save(model, tmp_path / "model.h5"))
    np.testing.assert_array_equal(np.asarray(loaded(INPUT)), np.asarray(model(INPUT)))


def test_a_vocabulary_among_the_assets_comes_along(files: Any, tmp_path: Path) -> None:
    words = keras.layers.TextVectorization(output_sequence_length=3)
    words.adapt(["a cat sat", "the cat"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Embedding(9, 2)])
    loaded = load_model_file(files.save(model, tmp_path / "model.keras"))
    assert loaded.layers[0].get_vocabulary() == words.get_vocabulary()


def test_the_content_decides_and_not_the_suffix(good: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "download"
    renamed.write_bytes(good.read_bytes())
    assert load_model_file(renamed).count_params() == 23


def test_what_was_checked_is_what_is_loaded(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / good.name
    path.write_bytes(good.read_bytes())
    check = model_file.check_config
    monkeypatch.setattr(model_file, "check_config", lambda *each: (path.write_bytes(b"other"), check(*each)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert load_model_file(path).count_params() == 23
    assert path.read_bytes() == b"other"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]  # the copy is gone


# Things that are no model files


def test_no_such_file_folders_and_pipes(files: Any, tmp_path: Path) -> None:
    assert "no such file" in files.refusal(tmp_path / "model.keras")
    for name, held, word in (
        ("saved", "saved_model.pb", "SavedModel, which is a program"),
        ("run", "recipe.yaml", "with a run: its model is model.keras in it"),
        ("orbax", "checkpoint", "is a folder"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / held).touch()
        assert word in files.refusal(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.keras")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "is a pipe or a device" in files.refusal(tmp_path / "pipe.keras")
    assert "is a pipe or a device" in files.refusal(Path("/dev/zero"))
    assert "cannot be opened (Too many levels" in files.refusal(tmp_path / "circle")


def torch_archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as members:
        members.writestr("model/data.pkl", pickle.dumps({}))
    return content.getvalue()


def arrays() -> bytes:
    content = io.BytesIO()
    np.savez(content, weight=np.ones(3))
    return content.getvalue()


def empty_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as members:
        members.writestr("word/document.xml", "<w/>")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.keras", b"", "is damaged or truncated: it is empty"),
        ("random.keras", random.Random(0).randbytes(4096), "is damaged or truncated: it is no Keras archive"),
        ("model.pb", b"\x08\x01\x12\x07saved", "TensorFlow SavedModel graph, which is a program"),
        ("frozen.pb", b"\x0a\x1f\x0a\x05graph", "is a TensorFlow graph, which is a program"),
        ("model.tflite", b"\x1c\x00\x00\x00TFL3", "is a LiteRT (TFLite) model"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", "is an ONNX model"),
        (
            "model.keras",
            pickle.dumps({"weights": [1]}),
            "is a Python pickle (PyTorch's old form is one), which can run any program",
        ),
        ("model.pt", torch_archive(), "is a PyTorch model, which is a Python pickle inside a zip archive"),
        ("model.npz", arrays(), "is a NumPy archive of arrays (.npz), which holds weights only"),
        ("model.safetensors", b"\x40\0\0\0\0\0\0\0" + b'{"a":{}}', "is a safetensors file"),
        ("model.keras", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("model.keras", b"<!DOCTYPE html><title>Sign in", "is a web page"),
        ("model.keras", empty_zip(), "is a zip archive without config.json, thus no Keras model"),
    ],
)
def test_other_files_are_told_apart(files: Any, name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = files.refusal(tmp_path / name)
    assert said in message
    assert "damaged" in message or "model.save('NAME.keras')" in message


def test_weights_alone_are_no_model(files: Any, tmp_path: Path) -> None:
    model = small_model()
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(files.save(model, tmp_path / "model.h5"), "r+") as file:
        del file.attrs["model_config"]
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["table"] = np.ones(3)
    for name in ("model.weights.h5", "model.h5"):
        message = files.refusal(tmp_path / name)
        assert "holds weights without the layers that they belong to; save the whole model" in message
        assert "`weights: FILE`" in message
    assert "is an HDF5 file, and holds no Keras model" in files.refusal(tmp_path / "table.h5")


# Damage


def test_a_truncated_file_is_called_so(files: Any, good: Path, tmp_path: Path) -> None:
    whole, path = good.read_bytes(), tmp_path / good.name
    for part in range(1, 20):
        path.write_bytes(whole[: len(whole) * part // 20])
        assert "damaged or truncated" in files.refusal(path)


def test_a_trial_finds_what_would_crash_the_hdf5_library(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.save(small_model(), tmp_path / "model.h5")
    assert load_model_file(path).count_params() == 23
    (tmp_path / "h5py.py").write_text("import os; os.abort()")
    monkeypatch.chdir(tmp_path)
    assert load_model_file(path).count_params() == 23  # nothing is imported from the user's folder
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert "is damaged: the HDF5 library crashes on it" in files.refusal(path)
    with pytest.raises(DlcliError, match="crashes on it"), checked_weights_file(path):
        pass


def test_no_flipped_bit_goes_unnoticed(archive: Path, tmp_path: Path) -> None:
    whole, path = archive.read_bytes(), tmp_path / "model.keras"
    expected, seen = np.asarray(load_model_file(archive)(INPUT)), 0
    for place in np.linspace(0, len(whole) - 1, 60).astype(int):
        data = bytearray(whole)
        data[place] ^= 0x10
        path.write_bytes(data)
        try:
            loaded = load_model_file(path)
        except DlcliError as error:
            seen += 1
            assert "damaged" in str(error) or "refused" in str(error) or "cannot be read" in str(error)
        else:  # of a date, or of another thing that nobody reads
            np.testing.assert_array_equal(np.asarray(loaded(INPUT)), expected)
    assert seen > 50


def test_the_reason_of_keras_is_passed_on(files: Any, good: Path, tmp_path: Path) -> None:
    other = files.with_config(
        good, tmp_path, lambda config: config["config"]["layers"][-1]["config"].update(units=5)
    )
    message = files.refusal(other)
    advice = "get the file again" if good.suffix == ".keras" else "save it as .keras where it was made"
    assert "cannot be read (ValueError: " in message and message.count(advice) == 1
    assert tempfile.gettempdir() + "/dlcli-" not in message


# Weights


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_weights_that_are_no_numbers_are_named(files: Any, value: float, suffix: str, tmp_path: Path) -> None:
    model = small_model()
    model.get_layer("output").bias.assign([0.0, value])
    message = files.refusal(files.save(model, tmp_path / f"model.{suffix}"))
    assert "weights of layer " in message and "output' (bias) are NaN or infinite" in message


def test_a_model_without_weights_is_said(files: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(2)])
    assert "holds a model without weights: it was saved before" in files.refusal(
        files.save(model, tmp_path / "model.keras")
    )


@pytest.mark.parametrize(
    ("version", "newer"), [("99.0", True), (keras.__version__, False), ("3.0.5", False), (None, False)]
)
def test_a_newer_keras_is_told(
    files: Any,
    version: str | None,
    newer: bool,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(model_file, "warn", told.append)
    metadata = json.dumps({"keras_version": version}).encode()
    load_model_file(
        files.write_archive(tmp_path / "m.keras", {**files.parts_of(archive), "metadata.json": metadata})
    )
    assert bool(told) == newer
    assert all(f"saved by Keras {version}, and {keras.__version__} is installed" in each for each in told)


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5", "model.keras"])
def test_files_of_weights(files: Any, name: str, tmp_path: Path) -> None:
    model, other = small_model(), small_model()
    path = tmp_path / name
    if name == "model.weights.h5":
        model.save_weights(path)
    else:
        files.save(model, path)
    with checked_weights_file(path) as copy:
        other.load_weights(copy)
    assert not copy.exists()
    np.testing.assert_array_equal(np.asarray(other(INPUT)), np.asarray(model(INPUT)))
    evil = files.with_weights(
        path, tmp_path, lambda file: file.update({"evil": h5py.ExternalLink("/etc/passwd", "/")})
    )
    with pytest.raises(DlcliError, match="is refused: /evil in it is a link"), checked_weights_file(evil):
        pass


def test_what_is_no_file_of_weights(good: Path, tmp_path: Path) -> None:
    misnamed = tmp_path / f"misnamed{'.h5' if good.suffix == '.keras' else '.keras'}"
    misnamed.write_bytes(good.read_bytes())
    with pytest.raises(DlcliError, match=r"is no .*, as its name says"), checked_weights_file(misnamed):
        pass
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["table"] = np.ones(3)
    with (
        pytest.raises(DlcliError, match="holds no weights of Keras"),
        checked_weights_file(tmp_path / "table.h5"),
    ):
        pass


# KerasHub


def test_a_model_of_keras_hub_comes_back(files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("keras_hub").models
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
    backbone = hub.BertBackbone(
        vocabulary_size=len(words),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=6,
    )
    reader = hub.BertTextClassifierPreprocessor(hub.BertTokenizer(vocabulary=words), sequence_length=6)
    model = hub.BertTextClassifier(backbone=backbone, preprocessor=reader, num_classes=2)
    path = files.save(model, tmp_path / "bert.keras")
    loaded, texts = load_model_file(path), ["the cat", "cat sat"]
    outputs = [np.asarray(each(each.preprocessor(texts))) for each in (loaded, model)]
    np.testing.assert_array_equal(*outputs)

    def tokenizer_file(config: Config) -> None:
        config["config"]["preprocessor"]["config"]["tokenizer"]["config"]["vocabulary"] = "/etc/passwd"

    refusal = files.refusal(files.with_config(path, tmp_path, tokenizer_file))
    assert re.search(r"layer 'bert_tokenizer\S*' says vocabulary: '/etc/passwd'", refusal)
    layers = files.with_config(
        path, tmp_path, lambda config: config["config"]["backbone"]["config"].update(num_layers=10**6)
    )
    assert "says num_layers: 1000000, and the file stores" in files.refusal(layers)
    elsewhere = {
        "module": "keras_hub.src.utils.preset_utils",
        "class_name": "KerasPresetLoader",
        "registered_name": None,
    }
    other = files.with_config(path, tmp_path, lambda config: config["config"]["backbone"].update(elsewhere))
    assert "KerasPresetLoader, which is neither" in files.refusal(other)
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(
        DlcliError, match=r"this model, which is one of KerasHub, needs .*pip install 'dlcli\[hub\]'"
    ):
        load_model_file(path)
