"""`dlcli features`: what a layer of a pretrained model makes of each input, written as it comes.

features.npz holds `features` (N, ...) float32, `inputs` (N,) the name of each, and `errors` (M,) what could not be read
and why. features.csv has a row for each input: `input`, `feature_0`, ..., `error`.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import keras
import numpy as np

from dlcli.console import Counting, note, out, print_json, warn
from dlcli.data.text.tokenizer import END, START
from dlcli.errors import DlcliError
from dlcli.evaluation.predict import Head, Prediction, predict_inputs, prediction
from dlcli.evaluation.text_inputs import TextForm, find_texts, form_of
from dlcli.files import atomic_path
from dlcli.layers.token_ids import PresetTokens
from dlcli.layers.walk import named_layers
from dlcli.pretrained.backbone import Backbone
from dlcli.pretrained.features import pooled
from dlcli.pretrained.source import load_backbone
from dlcli.recipe.schema import Recipe
from dlcli.runs import is_run, load_run, refuse_drawing
from dlcli.tasks.text_classification import text_ends

SUFFIXES = (".npz", ".csv")

ERRORS_SHOWN = 20

_HEAD = Head("values", (), 0)
"""Of outputs that mean nothing by themselves."""

_COPIED_AT_ONCE = 1 << 20


@dataclass
class Counts:
    """What became of the inputs."""

    written: int = 0
    errors: list[str] = field(default_factory=list)
    """`input: why`, of those that could not be read."""


def extract_features(
    source: str,
    inputs: Sequence[str],
    path: Path,
    *,
    layer: str | None = None,
    pooling: Literal["mean", "max", "first", "none"] = "mean",
    preprocessing: str = "auto",
) -> dict[str, Any]:
    """Writes the features of all inputs; memory does not grow with their number.

    Args:
        source: a run folder, or what `load_backbone` takes.
        inputs: as `dlcli predict` takes them.
        path: ends with `.npz` or `.csv`; it appears when it is complete.
        layer: the layer whose output is written; the one before the head when None.
        pooling: how maps and sequences become vectors; `none` leaves them as they are.
        preprocessing: what the source expects of pixels when its file does not say.

    Returns:
        For JSON: where the features come from and lie, their `shape` (N, ...), and `errors`.

    Raises:
        DlcliError: the file cannot hold such features, or no input could be read.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DlcliError(f"--out {path}: expected a file name that ends with {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise DlcliError(f"--out {path}: is a folder; give the name of a file")
    if is_run(source):
        refuse_drawing(load_run(source), "features")
    backbone = load_backbone(source, layer, preprocessing)
    for text in backbone.notes:
        note(f"{source}: {text}")
    model = backbone.model if pooling == "none" else pooled(backbone, pooling)
    shape = _shape(model, backbone, suffix)
    unit, found = _read(model, backbone, inputs, _recipe_of(source))
    counts = Counts()
    with atomic_path(path) as unfinished, Counting(f"features of {source}", unit) as progress:
        rows = _noted(found, counts, progress)
        if suffix == ".csv":
            _write_csv(rows, shape[0], unfinished)
        else:
            _write_npz((row for row in rows if row.error is None), shape, counts, unfinished)
        if not counts.written:
            raise DlcliError(f"none of the {len(counts.errors)} inputs could be read; nothing is written")
    return {
        "source": source,
        "layer": backbone.layer,
        "pooling": pooling,
        "shape": [counts.written, *shape],
        "errors": counts.errors,
        "file": str(path),
    }


def print_features(report: dict[str, Any], as_json: bool) -> None:
    """Shows what was written.

    Raises:
        DlcliError: some inputs could not be read; the features of the others are written all the same.
    """
    if as_json:
        print_json(report)
    else:
        shape = " x ".join(f"{side:,}" for side in report["shape"])
        line = f"{shape} features of layer {report['layer']}: {report['file']}"
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if report["errors"]:
        raise DlcliError(f"{len(report['errors'])} of the inputs could not be read; the others are written")


def _shape(model: keras.Model, backbone: Backbone, suffix: str) -> tuple[int, ...]:
    """Of the features of one input.

    Raises:
        DlcliError: it is not the same for all inputs, or more than a row of a table.
    """
    if not isinstance(model.output, keras.KerasTensor):
        raise DlcliError(f"layer {backbone.layer} gives more than one tensor; choose another layer")
    shape = tuple(model.output.shape[1:])
    open_or_fixed = " x ".join("?" if side is None else str(side) for side in shape)
    if None in shape:
        raise DlcliError(
            f"--pooling none: layer {backbone.layer} gives {open_or_fixed} numbers, more for a longer text or a larger "
            "image, and one array cannot hold rows of different shapes: take --pooling mean, max or first"
        )
    if suffix == ".csv" and len(shape) != 1:
        raise DlcliError(
            f"--pooling none: layer {backbone.layer} gives {open_or_fixed} numbers for each input, and a row of a CSV "
            "file holds a vector: take --out features.npz, or --pooling mean, max or first"
        )
    return shape


def _recipe_of(source: str) -> Recipe | None:
    """Of a run, which says how its texts and tables are written."""
    return load_run(source).recipe if is_run(source) else None


def _read(
    model: keras.Model, backbone: Backbone, inputs: Sequence[str], recipe: Recipe | None
) -> tuple[str, Iterator[Prediction]]:
    """What the inputs are called, and the model's outputs for them."""
    if backbone.tokenizer is not None:
        return "texts", _of_texts(model, backbone, inputs, recipe)
    dataset = None if recipe is None else recipe.dataset
    written_as = dataset.arguments if dataset is not None and dataset.name == "csv" else {}
    return "rows" if isinstance(model.input, dict) else "images", predict_inputs(
        model,
        [Path(each) for each in inputs],
        delimiter=written_as.get("delimiter"),
        encoding=written_as.get("encoding"),
        head=_HEAD,
    )


def _of_texts(
    model: keras.Model, backbone: Backbone, inputs: Sequence[str], recipe: Recipe | None
) -> Iterator[Prediction]:
    from dlcli.evaluation.predict_text import Reader, predict_found

    if backbone.tokenizer is None or len(model.inputs) != 1:
        raise DlcliError(f"{backbone.source}: reads more than one text at once; features are of one text")
    form = TextForm({"text": "text"})
    if recipe is not None and recipe.task.name != "question_answering":
        form = form_of(recipe.task.name, recipe.dataset.name, recipe.dataset.arguments)
    # Nothing is longer than what numpy can index: a source without a limit reads texts as they are.
    longest = backbone.max_length or np.iinfo(np.int32).max
    ends = _ends_of_source(backbone) if recipe is None else _ends_of_run(recipe)
    reader = Reader(model, backbone.tokenizer, longest, "features", {}, _HEAD, ends=ends)

    def outputs(reader: Reader, texts: Sequence[Any]) -> list[Prediction]:
        rows = dict(reader.outputs(reader.encode([each.texts["text"] for each in texts])))
        return [prediction(each.name, rows[index], _HEAD) for index, each in enumerate(texts)]

    return predict_found(reader, find_texts(inputs, form), outputs)


Ends = tuple[tuple[int, ...], tuple[int, ...]]
"""Special tokens before and after a text."""

_ENDS: dict[str, Ends] = {
    "masked_language_modeling": ((START,), ()),
    "replaced_token_detection": ((START,), ()),
    "token_classification": ((START,), (END,)),
    "question_answering": ((START,), (END,)),
    "translation": ((), (END,)),
}
"""As each task puts them, where it does."""


def _ends_of_run(recipe: Recipe) -> Ends:
    if recipe.task.name == "text_classification":
        return text_ends(recipe.task.arguments["pooling"], recipe.task.arguments["ends"])
    return _ENDS.get(recipe.task.name, ((), ()))


def _ends_of_source(backbone: Backbone) -> Ends:
    """Encoders such as BERT read each text between two tokens of their own; GPT-2 has one token for both, and none."""
    for _, layer in named_layers(backbone.model):
        if isinstance(layer, PresetTokens) and layer.special_ids[START] != layer.special_ids[END]:
            return (START,), (END,)
    return (), ()


def _noted(found: Iterable[Prediction], counts: Counts, progress: Counting) -> Iterator[Prediction]:
    """The same predictions, counted; the first errors are said at once."""
    for row in found:
        if row.error is None:
            counts.written += 1
            progress.add(1)
        else:
            counts.errors.append(f"{row.input}: {row.error}")
            if len(counts.errors) <= ERRORS_SHOWN:
                warn(counts.errors[-1])
        yield row
    if len(counts.errors) > ERRORS_SHOWN:
        warn(f"and {len(counts.errors) - ERRORS_SHOWN} more that cannot be read")


def _write_csv(rows: Iterable[Prediction], width: int, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["input", *(f"feature_{index}" for index in range(width)), "error"])
        for row in rows:
            # Nine digits give each float32 back.
            cells = (
                [""] * width if row.outputs is None else [f"{value:.9g}" for value in row.outputs.tolist()]
            )
            writer.writerow([row.input, *cells, row.error or ""])


def _write_npz(rows: Iterable[Prediction], shape: tuple[int, ...], counts: Counts, path: Path) -> None:
    """An array's head holds its length, so features and names wait in files beside it until all are there."""
    with (
        tempfile.TemporaryFile(dir=path.parent) as features,
        tempfile.TemporaryFile(dir=path.parent) as names,
    ):
        widest = 1
        for row in rows:
            features.write(np.ascontiguousarray(row.outputs, "<f4").data)
            widest = max(widest, _put_name(names, row.input))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            features.seek(0)
            with _array(archive, "features", "<f4", (counts.written, *shape)) as member:
                shutil.copyfileobj(features, member, _COPIED_AT_ONCE)
            names.seek(0)
            with _array(archive, "inputs", f"<U{widest}", (counts.written,)) as member:
                for _ in range(counts.written):
                    member.write(_next_name(names).ljust(4 * widest, b"\0"))
            with archive.open("errors.npy", "w") as member:
                errors = [_printable(each) for each in counts.errors]
                np.lib.format.write_array(member, np.array(errors, np.str_), allow_pickle=False)


def _array(archive: zipfile.ZipFile, name: str, kind: str, shape: tuple[int, ...]) -> IO[bytes]:
    """A new array in the archive: its head is written, its elements are to come; names, being padded, are squeezed."""
    entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED if kind.startswith("<U") else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    member = archive.open(entry, "w", force_zip64=True)
    np.lib.format.write_array_header_1_0(member, {"descr": kind, "fortran_order": False, "shape": shape})
    return member


def _put_name(file: IO[bytes], name: str) -> int:
    """Writes a name as numpy stores it, behind its length; returns its characters."""
    characters = _printable(name).encode("utf-32-le")
    file.write(len(characters).to_bytes(4, "little") + characters)
    return len(characters) // 4


def _next_name(file: IO[bytes]) -> bytes:
    return file.read(int.from_bytes(file.read(4), "little"))


def _printable(name: str) -> str:
    """A name of a file that is no UTF-8 is kept with its bytes spelled out, as predictions are."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
