"""Settings that are each right and cannot stand together; every mistake names both keys."""

from __future__ import annotations

from typing import Any

from dlcli.architectures import READ_A_SOURCE
from dlcli.data import DATASETS, IMAGE_AUGMENTATIONS, IMAGE_KINDS, KINDS_OF_DATA, MIXING, TEXT_KINDS
from dlcli.recipe.generative import generative_conflicts
from dlcli.recipe.mistakes import Mistake, RecipePath, dotted, shown
from dlcli.recipe.names import find
from dlcli.recipe.schema import Training
from dlcli.recipe.several_devices import OF_WHOLE_BATCHES, device_conflicts
from dlcli.recipe.signatures import arguments_of, reads_tokens
from dlcli.recipe.wording import Specs, mistake_at, place_of, value_at
from dlcli.recipe.yaml_reader import Document
from dlcli.tasks import READS, TASKS


def share_settings(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """Hands `regularization.dropout` to the architecture, and `.weight_decay` to the optimizer.

    So the resolved recipe says the value in both places, and code reads the builder's argument only.
    """
    found = []
    for key, section in (("dropout", "architecture"), ("weight_decay", "optimizer")):
        here: RecipePath = ("regularization", key)
        wanted = value_at(value, here)
        for path, (kind, name, given) in specs.items():
            if kind != section or wanted is None:
                continue
            own = given.get(key)
            if key not in arguments_of(section, name):
                what = f"{section} {name} has no argument {key}; leave it out or take another {section}"
                found.append(mistake_at(document, here, what, wanted))
            elif own is not None and own != wanted:
                what = f"{dotted(path)}.{key} is {shown(own)}; give {key} in one place"
                found.append(mistake_at(document, here, what, wanted))
            elif own is None:
                given[key] = wanted
                document.places[(*path, key)] = place_of(document, here)  # a mistake in it stands there
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
        *_keys_of_other_data(value, specs, document),
        *_application_pixels(specs, document),
        *_frozen_features(specs, document),
        *_parts_of_a_batch(value, specs, document),
        *device_conflicts(value, document),
        *generative_conflicts(value, specs, document),
    ]


def kind_of_data(source: str | None) -> str:
    """`image`, `table`, `text`, ... (KINDS_OF_DATA); empty for a name that is no source."""
    return next((kind for kind, table in KINDS_OF_DATA.items() if source in table), "")


def _kind_of_data(specs: Specs, document: Document) -> list[Mistake]:
    """Task and architecture must read what the source holds."""
    task, source, architecture = (
        specs.get((section,), ("", "", {}))[1] for section in ("task", "dataset", "architecture")
    )
    kind, found = kind_of_data(source), []
    if task and kind and kind not in READS[task]:
        fitting = ", ".join(name for name in TASKS if kind in READS[name])
        sources = ", ".join(name for name in DATASETS if kind_of_data(name) in READS[task])
        what = f"dataset {source} holds {HOLDS[kind]}; use task {fitting}, or a dataset of {sources}"
        found.append(mistake_at(document, ("task",), what))
    if (
        architecture
        and kind
        and architecture not in READ_A_SOURCE
        and reads_tokens(architecture) != (kind in TEXT_KINDS)
    ):
        takes, holds = ("numbers", "text") if kind in TEXT_KINDS else ("tokens", HOLDS[kind])
        what = f"architecture {architecture} reads {takes}, and dataset {source} holds {holds}"
        found.append(mistake_at(document, ("architecture",), what))
    return found


HOLDS = {
    "image": "images",
    "table": "rows",
    "text": "texts",
    "pairs": "pairs of sentences",
    "questions": "questions on texts",
    "tagged": "tagged words",
    "image_pairs": "pairs of images",
    "unpaired_images": "two sets of images",
}
"""Kind of data -> what its examples are called."""


