"""Models from elsewhere: good ones load as they were saved, and what could do harm is refused and named."""

from __future__ import annotations

import inspect
import io
import json
import os
import pickle
import random
import stat
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
from dlcli.pretrained.config_check import REFUSED
from dlcli.pretrained.model_file import checked_weights_file, load_model_file

Config = dict[str, Any]
INPUT = np.random.default_rng(0).random((3, 4), "float32")


@pytest.fixture(autouse=True)
def _no_trial(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that tries an .h5 file first takes a third of a second."""
    if "trial" not in request.node.name:
        monkeypatch.setattr(model_file, "try_hdf5", lambda path: None)


def small_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,), name="input"),
            keras.layers.Dense(3, activation="gelu", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )


def save(model: keras.Model, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of lambdas
        model.save(path)
    return path


@pytest.fixture(scope="module", params=["keras", "h5"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_model(), tmp_path_factory.mktemp("good") / f"model.{request.param}")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_model(), tmp_path_factory.mktemp("archive") / "model.keras")


def refusal(path: Path) -> str:
    """What is said of a file."""
    with pytest.raises(DlcliError) as caught:
        load_model_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ") and "; " in message and "\n" not in message
    assert caught.value.exit_code == 2
    return message


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as members:
        return {name: members.read(name) for name in members.namelist()}


def write_archive(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as members:
        for name, content in parts.items():
            members.writestr(name, content)
    return path


def with_config(source: Path, target: Path, change: Callable[[Config], Any]) -> Path:
    """A copy with another configuration; `change` edits it, or returns a new one."""
    target = target / f"changed{source.suffix}"
    if source.suffix == ".keras":
        parts = parts_of(source)
        config = json.loads(parts["config.json"])
        parts["config.json"] = json.dumps(change(config) or config).encode()
        return write_archive(target, parts)
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(change(config) or config)
    return target


def hidden(config: Config) -> Config:
    """The first dense layer of the model."""
    return next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == "hidden")


def with_weights(source: Path, target: Path, change: Callable[[h5py.File], Any]) -> Path:
    """A copy with another HDF5 file of weights."""
    target = target / f"changed{source.suffix}"
    parts = parts_of(source) if source.suffix == ".keras" else {}
    content = io.BytesIO(parts.get("model.weights.h5") or source.read_bytes())
    with h5py.File(content, "r+") as file:
        change(file)
    if not parts:
        target.write_bytes(content.getvalue())
        return target
    return write_archive(target, {**parts, "model.weights.h5": content.getvalue()})


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
def test_good_models_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    model = GOOD[name]()
    loaded = load_model_file(save(model, tmp_path / "model.keras"))
    np.testing.assert_array_equal(np.asarray(loaded(INPUT)), np.asarray(model(INPUT)))
    assert not loaded.compiled
    assert [weight.trainable for weight in loaded.weights] == [weight.trainable for weight in model.weights]


@pytest.mark.parametrize("name", ["dense", "trained", "normalization", "nested", "recurrent"])
def test_h5_models_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    model = GOOD[name]()
    loaded = load_model_file(save(model, tmp_path / "model.h5"))
    np.testing.assert_array_equal(np.asarray(loaded(INPUT)), np.asarray(model(INPUT)))


def test_a_vocabulary_among_the_assets_comes_along(tmp_path: Path) -> None:
    words = keras.layers.TextVectorization(output_sequence_length=3)
    words.adapt(["a cat sat", "the cat"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Embedding(9, 2)])
    loaded = load_model_file(save(model, tmp_path / "model.keras"))
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


def test_no_such_file_folders_and_pipes(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "model.keras")
    for name, held, word in (
        ("saved", "saved_model.pb", "SavedModel, which is a program"),
        ("run", "recipe.yaml", "with a run: its model is model.keras in it"),
        ("orbax", "checkpoint", "is a folder"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / held).touch()
        assert word in refusal(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.keras")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "is a pipe or a device" in refusal(tmp_path / "pipe.keras")
    assert "is a pipe or a device" in refusal(Path("/dev/zero"))
    assert "cannot be opened (Too many levels" in refusal(tmp_path / "circle")


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
def test_other_files_are_told_apart(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert said in message
    assert "damaged" in message or "model.save('NAME.keras')" in message


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    model = small_model()
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(save(model, tmp_path / "model.h5"), "r+") as file:
        del file.attrs["model_config"]
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["table"] = np.ones(3)
    for name in ("model.weights.h5", "model.h5"):
        message = refusal(tmp_path / name)
        assert "holds weights without the layers that they belong to; save the whole model" in message
        assert "`weights: FILE`" in message
    assert "is an HDF5 file, and holds no Keras model" in refusal(tmp_path / "table.h5")


# Damage


def test_a_truncated_file_is_called_so(good: Path, tmp_path: Path) -> None:
    whole, path = good.read_bytes(), tmp_path / good.name
    for part in range(1, 20):
        path.write_bytes(whole[: len(whole) * part // 20])
        assert "damaged or truncated" in refusal(path)


def test_a_trial_finds_what_would_crash_the_hdf5_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(small_model(), tmp_path / "model.h5")
    assert load_model_file(path).count_params() == 23
    (tmp_path / "h5py.py").write_text("import os; os.abort()")
    monkeypatch.chdir(tmp_path)
    assert load_model_file(path).count_params() == 23  # nothing is imported from the user's folder
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert "is damaged: the HDF5 library crashes on it" in refusal(path)
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


def test_the_reason_of_keras_is_passed_on(good: Path, tmp_path: Path) -> None:
    other = with_config(good, tmp_path, lambda config: hidden(config)["config"].update(units=5))
    message = refusal(other)
    assert "cannot be read (ValueError: " in message and "get the file again" in message
    assert tempfile.gettempdir() + "/dlcli-" not in message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"", "is damaged: its config.json is no JSON"),
        (b"[]", "is damaged: its config.json is no JSON object"),
        (b"{}", "holds a None, and no model"),
        (b'{"class_name": 5, "config": {}}', "is damaged"),
        (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, "nested deeper than 100 levels"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "nested deeper than 100 levels"),
        (b'{"a":[' + b"[]," * 2_000_000 + b"[]]}", "more than 2,000,000 lists and objects"),
        (b'"' + b" " * (65 << 20) + b'"', "its config.json has 68,157,442 bytes"),
    ],
)
def test_configurations_that_are_none(config: bytes, said: str, archive: Path, tmp_path: Path) -> None:
    assert said in refusal(write_archive(tmp_path / "m.keras", {**parts_of(archive), "config.json": config}))


# Code and files in the configuration


def layer_of(name: str, module: str | None = "keras.layers", **config: Any) -> Callable[[Config], None]:
    """Puts another layer in the place of `hidden`."""

    def change(model: Config) -> None:
        entry = {"class_name": name, "config": {"name": "evil", **config}, "registered_name": None}
        hidden(model).clear()
        layers = model["config"]["layers"]
        layers[layers.index({})] = {**entry, "module": module} if module else entry

    return change


def function_of(module: str | None, name: str) -> Callable[[Config], Any]:
    entry = {"module": module, "class_name": "function", "config": name, "registered_name": name}
    return lambda model: hidden(model)["config"].update(activation=entry)


def with_entry(entry: Config) -> Callable[[Config], Any]:
    return lambda model: hidden(model)["config"].update(kernel_initializer=entry)


HOSTILE: dict[str, tuple[Callable[[Config], Any], str]] = {
    "TFSMLayer": (layer_of("TFSMLayer", filepath="/tmp"), "layer 'evil' is a TFSMLayer, which runs a TensorFlow"),
    "torch": (layer_of("TorchModuleWrapper", module="UEsDBA=="), "layer 'evil' is a TorchModuleWrapper, which unpickles"),
    "JaxLayer": (layer_of("JaxLayer", call_fn="f"), "layer 'evil' is a JaxLayer, which runs Python code"),
    "FlaxLayer": (layer_of("FlaxLayer", module="f"), "layer 'evil' is a FlaxLayer, which runs Python code"),
    "Lambda by name": (layer_of("Lambda", None, function="f"), "layer 'evil' is a Lambda, which runs Python code"),
    "Lambda by its file": (
        layer_of("Lambda", "keras.src.layers.core.lambda_layer", function="f"),
        "layer 'evil' is a Lambda",
    ),
    "wrapped": (
        layer_of("TimeDistributed", layer={"class_name": "Lambda", "config": {"name": "inner", "function": "f"}}),
        "layer 'inner' is a Lambda",
    ),
    "lambda as an activation": (
        with_entry({"class_name": "__lambda__", "config": {"value": "4wAA"}}),
        "layer 'hidden' is a __lambda__, which runs Python code",
    ),
    "other module": (
        layer_of("system", "os", command="true"),
        "layer 'evil' is of class os.system, which is neither Keras's nor dlcli's",
    ),
    "not imported": (layer_of("Popen", "antigravity"), "is of class antigravity.Popen, which is neither"),
    "no class": (layer_of("load_model", "keras.saving", filepath="x"), "of class keras.saving.load_model, which"),
    "function as a layer": (layer_of("Input", "keras.layers", shape=[1]), "of class keras.layers.Input, which"),
    "inner module": (
        layer_of("DiskIOStore", "keras.src.saving.saving_lib", root_path="/tmp"),
        "of class keras.src.saving.saving_lib.DiskIOStore, which",
    ),
    "unknown layer": (layer_of("MyLayer", None), "layer 'evil' is of class MyLayer, which is neither"),
    "not ours": (
        layer_of("dlcli>Missing", None),
        "layer 'evil' is of class dlcli>Missing, which is neither Keras's nor dlcli's",
    ),
    "ours, but no layer": (layer_of("dlcli>TokenCrossentropy", None), "of class dlcli>TokenCrossentropy, which is"),
    "Keras 2": (layer_of("TFOpLambda", None, function="math.add"), "'evil' is a TFOpLambda, which is a TensorFlow"),
    "Keras 2 graph": (
        layer_of("Functional", "keras.src.engine.functional"),
        "of class keras.src.engine.functional.Functional, as Keras 2 calls it; load it with Keras 2",
    ),
    "download": (function_of("keras.utils", "get_file"), "layer 'hidden' is made with the function keras.utils.get_file"),
    "unsafe": (
        function_of("keras.config", "enable_unsafe_deserialization"),
        "the function keras.config.enable_unsafe_deserialization, which is no activation",
    ),
    "eval": (function_of("builtins", "eval"), "made with the function builtins.eval, which is no activation"),
    "deserialize": (function_of("keras.activations", "deserialize"), "function keras.activations.deserialize"),
    "type": (with_entry({"class_name": "__typespec__", "config": []}), "'hidden' is a __typespec__, which is a type"),
    "objects": (
        with_entry({"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "U2000000000"}}),
        "layer 'hidden' holds an array of 'U2000000000' in its configuration",
    ),
    "texts": (
        with_entry({"class_name": "__tensor__", "config": {"value": [["a"]], "dtype": "float32"}}),
        "layer 'hidden' holds an array in its configuration that is not of numbers",
    ),
    "large array": (
        with_entry({"class_name": "__numpy__", "config": {"value": [0] * 1_000_001, "dtype": "int8"}}),
        "layer 'hidden' holds an array of more than 1,000,000 numbers",
    ),
    "StringLookup": (
        layer_of("StringLookup", vocabulary="/etc/passwd"),
        "layer 'evil' says vocabulary: '/etc/passwd', a file or an address that would be read",
    ),
    "IntegerLookup": (layer_of("IntegerLookup", vocabulary="gs://bucket/file"), "says vocabulary: 'gs://bucket/file'"),
    "TextVectorization": (layer_of("TextVectorization", vocabulary="http://10.0.0.1/"), "vocabulary: 'http://10"),
    "units": (
        lambda model: hidden(model)["config"].update(units=10**9),
        "layer 'hidden' says units: 1000000000, and the file stores 23 numbers in all",
    ),
    "units that multiply": (
        lambda model: hidden(model)["config"].update(units=900_000) or layer_and_wide(model),
        "needs weights of shape (900000, 900000), and the file stores 23 numbers in all",
    ),
}  # fmt: skip


def layer_and_wide(model: Config) -> None:
    model["config"]["layers"][-1]["config"].update(units=900_000)
    for layer in model["config"]["layers"]:
        layer.pop("build_config", None)
    model.pop("build_config", None)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_do_harm_is_refused_and_named(name: str, good: Path, tmp_path: Path) -> None:
    change, said = HOSTILE[name]
    add_weight = keras.Layer.add_weight
    message = refusal(with_config(good, tmp_path, change))
    assert said in message and " is refused: " in message
    assert keras.Layer.add_weight is add_weight


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_lambda_does_not_run(suffix: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    name = str(canary)  # a lambda is saved with what it refers to
    layer = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1], name="evil")  # noqa: PTH123
    path = save(functional(layer, keras.layers.Dense(1)), tmp_path / f"model.{suffix}")
    canary.unlink()
    assert "layer 'evil' is a Lambda, which runs Python code that the file brings along" in refusal(path)
    assert not canary.exists()
    if suffix == "keras":  # it is what it seems
        keras.saving.load_model(path, safe_mode=False)
        assert canary.exists()


def test_a_class_that_others_registered_is_not_made(archive: Path, tmp_path: Path) -> None:
    made = []

    class Evil(keras.layers.Dense):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(kwargs)
            super().__init__(*args, **kwargs)

    with keras.saving.custom_object_scope({"Custom>Evil": Evil}):
        keras.saving.get_custom_objects()["Custom>Evil"] = Evil
        try:
            for change in ({"registered_name": "Custom>Evil"}, {"class_name": "Custom>Evil", "module": None}):
                path = with_config(archive, tmp_path, lambda model, new=change: hidden(model).update(new))
                assert "which is neither Keras's nor dlcli's" in refusal(path)
        finally:
            del keras.saving.get_custom_objects()["Custom>Evil"]
    assert not made


def test_training_settings_name_nothing_from_elsewhere(good: Path, tmp_path: Path) -> None:
    foreign = {"module": "os", "class_name": "system", "config": {}, "registered_name": None}
    if good.suffix == ".keras":
        path = with_config(good, tmp_path, lambda model: model.update(compile_config={"loss": foreign}))
    else:
        path = tmp_path / "changed.h5"
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "r+") as file:
            file.attrs["training_config"] = json.dumps({"loss": foreign})
    assert "its training is of class os.system" in refusal(path)


def test_every_layer_that_takes_a_function_or_a_path_was_judged() -> None:
    suspicious = {"function", "filepath", "module", "call_fn", "init_fn", "file", "path", "url"}
    for name, layer in vars(keras.layers).items():
        if inspect.isclass(layer) and suspicious & set(inspect.signature(layer.__init__).parameters):
            assert name in REFUSED


def test_a_bare_layer_is_no_model(archive: Path, tmp_path: Path) -> None:
    assert "holds a Dense, and no model" in refusal(with_config(archive, tmp_path, hidden))


# Containers


def member(name: str, mode: int = stat.S_IFREG | 0o644, flags: int = 0) -> Callable[[zipfile.ZipFile], None]:
    def add(members: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        members.writestr(info, "/etc/passwd")
        info.flag_bits |= flags

    return add


def bomb(members: zipfile.ZipFile) -> None:
    members.writestr("assets/bomb", bytes(32 << 20), zipfile.ZIP_DEFLATED)


def twice(members: zipfile.ZipFile) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        members.writestr("config.json", "{}")


def overlapping(members: zipfile.ZipFile) -> None:
    members.writestr("assets/a", bytes(100_000))
    for number in range(5):
        info = zipfile.ZipInfo(f"assets/{number}")
        info.compress_size = info.file_size = 100_000
        info.header_offset = info.CRC = 0
        members.filelist.append(info)


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (member("assets/../../evil"), "its member 'assets/../../evil' leads out of the archive"),
        (member("/tmp/evil"), "its member '/tmp/evil' leads out of the archive"),
        (member("assets\\..\\evil"), r"its member 'assets\\..\\evil' leads out of the archive"),
        (member("C:/evil"), "its member 'C:/evil' leads out of the archive"),
        (member("assets/link", stat.S_IFLNK | 0o777), "its member 'assets/link' is a link or a device"),
        (member("assets/secret", flags=1), "its member 'assets/secret' is encrypted"),
        (member("__main__.py"), "its member '__main__.py' is no part of a Keras model"),
        (twice, "'config.json' is in the archive twice"),
        (bomb, "its member 'assets/bomb' unpacks from 32,"),
        (overlapping, "its members claim"),
    ],
)
def test_hostile_archives(
    add: Callable[[zipfile.ZipFile], None], said: str, archive: Path, tmp_path: Path
) -> None:
    path = write_archive(tmp_path / "model.keras", parts_of(archive))
    with zipfile.ZipFile(path, "a") as members:
        add(members)
    assert f" is refused: {said}" in refusal(path)


def test_parts_that_are_missing(archive: Path, tmp_path: Path) -> None:
    parts = parts_of(archive)
    for name in ("config.json", "model.weights.h5"):
        path = write_archive(tmp_path / "m.keras", {key: parts[key] for key in parts if key != name})
        assert f"is a zip archive without {name}, thus no Keras model; it holds" in refusal(path)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (3,))
    file.create_virtual_dataset("evil", layout)


def filtered(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4,))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(file.id, b"evil", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,)), dcpl=properties)


HOSTILE_HDF5: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "external link": (
        lambda file: file.update({"evil": h5py.ExternalLink("/etc/passwd", "/")}),
        "/evil in it is a link to /etc/passwd:/",
    ),
    "soft link": (lambda file: file.update({"evil": h5py.SoftLink("/vars")}), "/evil in it is a link to /vars"),
    "hard link": (lambda file: file.update({"evil": file["/"]}), "evil in it is a second name"),
    "virtual": (virtual, "/evil in it reads from other files"),
    "external": (
        lambda file: file.create_dataset("evil", (3,), "float32", external=[("/etc/passwd", 0, 12)]),
        "/evil in it reads from other files",
    ),
    "shape": (lambda file: file.create_dataset("evil", (10**15,), "float32", chunks=(1024,)), "/evil in it claims 4,0"),
    "unwritten": (lambda file: file.create_dataset("evil", (10**7,), "float32"), "claims 40,000,000 bytes (10000000,), and stores 0"),
    "compressed": (
        lambda file: file.create_dataset("evil", data=np.zeros(10**7, "uint8"), compression="gzip"),
        "/evil in it claims 10,000,000 bytes (10000000,), and stores ",
    ),
    "pieces": (
        lambda file: file.create_dataset("evil", (3,), "float32", chunks=(10**7,), maxshape=(None,)),
        "/evil in it is stored in pieces of 40,000,000 bytes",
    ),
    "many small": (
        lambda file: [file.create_dataset(f"evil{number}", (250_000,), "float32") for number in range(30)],
        "its arrays claim",
    ),
    "objects": (
        lambda file: file.create_dataset("evil", data=["text"], dtype=h5py.string_dtype()),
        "/evil in it holds object, and weights are numbers",
    ),
    "records": (
        lambda file: file.create_dataset("evil", data=np.zeros(2, [("a", "f4"), ("b", "i4")])),
        "and weights are numbers",
    ),
    "filter": (filtered, "/evil in it is compressed by filter 32015, which is not read"),
    "type": (lambda file: file.update({"evil": np.dtype("f4")}), "/evil in it is neither a group nor an array"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_HDF5)
def test_hostile_weights(name: str, good: Path, tmp_path: Path) -> None:
    change, said = HOSTILE_HDF5[name]
    message = refusal(with_weights(good, tmp_path, change))
    assert " is refused: " in message and said in message


# Weights


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_weights_that_are_no_numbers_are_named(value: float, suffix: str, tmp_path: Path) -> None:
    model = small_model()
    model.get_layer("output").bias.assign([0.0, value])
    message = refusal(save(model, tmp_path / f"model.{suffix}"))
    assert "weights of layer " in message and "output' (bias) are NaN or infinite" in message


def test_a_model_without_weights_is_said(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(2)])
    assert "holds a model without weights: it was saved before" in refusal(
        save(model, tmp_path / "model.keras")
    )


@pytest.mark.parametrize(
    ("version", "newer"), [("99.0", True), (keras.__version__, False), ("3.0.5", False), (None, False)]
)
def test_a_newer_keras_is_told(
    version: str | None, newer: bool, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(model_file, "warn", told.append)
    metadata = json.dumps({"keras_version": version}).encode()
    load_model_file(write_archive(tmp_path / "m.keras", {**parts_of(archive), "metadata.json": metadata}))
    assert bool(told) == newer
    assert all(f"saved by Keras {version}, and {keras.__version__} is installed" in each for each in told)


@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5", "model.keras"])
def test_files_of_weights(name: str, tmp_path: Path) -> None:
    model, other = small_model(), small_model()
    path = tmp_path / name
    if name == "model.weights.h5":
        model.save_weights(path)
    else:
        save(model, path)
    with checked_weights_file(path) as copy:
        other.load_weights(copy)
    assert not copy.exists()
    np.testing.assert_array_equal(np.asarray(other(INPUT)), np.asarray(model(INPUT)))
    evil = with_weights(path, tmp_path, HOSTILE_HDF5["external link"][0])
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


def test_a_model_of_keras_hub_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    path = save(model, tmp_path / "bert.keras")
    loaded, texts = load_model_file(path), ["the cat", "cat sat"]
    outputs = [np.asarray(each(each.preprocessor(texts))) for each in (loaded, model)]
    np.testing.assert_array_equal(*outputs)

    def tokenizer_file(config: Config) -> None:
        config["config"]["preprocessor"]["config"]["tokenizer"]["config"]["vocabulary"] = "/etc/passwd"

    assert "layer 'bert_tokenizer' says vocabulary: '/etc/passwd'" in refusal(
        with_config(path, tmp_path, tokenizer_file)
    )
    layers = with_config(
        path, tmp_path, lambda config: config["config"]["backbone"]["config"].update(num_layers=10**6)
    )
    assert "says num_layers: 1000000, and the file stores" in refusal(layers)
    elsewhere = {
        "module": "keras_hub.src.utils.preset_utils",
        "class_name": "KerasPresetLoader",
        "registered_name": None,
    }
    other = with_config(path, tmp_path, lambda config: config["config"]["backbone"].update(elsewhere))
    assert "KerasPresetLoader, which is neither" in refusal(other)
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(
        DlcliError, match=r"this model, which is one of KerasHub, needs .*pip install 'dlcli\[hub\]'"
    ):
        load_model_file(path)
