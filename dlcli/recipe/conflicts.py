"""Settings that are each right and cannot stand together; every mistake names both keys."""

from __future__ import annotations

from typing import Any

from dlcli.recipe.mistakes import Mistake, RecipePath, shown
from dlcli.recipe.signatures import arguments_of
from dlcli.recipe.wording import place_of
from dlcli.recipe.yaml_reader import Document

TABLES = ("iris", "wine", "breast_cancer", "diabetes", "csv")
"""Sources of rows: nothing to augment."""

_MIXING = ("mix_up", "cut_mix")

Specs = dict[RecipePath, tuple[str, str, dict[str, Any]]]
"""Path -> kind, canonical name, arguments given."""


def share_settings(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """Hands `regularization.dropout` to the architecture, and `.weight_decay` to the optimizer.

    So the resolved recipe says the value in both places, and code reads the builder's argument only.
    """
    found = []
    for key, section in (("dropout", "architecture"), ("weight_decay", "optimizer")):
        here: RecipePath = ("regularization", key)
        wanted = _get(value, here)
        if wanted is None or (section,) not in specs:
            continue
        _, name, given = specs[(section,)]
        own = given.get(key)
        if key not in arguments_of(section, name):
            what = f"{section} {name} has no argument {key}; leave it out or take another {section}"
            found.append(_mistake(document, here, what, wanted))
        elif own is not None and own != wanted:
            what = f"{section}.{key} is {shown(own)}; give {key} in one place"
            found.append(_mistake(document, here, what, wanted))
        elif own is None:
            given[key] = wanted
            document.places[section, key] = place_of(document, here)  # a mistake in it stands there
    return found


def conflicts(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """Everything in a recipe that contradicts something else in it.

    Args:
        value: the recipe's values as given; they may have other mistakes.
        specs: the Specs whose names are known.
        document: for positions.
    """
    return [
        *_kind_of_data(specs, document),
        *_regression(value, specs, document),
        *_augmented_tables(value, specs, document),
        *_application_pixels(specs, document),
    ]


def _kind_of_data(specs: Specs, document: Document) -> list[Mistake]:
    task, source = (specs.get((section,), ("", "", {}))[1] for section in ("task", "dataset"))
    wrong = {
        "image_classification": source in TABLES,
        "tabular_classification": bool(source) and source not in TABLES,
    }
    if not wrong.get(task):
        return []
    holds, other = ("rows", "tabular") if source in TABLES else ("images", "image")
    what = f"dataset {source} holds {holds}; use task {other}_classification, or another dataset"
    return [_mistake(document, ("task",), what)]


def _regression(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    if specs.get(("task",), ("", "", {}))[1] != "regression":
        return []
    found = []
    weights = _get(value, ("regularization", "class_weights"))
    if weights is not None:
        what = "task regression has no classes to weigh; leave it out"
        found.append(_mistake(document, ("regularization", "class_weights"), what, weights))
    smoothing = _get(value, ("regularization", "label_smoothing"))
    if isinstance(smoothing, int | float) and smoothing > 0:
        what = "task regression has no class labels to smooth; leave it out"
        found.append(_mistake(document, ("regularization", "label_smoothing"), what, smoothing))
    for path, (kind, name, _) in specs.items():
        if kind == "augmentation" and name in _MIXING:
            what = f"task regression has no class labels that {name} could mix"
            found.append(_mistake(document, path, what))
    return found


def _augmented_tables(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    source = specs.get(("dataset",), ("", "", {}))[1]
    augmentation = _get(value, ("dataset", "augmentation"))
    if source not in TABLES or not augmentation:
        return []
    what = f"dataset.name {source} is a table, and augmentation changes images; leave it out"
    return [_mistake(document, ("dataset", "augmentation"), what)]


def _application_pixels(specs: Specs, document: Document) -> list[Mistake]:
    architecture, source = specs.get(("architecture",)), specs.get(("dataset",))
    if architecture is None or source is None or architecture[1] != "application":
        return []
    argument = arguments_of("dataset", source[1]).get("normalization")
    normalization = source[2].get("normalization", argument.default if argument else "rescale")
    if normalization == "rescale":
        return []
    what = "architecture application does its model's own preprocessing on pixels in 0..1"
    path = ("dataset", "normalization")
    return [Mistake(what, place_of(document, path), path, allowed="rescale", received=shown(normalization))]


def _mistake(document: Document, path: RecipePath, what: str, received: Any = None) -> Mistake:
    place = place_of(document, path)
    return Mistake(what, place, path, received=None if received is None else shown(received))


def _get(value: Any, path: RecipePath) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value
