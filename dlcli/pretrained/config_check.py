"""The configuration of a saved model, read as JSON before Keras builds anything: what may it name?

Keras builds whatever class of its own, and whatever registered class, a configuration names, and calls it with the
arguments that stand there. Of these, layers (and what they are made of: initializers, regularizers, dtype policies,
operations, ...) are all that a model needs; a few of them run code or read files, and are refused by name.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, NoReturn

import keras

import dlcli.layers
from dlcli.extras import require
from dlcli.pretrained.hdf5_check import Weights
from dlcli.pretrained.unfit import UnfitError

_DEEPEST = 100  # levels of JSON; four a model inside a model
_MOST_VALUES = 2_000_000  # lists and objects
_LARGEST_ARRAY = 1_000_000  # numbers of an array inside the configuration
_HARMLESS_SIZE = 1 << 24  # a minute of sound is an input of millions

_RUNS_CODE = "runs Python code that the file brings along"
_KERAS_2 = "is a TensorFlow operation in the form of Keras 2, which Keras 3 cannot rebuild"
REFUSED = {
    "Lambda": _RUNS_CODE,
    "__lambda__": _RUNS_CODE,
    "TFSMLayer": "runs a TensorFlow program from a folder that the file names",
    "TorchModuleWrapper": "unpickles a PyTorch module, which can run any program",
    "JaxLayer": _RUNS_CODE,
    "FlaxLayer": _RUNS_CODE,
    "__typespec__": "is a type of TensorFlow, and no layer",
    "TypeSpec": "is a type of TensorFlow, and no layer",
    "CompositeTensor": "is a tensor of TensorFlow, and no layer",
    "TFOpLambda": _KERAS_2,
    "SlicingOpLambda": _KERAS_2,
    "TensorFlowOpLayer": _KERAS_2,
    "ClassMethod": _KERAS_2,
    "InstanceMethod": _KERAS_2,
    "InstanceProperty": _KERAS_2,
}
"""Class names that stand for code or files, and why they are not loaded."""

# Keras's own marks for plain values.
_VALUES = {"__keras_tensor__", "__bytes__", "__slice__", "__ellipsis__", "__tuple__", "TensorShape"}
_ARRAYS = {"__numpy__", "__tensor__"}
_ARRAY_TYPES = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))} | {
    "bfloat16", "float16", "float32", "float64",
}  # fmt: skip

# Where Keras's public classes live, and what of them a configuration may name.
_PUBLIC = (
    "layers", "models", "initializers", "regularizers", "constraints", "dtype_policies", "quantizers", "random",
    "optimizers", "optimizers.schedules", "losses", "metrics",
)  # fmt: skip
_MODULES = {"keras", *(f"keras.{name}" for name in _PUBLIC)}
# Classes without a public name: graphs, operations, and the layers of some networks of keras.applications.
_INNER_MODULES = ("keras.src.models.", "keras.src.ops.", "keras.src.activations.", "keras.src.applications.")
_PARTS = (
    keras.Layer, keras.Initializer, keras.Regularizer, keras.constraints.Constraint, keras.dtype_policies.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap, keras.Quantizer, keras.quantizers.QuantizationConfig,
    keras.random.SeedGenerator, keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule,
    keras.Loss, keras.Metric,
)  # fmt: skip
_FUNCTION_MODULES = {None, "builtins", "keras.ops", "keras.src.activations.activations"} | {
    f"keras.{name}" for name in ("activations", "losses", "metrics")
}
_FUNCTIONS = {
    name
    for module in (keras.activations, keras.losses, keras.metrics)
    for name, value in vars(module).items()
    if callable(value) and not name.startswith("_")
} - {"get", "serialize", "deserialize"}

_HUB_FUNCTIONS = {"keras_hub>gelu_approximate", "keras_nlp>gelu_approximate"}
"""The activation of its Transformers; other functions that KerasHub registers upload, download and train."""
_HUB_MODULES = ("keras_hub.src.models.", "keras_hub.src.layers.")

# Arguments that may be given as the name of a file, which would be read.
_MAY_BE_PATHS = {"vocabulary", "merges", "proto", "idf_weights", "file", "filepath", "path", "url", "preset"}
_TEXT = (str, NoneType)
_TRAINING = {"compile_config", "training_config"}
# Arguments that become sides of weights, or tables in memory.
_SIZES = {
    "units", "filters", "input_dim", "output_dim", "num_heads", "key_dim", "value_dim", "head_dim", "hidden_dim",
    "num_query_heads", "num_key_value_heads", "intermediate_dim", "embedding_dim", "vocabulary_size", "num_classes",
    "depth_multiplier", "batch_shape", "batch_input_shape", "num_tokens", "num_thresholds", "fft_length",
    "num_mel_bins", "buckets", "max_sequence_length",
}  # fmt: skip


def parse_json(text: str, name: str) -> dict[str, Any]:
    """An object of JSON of a size that is safe to read.

    Args:
        text: the JSON.
        name: of the part of the file, for messages.

    Raises:
        UnfitError: it is no JSON object, or too large or deep.
    """
    if text.count("[") + text.count("{") > _MOST_VALUES:
        raise UnfitError(f"is refused: its {name} has more than {_MOST_VALUES:,} lists and objects")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise UnfitError(f"is refused: its {name} is nested deeper than {_DEEPEST} levels") from error
    except ValueError as error:
        raise UnfitError(f"is damaged: its {name} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnfitError(f"is damaged: its {name} is no JSON object")
    return value


def check_config(config: Mapping[str, Any], weights: Weights) -> None:
    """Refuses a model configuration that names anything but parts of models, or sizes that its weights do not have.

    Args:
        config: of the model, as Keras wrote it.
        weights: what the same file stores.

    Raises:
        UnfitError: with the layer, its class and the reason.
    """
    check_names(config)
    if not any(isinstance(each, type) and issubclass(each, keras.Model) for each in _classes(config)):
        raise UnfitError(f"holds a {config.get('class_name')}, and no model")
    largest = max(_HARMLESS_SIZE, weights.numbers)
    for key, value, layer, _ in _walk(config):
        if key in _SIZES and _largest(value) > largest:
            raise UnfitError(
                f"is refused: {layer} says {key}: {value}, and the file stores {weights.numbers:,} numbers in all"
            )
        if key == "num_layers" and _largest(value) > max(1000, weights.arrays):
            raise UnfitError(
                f"is refused: {layer} says num_layers: {value}, and the file stores {weights.arrays:,} arrays"
            )


def check_names(config: Mapping[str, Any]) -> None:
    """Refuses a configuration (of a model, or of its training) that names code, files or classes from elsewhere.

    Raises:
        UnfitError: with the layer, its class and the reason.
    """
    for key, value, layer, depth in _walk(config):
        if depth > _DEEPEST:
            raise UnfitError(f"is refused: its configuration is nested deeper than {_DEEPEST} levels")
        if isinstance(value, dict) and "class_name" in value:
            if not isinstance(value["class_name"], str) or not isinstance(value.get("module", ""), _TEXT):
                raise UnfitError(f"is damaged: {layer} has no class")
            _judge(value, layer)
        if key in _MAY_BE_PATHS and isinstance(value, str):
            raise UnfitError(
                f"is refused: {layer} says {key}: {value[:100]!r}, a file or an address that would be read",
                "save it with the words themselves in it",
            )


def _walk(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, int]]:
    """Every value with its key, the layer that it belongs to and its depth."""
    pending: list[tuple[str, Any, str, int]] = [("", config, "the model", 0)]
    while pending:
        key, value, layer, depth = pending.pop()
        layer = "its training" if key in _TRAINING else _layer_name(value, layer)
        yield key, value, layer, depth
        if isinstance(value, dict):
            if "class_name" in value and str(value["class_name"]) in _ARRAYS:
                continue  # judged as a whole: numbers only
            pending.extend((name, inner, layer, depth + 1) for name, inner in value.items())
        elif isinstance(value, list):
            pending.extend(
                ("", inner, layer, depth + 1) for inner in value if isinstance(inner, (dict, list))
            )


def _layer_name(value: Any, outer: str) -> str:
    if isinstance(value, dict) and "class_name" in value and isinstance(inner := value.get("config"), dict):
        name = inner.get("name")
        if isinstance(name, str) and "initializer" not in str(value.get("module")):
            return f"layer {name[:80]!r}"
    return outer


def _judge(entry: Mapping[str, Any], layer: str) -> None:
    """One object that Keras would make."""
    name = entry["class_name"]
    if name in _VALUES:
        return
    if name in _ARRAYS:
        _check_array(entry, layer)
    elif name == "function":
        _check_function(entry, layer)
    elif reason := REFUSED.get(name):
        _refuse(layer, f"a {name}, which {reason}")
    else:
        _check_class(entry, layer)


def _check_class(entry: Mapping[str, Any], layer: str) -> None:
    name, module = entry["class_name"], entry.get("module")
    found = list(_classes(entry))
    if not found and str(module).startswith(("keras.engine", "keras.src.engine", "tensorflow")):
        raise UnfitError(
            f"is refused: {layer} is of class {module}.{name}, as Keras 2 calls it",
            "load it with Keras 2 and save it as .h5, which Keras 3 reads",
        )
    if not found or not all(_is_allowed(each) for each in found):
        full = f"{module}.{name}" if module else name
        registered = entry.get("registered_name")
        also = f" (registered as {registered})" if registered not in (None, name) else ""
        _refuse(layer, f"of class {full}{also}, which is neither Keras's nor dlcli's")
    for each in found:
        for refused, reason in REFUSED.items():
            base = getattr(keras.layers, refused, None)
            if base is not None and issubclass(each, base):
                _refuse(layer, f"a {refused}, which {reason}")


def _classes(entry: Mapping[str, Any]) -> Iterator[Any]:
    """What Keras would find under this name, without importing anything that the file names."""
    name, module = entry.get("class_name"), entry.get("module")
    registered = entry.get("registered_name", name)
    if _of_hub(module) or _of_hub(registered, ">"):
        _import_hub()
    known = keras.saving.get_custom_objects()
    names = [each for each in (registered, name) if isinstance(each, str)]
    if custom := [known[each] for each in names if each in known]:
        yield from custom
    elif module is None:  # the form of .h5 files
        spaces = [getattr(keras, space) for space in _PUBLIC if "." not in space] + [keras]
        for space in [*spaces, keras.optimizers.schedules, sys.modules["keras.src.models.functional"]]:
            if name in vars(space):
                yield vars(space)[name]
    elif (module in _MODULES or str(module).startswith(_INNER_MODULES)) and module in sys.modules:
        found = vars(sys.modules[module]).get(str(name))
        if found is not None:
            yield found


def _import_hub() -> None:
    """KerasHub registers its classes when it is imported."""
    require("hub", "keras_hub", what="this model, which is one of KerasHub,")
    importlib.import_module("keras_hub")


def _of_hub(name: Any, end: str = ".") -> bool:
    return isinstance(name, str) and name.startswith(f"keras_hub{end}")


def _is_allowed(found: Any) -> bool:
    if not isinstance(found, type):
        return False
    if vars(dlcli.layers).get(found.__name__) is found:
        return True
    module = found.__module__
    if module.startswith(_HUB_MODULES):
        return issubclass(found, keras.Layer)
    if module.startswith(("keras.src.ops.", "keras.src.activations.")):
        return issubclass(found, keras.Operation) and not issubclass(found, keras.Function)
    return module.startswith("keras.src.") and issubclass(found, _PARTS)


def _check_function(entry: Mapping[str, Any], layer: str) -> None:
    module, names = entry.get("module"), (entry.get("config"), entry.get("registered_name"))
    for name in names:
        if isinstance(name, str) and name in _HUB_FUNCTIONS:
            _import_hub()
            continue
        known = isinstance(name, str) and module in _FUNCTION_MODULES and name in _FUNCTIONS
        if name not in (None, "function") and not known:
            what = f"made with the function {module}.{str(name)[:80]}"
            _refuse(layer, f"{what}, which is no activation, loss or metric of Keras")


def _check_array(entry: Mapping[str, Any], layer: str) -> None:
    inner = entry.get("config")
    dtype = inner.get("dtype") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or dtype not in _ARRAY_TYPES:
        raise UnfitError(f"is refused: {layer} holds an array of {dtype!r} in its configuration")
    count, pending = 0, [(inner.get("value"), 0)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, list) and depth < 32:
            count += len(value)
            pending.extend((each, depth + 1) for each in value)
        elif not isinstance(value, (int, float)):
            raise UnfitError(
                f"is refused: {layer} holds an array in its configuration that is not of numbers"
            )
        if count > _LARGEST_ARRAY:
            raise UnfitError(
                f"is refused: {layer} holds an array of more than {_LARGEST_ARRAY:,} numbers in its configuration"
            )


def _largest(value: Any) -> float:
    """The largest number of a size, which is one or a list."""
    numbers = value if isinstance(value, list) else [value]
    return max((each for each in numbers if isinstance(each, (int, float))), default=0)


def _refuse(layer: str, what: str) -> NoReturn:
    advice = "if the model is yours, build it without that and save it again"
    raise UnfitError(f"is refused: {layer} is {what}", advice)
