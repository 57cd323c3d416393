"""TensorFlow SavedModel: TensorFlow Serving, and any program with TensorFlow and without Keras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dlcli.export.example import script
from dlcli.export.fixed_batch import OUTPUT, any_inputs, graph_function, graph_names
from dlcli.export.format import Exportable, Format, Options, Run, Written
from dlcli.export.keras_archive import array_inputs

FOLDER = "saved_model"

_PREDICT = """
model = tf.saved_model.load(here / "saved_model")
names = manifest["details"]["names"]


def predict(inputs):
    given = {names[name]: tf.constant(value) for name, value in inputs.items()}
    return model.signatures["serving_default"](**given)["predictions"].numpy()
"""


def write(item: Exportable, folder: Path, options: Options) -> Written:
    """Writes `saved_model/`, with the one signature `serving_default`; columns of text stay strings."""
    function, signature = graph_function(item.model, item.inputs, options.batch_size)
    module = tf.Module()
    module.model = (
        item.model
    )  # keeps its variables and tables; Keras's ExportArchive would store all weights twice
    tf.saved_model.save(module, folder / FOLDER, signatures=function.get_concrete_function(*signature))
    return Written(
        batch_size=options.batch_size, details={"names": graph_names(each.name for each in item.inputs)}
    )


def load(folder: Path, manifest: Mapping[str, Any]) -> Run:
    """By TensorFlow alone."""
    loaded = tf.saved_model.load(folder / FOLDER)
    serve = loaded.signatures["serving_default"]
    names = manifest["details"]["names"]

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        given = {names[name]: tf.constant(value) for name, value in arrays.items()}
        return serve(**given)[OUTPUT].numpy()

    run.loaded = loaded  # type: ignore[attr-defined]  # a signature lives as long as its model
    return any_inputs(run, array_inputs(manifest), manifest["batch_size"], manifest["length"])


def example(manifest: Mapping[str, Any]) -> str:
    """The script with TensorFlow."""
    return script(manifest, ["import tensorflow as tf"], _PREDICT, ["tensorflow"])


FORMAT = Format(
    name="saved_model",
    runtime="tensorflow",
    extra=None,
    packages=(),
    quantizations=(),
    strings=True,
    write=write,
    load=load,
    example=example,
)
