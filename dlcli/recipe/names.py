"""Names in recipes: any spelling of a public Keras name, near misses, Keras's public namespaces.

Nothing here imports Keras: its `__init__.py` files are generated lists of `from keras.src... import X as X`,
which `ast` reads in milliseconds, where the import takes seconds.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

NAMESPACES = ("activations", "applications", "initializers", "losses", "metrics", "optimizers")

_REFUSED = {
    # Not usable by name alone: abstract, wrappers, other arguments needed, or (glu) another output width.
    "activations": {"get", "serialize", "deserialize", "threshold", "glu"},
    "applications": set(),
    "initializers": {"Initializer", "STFT"},
    "losses": {"Loss", "CTC"},
    "metrics": {
        "Metric", "Mean", "Sum", "MeanMetricWrapper", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU",
        "SensitivityAtSpecificity", "SpecificityAtSensitivity", "PrecisionAtRecall", "RecallAtPrecision",
    },
    "optimizers": {"Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"},
}  # fmt: skip

_ALIASES = {
    "initializers": {
        "random": "random_normal",
        "glorot": "glorot_uniform",
        "xavier": "glorot_uniform",
        "xavier_uniform": "glorot_uniform",
        "xavier_normal": "glorot_normal",
        "he": "he_normal",
        "kaiming": "he_normal",
        "kaiming_uniform": "he_uniform",
        "kaiming_normal": "he_normal",
        "lecun": "lecun_normal",
    },
    "losses": {
        "mse": "mean_squared_error",
        "mae": "mean_absolute_error",
        "mape": "mean_absolute_percentage_error",
        "msle": "mean_squared_logarithmic_error",
        "bce": "binary_crossentropy",
        "kld": "kl_divergence",
    },
    "metrics": {
        "mse": "mean_squared_error",
        "mae": "mean_absolute_error",
        "mape": "mean_absolute_percentage_error",
        "msle": "mean_squared_logarithmic_error",
        "rmse": "root_mean_squared_error",
        "r2": "r2_score",
        "f1": "f1_score",
    },
}

_SYNONYMS = {
    "lr": "learning_rate",
    "model": "architecture",
    "network": "architecture",
    "data": "dataset",
    "optim": "optimizer",
    "scheduler": "schedule",
    "bs": "batch_size",
    "dropout_rate": "dropout",
    "random_seed": "seed",
}


def normalize(name: str) -> str:
    """`random_crop`, `RandomCrop` and `random-crop` are the same name."""
    return re.sub(r"[_\-\s]", "", name).lower()


def suggest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The nearest of `known`, if one is near enough to be meant (`cutoff`: difflib's ratio)."""
    by_spelling = {normalize(candidate): candidate for candidate in known}
    wanted = normalize(name[:100])  # difflib is quadratic in the length
    if wanted in by_spelling:
        return by_spelling[wanted]
    if (synonym := _SYNONYMS.get(name.lower())) and normalize(synonym) in by_spelling:
        return by_spelling[normalize(synonym)]
    close = difflib.get_close_matches(wanted, by_spelling, n=1, cutoff=cutoff)
    return by_spelling[close[0]] if close else None


def find(name: str, known: Iterable[str]) -> str | None:
    """The name of `known` that `name` spells, or None."""
    wanted = normalize(name)
    return next((candidate for candidate in known if normalize(candidate) == wanted), None)


def keras_names(namespace: str) -> list[str]:
    """Canonical names that a recipe may use from `keras.<namespace>`, sorted, without aliases."""
    return sorted(_classes(namespace))


def keras_aliases(namespace: str) -> dict[str, str]:
    """Other names the field uses (`xavier`), and the canonical name of each."""
    return dict(_ALIASES.get(namespace, {}))


def canonical(namespace: str, name: str) -> str:
    """The one spelling used in resolved recipes: `canonical("optimizers", "AdamW") == "adamw"`.

    Raises:
        ValueError: Keras has no such public name, or it cannot be used by its name alone.
    """
    if namespace not in NAMESPACES:
        raise ValueError(f"Expected one of {', '.join(NAMESPACES)}. Received: {namespace}")
    wanted = normalize(name)
    found = _spellings(namespace).get(wanted)
    if found is None:
        expected = ", ".join(keras_names(namespace))
        raise ValueError(f"keras.{namespace} has no '{name}'. Expected one of {expected}")
    return found


def keras_class_name(namespace: str, name: str) -> str:
    """The attribute of `keras.<namespace>` to look up at run time: `AdamW` for `("optimizers", "adamw")`."""
    return _classes(namespace)[canonical(namespace, name)]


def keras_source(namespace: str, name: str) -> tuple[Path, str]:
    """The file that defines a public name, and its name in there."""
    module, original = _public(namespace)[keras_class_name(namespace, name)]
    return _keras_folder().joinpath(*module.split(".")[1:]).with_suffix(".py"), original


@cache
def _spellings(namespace: str) -> dict[str, str]:
    """Every spelling without case and underscores -> canonical name."""
    names = {normalize(name): name for name in _classes(namespace)}
    real = {original: name for name, original in _classes(namespace).items()}
    for public, (_, original) in _public(namespace).items():  # Keras's own aliases: swish is silu
        if original in real:
            names.setdefault(normalize(public), real[original])
    for alias, name in _ALIASES.get(namespace, {}).items():
        names.setdefault(normalize(alias), name)
    return names


@cache
def _classes(namespace: str) -> dict[str, str]:
    """Canonical name -> public attribute: the class where there is one, else (activations) the function."""
    public = _public(namespace)
    if namespace == "activations":
        wanted = [name for name, (_, original) in public.items() if name == original]
    else:
        wanted = [name for name, (_, original) in public.items() if name == original and name[0].isupper()]
    refused = _REFUSED[namespace]
    return {_spelled(namespace, name): name for name in wanted if name not in refused}


def _spelled(namespace: str, name: str) -> str:
    if (
        namespace == "applications"
    ):  # resnet50, efficientnet_b0, mobilenet_v3_small: Keras's module, then the size
        whole = name.replace("Net", "net").replace("NeXt", "next")
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", whole).lower()
    public = _public(namespace)
    if (
        namespace == "optimizers"
    ):  # the module is spelled as Keras spells it: adamw, rmsprop, schedule_free_adamw
        return public[name][0].rsplit(".", 1)[-1]
    same = [other for other in public if other.islower() and normalize(other) == normalize(name)]
    if same:
        return max(same, key=len)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.replace("IoU", "Iou"))
    return words.lower()


@cache
def _public(namespace: str) -> dict[str, tuple[str, str]]:
    """Public name -> (module, name in that module), from the namespace's `__init__.py`."""
    path = _keras_folder() / namespace / "__init__.py"
    names = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src."):
            for imported in node.names:
                names[imported.asname or imported.name] = (str(node.module), imported.name)
    return names


@cache
def _keras_folder() -> Path:
    found = importlib.util.find_spec("keras")  # finds, does not import
    if found is None or found.origin is None:
        raise ModuleNotFoundError("dlcli needs keras: pip install dlcli")
    return Path(found.origin).parent
