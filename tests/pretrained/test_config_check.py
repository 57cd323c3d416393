"""What a model file may name: code, files and classes from elsewhere are refused and named."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import dlcli.tasks.language_modeling  # noqa: F401  registers classes that are no layers
from dlcli.pretrained.config_check import REFUSED

Config = dict[str, Any]
INPUT = np.random.default_rng(0).random((3, 4), "float32")


def hidden(config: Config) -> Config:
    """The first dense layer of the model."""
    return next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == "hidden")


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
def test_configurations_that_are_none(
    files: Any, config: bytes, said: str, archive: Path, tmp_path: Path
) -> None:
    assert said in files.refusal(
        files.write_archive(tmp_path / "m.keras", {**files.parts_of(archive), "config.json": config})
    )


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
def test_what_could_do_harm_is_refused_and_named(files: Any, name: str, good: Path, tmp_path: Path) -> None:
    change, said = HOSTILE[name]
    add_weight = keras.Layer.add_weight
    message = files.refusal(files.with_config(good, tmp_path, change))
    assert said in message and " is refused: " in message
    assert keras.Layer.add_weight is add_weight


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_lambda_does_not_run(files: Any, suffix: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    name = str(canary)  # a lambda is saved with what it refers to
    layer = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1], name="evil")  # noqa: PTH123
    path = files.save(
        keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)]), tmp_path / f"model.{suffix}"
    )
    canary.unlink()
    assert "layer 'evil' is a Lambda, which runs Python code that the file brings along" in files.refusal(
        path
    )
    assert not canary.exists()
    if suffix == "keras":  # it is what it seems
        keras.saving.load_model(path, safe_mode=False)
        assert canary.exists()


def test_a_class_that_others_registered_is_not_made(files: Any, archive: Path, tmp_path: Path) -> None:
    made = []

    class Evil(keras.layers.Dense):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(kwargs)
            super().__init__(*args, **kwargs)

    with keras.saving.custom_object_scope({"Custom>Evil": Evil}):
        keras.saving.get_custom_objects()["Custom>Evil"] = Evil
        try:
            for change in ({"registered_name": "Custom>Evil"}, {"class_name": "Custom>Evil", "module": None}):
                path = files.with_config(
                    archive, tmp_path, lambda model, new=change: hidden(model).update(new)
                )
                assert "which is neither Keras's nor dlcli's" in files.refusal(path)
        finally:
            del keras.saving.get_custom_objects()["Custom>Evil"]
    assert not made


def test_training_settings_name_nothing_from_elsewhere(files: Any, good: Path, tmp_path: Path) -> None:
    foreign = {"module": "os", "class_name": "system", "config": {}, "registered_name": None}
    if good.suffix == ".keras":
        path = files.with_config(good, tmp_path, lambda model: model.update(compile_config={"loss": foreign}))
    else:
        path = tmp_path / "changed.h5"
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "r+") as file:
            file.attrs["training_config"] = json.dumps({"loss": foreign})
    assert "its training is of class os.system" in files.refusal(path)


def test_every_layer_that_takes_a_function_or_a_path_was_judged() -> None:
    suspicious = {"function", "filepath", "module", "call_fn", "init_fn", "file", "path", "url"}
    for name, layer in vars(keras.layers).items():
        if inspect.isclass(layer) and suspicious & set(inspect.signature(layer.__init__).parameters):
            assert name in REFUSED


def test_a_bare_layer_is_no_model(files: Any, archive: Path, tmp_path: Path) -> None:
    assert "holds a Dense, and no model" in files.refusal(files.with_config(archive, tmp_path, hidden))