def _regression(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    if specs.get(("task",), ("", "", {}))[1] != "regression":
        return []
    found = []
    weights = value_at(value, ("regularization", "class_weights"))
    if weights is not None:
        what = "task regression has no classes to weigh; leave it out"
        found.append(mistake_at(document, ("regularization", "class_weights"), what, weights))
    smoothing = value_at(value, ("regularization", "label_smoothing"))
    if isinstance(smoothing, int | float) and smoothing > 0:
        what = "task regression has no class labels to smooth; leave it out"
        found.append(mistake_at(document, ("regularization", "label_smoothing"), what, smoothing))
    for path, (kind, name, _) in specs.items():
        if kind == "augmentation" and name in MIXING:
            what = f"task regression has no class labels that {name} could mix"
            found.append(mistake_at(document, path, what))
    return found


def _keys_of_other_data(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """Augmentations change either images or texts; tokenizers read texts."""
    source = specs.get(("dataset",), ("", "", {}))[1]
    kind = kind_of_data(source)
    if not kind:
        return []
    found = []
    named = [(path, name) for path, (spec_kind, name, _) in specs.items() if spec_kind == "augmentation"]
    if named and kind not in (*IMAGE_KINDS, "text"):
        what = f"dataset {source} holds {HOLDS[kind]}, which no augmentation changes; leave it out"
        found.append(mistake_at(document, ("dataset", "augmentation"), what))
        named = []
    for path, name in named:
        changes = "image" if name in IMAGE_AUGMENTATIONS else "text"
        if changes != ("image" if kind in IMAGE_KINDS else kind):
            what = f"{name} changes {HOLDS[changes]}, and dataset {source} holds {HOLDS[kind]}; leave it out"
            found.append(mistake_at(document, path, what))
    if kind not in TEXT_KINDS:
        for key in ("tokenizer", "max_length"):
            if value_at(value, ("dataset", key)) is not None:
                what = f"{key} is for texts, and dataset {source} holds {HOLDS[kind]}; leave it out"
                found.append(mistake_at(document, ("dataset", key), what))
    return found


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


def _frozen_features(specs: Specs, document: Document) -> list[Mistake]:
    """Features that are computed once: nothing changes them anew in each epoch, and only a vector is kept."""
    if specs.get(("architecture",), ("", "", {}))[1] != "frozen_features":
        return []
    task, source = (specs.get((section,), ("", "", {})) for section in ("task", "dataset"))
    found = []
    if any(kind == "augmentation" for kind, _, _ in specs.values()):
        what = (
            "architecture frozen_features computes the features of each example once, so that no augmentation "
            "reaches them; leave it out, or take architecture pretrained and `finetune.freeze: all`"
        )
        found.append(mistake_at(document, ("dataset", "augmentation"), what))
    if task[1] and task[1] not in VECTOR_TASKS:
        what = f"architecture frozen_features gives one vector for each example; use task {', '.join(VECTOR_TASKS)}"
        found.append(mistake_at(document, ("task",), what, task[1]))
    pooling = specs[("architecture",)][2].get("pooling")
    if pooling == "first" and task[1] == "text_classification" and task[2].get("pooling") != "first":
        what = (
            "of a text, architecture frozen_features with pooling first reads the token that task.pooling first "
            "puts before it; set task.pooling: first too"
        )
        found.append(mistake_at(document, ("architecture", "pooling"), what, pooling))
    normalization = source[2].get("normalization", "rescale")
    if normalization != "rescale":
        what = "architecture frozen_features does its source's own preprocessing on raw pixels; leave it out"
        found.append(mistake_at(document, ("dataset", "normalization"), what, normalization))
    return found


def _parts_of_a_batch(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """Gradient accumulation needs an example for each part, and a loss that is a mean of examples."""
    here: RecipePath = ("training", "gradient_accumulation")
    sizes = (value_at(value, ("training", key)) for key in ("batch_size_per_replica", "batch_size"))
    batch_size = next((size for size in sizes if size is not None), Training().batch_size)
    parts = value_at(value, here)
    if not isinstance(parts, int) or not isinstance(batch_size, int):
        parts = batch_size = 1  # a mistake of its own, or nothing given
    found = []
    if parts > batch_size:
        what = f"a batch of {batch_size} cannot be cut into {parts} parts; lower it, or raise training.batch_size"
        found.append(mistake_at(document, here, what, parts))
    loss = specs.get(("task",), ("", "", {}))[2].get("loss")
    cuts = parts > 1 or value_at(value, ("training", "on_out_of_memory")) == "halve_batch"
    if cuts and isinstance(loss, str) and find(loss, OF_WHOLE_BATCHES):
        what = (
            f"loss {loss} is of a whole batch at once, which training in parts would change; use another loss"
        )
        found.append(mistake_at(document, ("task", "loss"), what, loss))
    return found


VECTOR_TASKS = ("image_classification", "tabular_classification", "text_classification", "regression")
"""Tasks for which the vector of an example is enough."""
