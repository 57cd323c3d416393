"""manifest.json: all that a program without dlcli must know to use an artefact."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlcli.data import TEXT_KINDS
from dlcli.data.text.tokenizer import END, START, Tokenizer
from dlcli.export.example import SAMPLES
from dlcli.export.exportable import DRAWN_KINDS
from dlcli.export.format import Exportable, Format, Options, Written
from dlcli.export.generative import sampling
from dlcli.files import sha256_of
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, installed_version, write_json

FILE = "manifest.json"
TOKENIZER = "tokenizer.json"

_MEANINGS = {
    "classes": "the probability of each class; they sum to 1",
    "labels": "the probability of each label, one by one",
    "values": "the value of each target column, in its own unit",
    "tags": "the probability of each tag, for every token; the first token of a word carries the word's",
    "spans": "the probabilities that the answer starts and that it ends at each token",
    "images": "pixels between 0 and 1, height by width by channels",
    "noise": "what the network says of noisy images, their noise or velocity: see `sampling`",
    "text": "logits over the vocabulary, for every token: softmax makes probabilities of them",
}

_REPLACED = "the probability that another token stood in the place of each"


def about(run: Run, item: Exportable, task: Any) -> dict[str, Any]:
    """What is the same for all formats of a run.

    Args:
        run: that is exported.
        item: its model.
        task: the run's, as `dlcli.training.build.build_task` makes it.
    """
    recipe = run.recipe
    replaced = recipe.task.name == "replaced_token_detection"
    return {
        "run": run.path.resolve().name,
        "task": recipe.task.name,
        "architecture": recipe.architecture.name,
        "kind": item.kind,
        "target": item.target,
        "classes": list(item.classes),
        "tokenizer": _tokenizer(recipe, item, task),
        "output": {
            "shape": [None, *item.model.output_shape[1:]],
            "dtype": "float32",
            "meaning": _REPLACED if replaced else _MEANINGS[item.target],
        },
        "sampling": sampling(item.model),
        "sample": SAMPLES.get(item.kind, "sample.txt"),
        "model_sha256": sha256_of(run.model_path),
    }


def manifest(
    common: Mapping[str, Any], chosen: Format, item: Exportable, options: Options, written: Written
) -> dict[str, Any]:
    """The whole, but for the files, which `with_files` adds when they are all there.

    Args:
        common: from `about`.
        chosen: the format.
        item: the model.
        options: what the user asked for.
        written: what came of it.
    """
    inputs = item.inputs if chosen.strings else item.numeric_inputs
    vocabularies = {} if chosen.strings else item.vocabularies
    return {
        "format": chosen.name,
        **common,
        "inputs": [_input(each, item.kind) for each in inputs],
        "vocabularies": {name: list(values) for name, values in vocabularies.items()},
        "preprocessing": preprocessing(item, bool(vocabularies)),
        "batch_size": written.batch_size,
        "length": written.length,
        "quantization": options.quantize,
        "notes": list(written.notes),
        "details": dict(written.details),
        "versions": versions(chosen),
    }


def preprocessing(item: Exportable, numbered: bool = False) -> str:
    """What is to be done before the graph, in words; everything else is inside it.

    Args:
        item: the model.
        numbered: whether columns of text come as numbers.
    """
    if item.kind == "image":
        height, width, channels = item.inputs[0].shape
        color = "grey" if channels == 1 else "RGB"
        return (
            f"uint8 pixels (N, {height}, {width}, {channels}), {color}, 0 to 255, the picture resized to "
            f"{width}x{height}; normalization is inside"
        )
    if item.kind in DRAWN_KINDS:
        return _of_drawn(item)
    if item.kind == "table":
        words = "the number of the word in `vocabularies`, -1 for any other" if numbered else "strings"
        return (
            "one array (N, 1) for each column: numbers as float32, NaN where one is missing; words as "
            f"{words}. Filling in, standardization and one-hot are inside"
        )
    return (
        f"{TOKENIZER} (Hugging Face tokenizers) with encode_special_tokens = True and add_special_tokens=False; ids "
        f"below 5 that it gives become 1; then `tokenizer.start`, the ids, `tokenizer.end`, {item.max_length} together "
        "at most (the ids are cut), int32 (N, T), 0 behind shorter texts; an empty text is [1]"
    )


def _of_drawn(item: Exportable) -> str:
    """What a model that draws reads."""
    labels = "; labels as int32 (N,), indices into `classes`" if item.classes else ""
    if item.kind == "latents":
        (latents,) = (each for each in item.inputs if each.name == "latents")
        return f"latents as float32 (N, {latents.shape[0]}), standard normal{labels}"
    none = f", and {len(item.classes)} for none of them" if item.classes else ""
    return (
        "images as float32 (N, height, width, channels), -1 to 1 and noise: sqrt(sigmoid(log_snr)) of the one, "
        f"sqrt(sigmoid(-log_snr)) of the other; log_snr as float32 (N,){labels}{none}. One begins with noise alone and "
        "goes through the levels of `sampling`, as example.py does"
    )


def with_files(whole: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The manifest with size and sha256 of every other file in the folder."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE
    }
    return {**whole, "files": files}


def write_manifest(folder: Path, whole: Mapping[str, Any]) -> None:
    """Writes manifest.json."""
    write_json(folder / FILE, whole)


def versions(chosen: Format) -> dict[str, str | None]:
    """Of what wrote the artefact."""
    packages = ("dlcli", "keras", "tensorflow", "numpy", chosen.runtime, *chosen.packages)
    names = dict.fromkeys(name.replace("_", "-") for name in packages)
    return {"python": platform.python_version(), **{name: installed_version(name) for name in names}}


def _input(each: Any, kind: str) -> dict[str, Any]:
    described = {"name": each.name, "shape": list(each.shape), "dtype": each.dtype}
    if kind != "table":
        return described
    from dlcli.data.table_preprocessing import column_name

    return {**described, "column": column_name(each.name)}


def _tokenizer(recipe: Recipe, item: Exportable, task: Any) -> dict[str, Any] | None:
    """How a text becomes ids; None for what is no text."""
    if item.tokenizer is None or item.kind not in TEXT_KINDS:
        return None
    start, end = {
        "text_classification": lambda: task.ends,
        "language_modeling": lambda: ((), ()),
        "masked_language_modeling": lambda: ((START,), ()),
        "replaced_token_detection": lambda: ((START,), ()),
    }.get(recipe.task.name, lambda: ((START,), (END,)))()
    described = {
        "file": TOKENIZER,
        "max_length": item.max_length,
        "start": list(start),
        "end": list(end),
    }
    if item.kind == "tagged":
        # A tokenizer that marks the beginning of a word by the space before it gets words with that space.
        known = Tokenizer(item.tokenizer)
        marked = (known.token(index) for index in range(known.vocabulary_size))
        described["space_before_words"] = any(len(token) > 1 and token.startswith("Ġ") for token in marked)
    names = ("max_question_length", "stride", "max_answer_length")
    return described | {name: value for name, value in recipe.task.arguments.items() if name in names}
