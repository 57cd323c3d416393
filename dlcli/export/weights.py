"""Weights alone, as safetensors: for programs that bring the architecture, in whatever framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dlcli import __version__
from dlcli.export.format import Exportable, Format, Options, Run, Written
from dlcli.export.keras_archive import BATCH_NOTE, details_of, keras_script, run_of, with_stock_layers
from dlcli.export.layer_source import FILE as LAYERS
from dlcli.export.layer_source import layer_source, layers_beside, registered_names
from dlcli.runs import write_json

FILE = "model.safetensors"
CONFIG = "config.json"

_PREDICT = """
weights = load_file(here / "model.safetensors")  # name -> array
config = json.loads((here / "config.json").read_text(encoding="utf-8"))
model = keras.models.model_from_json(json.dumps(config["architecture"]))
model.set_weights([weights[name] for name in config["weights"]])


def predict(inputs):
    outputs = model(INPUTS, training=False)
    return keras.ops.convert_to_numpy(outputs)
"""


def write(item: Exportable, folder: Path, options: Options) -> Written:
    """Writes `model.safetensors`, `config.json` (architecture and the order of the weights) and `layers.py`."""
    from safetensors.numpy import save

    model = with_stock_layers(item.numeric)
    names = readable_names(model)
    arrays = {
        name: np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        for name, weight in zip(names, model.weights, strict=True)
    }
    if options.quantize == "float16":
        arrays = {
            name: array.astype("float16") if array.dtype == np.float32 else array
            for name, array in arrays.items()
        }
    (folder / FILE).write_bytes(save(arrays))  # save_file makes a file that nobody else may read
    architecture = json.loads(model.to_json())
    write_json(folder / CONFIG, {"architecture": architecture, "weights": names})
    needed = registered_names(architecture)
    if needed:
        text = layer_source(needed, item.model.name, __version__)
        (folder / LAYERS).write_text(text, encoding="utf-8")
    notes = [BATCH_NOTE] if options.batch_size else []
    if options.quantize == "float16":
        notes.append("float16: the weights are stored in half of the space; Keras computes in float32")
    return Written(notes=tuple(notes), details=details_of(architecture))


def readable_names(model: keras.Model) -> list[str]:
    """A name for each of `model.weights`, in their order: the path of layers, such as `conv_1/kernel`."""
    names: list[str] = []
    for weight in model.weights:
        name, number = weight.path, 1
        while name in names:
            number += 1
            name = f"{weight.path}_{number}"
        names.append(name)
    return names


def load(folder: Path, manifest: Mapping[str, Any]) -> Run:
    """By safetensors and Keras, with the layers of `layers.py` and not with dlcli's."""
    from safetensors.numpy import load_file

    weights = load_file(folder / FILE)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    with layers_beside(folder):
        model = keras.models.model_from_json(json.dumps(config["architecture"]))
    model.set_weights([weights[name] for name in config["weights"]])
    return run_of(model, manifest)


def example(manifest: Mapping[str, Any]) -> str:
    """The script with safetensors; Keras is what predicts."""
    imports = ["import keras", "from safetensors.numpy import load_file"]
    return keras_script(manifest, imports, _PREDICT, ["safetensors", "keras", "tensorflow"])


FORMAT = Format(
    name="weights",
    runtime="safetensors",
    extra="safetensors",
    packages=("safetensors",),
    quantizations=("float16",),
    strings=False,
    write=write,
    load=load,
    example=example,
)
