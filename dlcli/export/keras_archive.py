"""Keras's own archive, to be loaded by Keras alone: the layers of dlcli travel beside it as source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlcli import __version__
from dlcli.errors import DlcliError
from dlcli.export.example import script
from dlcli.export.exportable import arranged
from dlcli.export.fixed_batch import any_inputs
from dlcli.export.format import Exportable, Format, Options, Run, Written
from dlcli.export.layer_source import FILE as LAYERS
from dlcli.export.layer_source import layer_source, layers_beside, registered_names
from dlcli.layers.predictions import Predictions

FILE = "model.keras"

BATCH_NOTE = "Keras takes any number of rows: --batch-size is not needed here and does nothing"

_QUANTIZED = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)

_WORTH_IT = 0.1
"""Share of the weights that int8 must reach: below that the file is no smaller, and only the speed is lost."""

_PREDICT = """
model = keras.models.load_model(here / "model.keras", compile=False)


def predict(inputs):
    outputs = model(INPUTS, training=False)
    return keras.ops.convert_to_numpy(outputs)
"""


def write(item: Exportable, folder: Path, options: Options) -> Written:
    """Writes `model.keras`, and `layers.py` for a model with layers that Keras lacks."""
    model = with_stock_layers(item.model)
    names = registered_names(model.get_config())
    if names:
        text = layer_source(names, item.model.name, __version__)
        (folder / LAYERS).write_text(text, encoding="utf-8")
    notes = [BATCH_NOTE] if options.batch_size else []
    if options.quantize == "int8":
        notes.append(_quantize(model))
    model.save(folder / FILE)
    return Written(notes=tuple(notes), details=details_of(model.get_config()))


def details_of(config: Any) -> dict[str, Any]:
    """What example.py must import before Keras can read a model with this configuration."""
    packages = ["keras_hub"] if registered_names(config, "keras_hub") else []
    return {"layers": sorted(registered_names(config)), "packages": packages}


def load(folder: Path, manifest: Mapping[str, Any]) -> Run:
    """By Keras, with the layers of `layers.py` and not with dlcli's."""
    with layers_beside(folder):
        model = keras.models.load_model(folder / FILE, compile=False)
    return run_of(model, manifest)


def run_of(model: keras.Model, manifest: Mapping[str, Any]) -> Run:
    """A Keras model as a compiled function of any inputs."""
    compiled = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        given = {name: tf.constant(array) for name, array in arrays.items()}
        return compiled(arranged(model, given)).numpy()

    return any_inputs(run, array_inputs(manifest), None, None)


def array_inputs(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs with dtypes as NumPy calls them."""
    return [
        {**each, "dtype": "str" if each["dtype"] == "string" else each["dtype"]}
        for each in manifest["inputs"]
    ]


def with_stock_layers(model: keras.Model) -> keras.Model:
    """The same model, whose last layer is one of Keras's own where that makes it independent of dlcli."""
    if registered_names(model.get_config()) != {"dlcli>Predictions"}:
        return model

    def call(layer: keras.layers.Layer, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(layer, Predictions):
            return _predictions(layer, arguments[0])
        return layer(*arguments, **keywords)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


def _predictions(layer: Predictions, logits: keras.KerasTensor) -> keras.KerasTensor:
    if layer.target == "values":
        return keras.layers.Rescaling(layer.scale, layer.offset, dtype="float32", name=layer.name)(logits)
    if layer.target == "labels":
        return keras.layers.Activation("sigmoid", dtype="float32", name=layer.name)(logits)
    if logits.shape[-1] > 1:
        return keras.layers.Softmax(dtype="float32", name=layer.name)(logits)
    second = keras.layers.Activation("sigmoid", dtype="float32", name="second_class")(logits)
    first = keras.layers.Rescaling(-1.0, 1.0, dtype="float32", name="first_class")(second)
    return keras.layers.Concatenate(dtype="float32", name=layer.name)([first, second])


def _quantize(model: keras.Model) -> str:
    """Quantizes what Keras can read back and what still computes the same, and says what that is.

    A layer that makes layers of its own (attention, a Transformer block) makes them as float32 when it is loaded, and
    then refuses quantized weights; so only the model's own layers are quantized. A quantized `ReversibleEmbedding`
    loses its mask (Keras 3.15), and the model reads padding as words.

    Raises:
        DlcliError: that is too little to make the file smaller.
    """
    layers = _leaves(model)
    counts = {layer: layer.count_params() for layer in layers}
    chosen = [layer for layer in layers if isinstance(layer, _QUANTIZED) and not _would_lose_mask(layer)]
    share = sum(counts[layer] for layer in chosen) / max(sum(counts.values()), 1)
    if share < _WORTH_IT:
        raise DlcliError(
            f"keras: int8 is for Dense and Embedding layers that stand in the model itself, and of this one these are "
            f"{share:.0%} of the weights; convolutions, recurrent layers, layers inside of others and embeddings "
            "whose mask Keras would lose stay float32: leave --quantize out, or take --format litert"
        )
    for layer in chosen:
        layer.quantize("int8")
    names = ", ".join(layer.name for layer in chosen)
    return f"int8: {names}, {share:.0%} of the weights; the others stay float32"


def _would_lose_mask(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.ReversibleEmbedding) and layer.mask_zero


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and of the models inside it, but not those inside of layers."""
    found = []
    for layer in model.layers:
        found += _leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def example(manifest: Mapping[str, Any]) -> str:
    """The script with Keras."""
    return keras_script(manifest, ["import keras"], _PREDICT, ["keras", "tensorflow"])


def keras_script(
    manifest: Mapping[str, Any], imports: Sequence[str], predict: str, packages: Sequence[str]
) -> str:
    """`script` for a Keras model; INPUTS in `predict` becomes what the model is called with."""
    found = manifest["details"]["packages"] + ["layers"] * bool(manifest["details"]["layers"])
    imports = [
        *imports,
        *(f"import {name}  # noqa: F401  Keras finds this model's layers in it" for name in found),
    ]
    packages = [*(name.replace("_", "-") for name in manifest["details"]["packages"]), *packages]
    names = [each["name"] for each in manifest["inputs"]]
    several = manifest["kind"] == "table" or len(names) > 1
    tensors = "{name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}"
    given = tensors if several else f'inputs["{names[0]}"]'
    return script(manifest, imports, predict.replace("INPUTS", given), packages)


FORMAT = Format(
    name="keras",
    runtime="keras",
    extra=None,
    packages=(),
    quantizations=("int8",),
    strings=True,
    write=write,
    load=load,
    example=example,
)
