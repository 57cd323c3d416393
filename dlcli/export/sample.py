"""The real input beside an artefact, which example.py reads when it gets none, and what it should print for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.data.table_preprocessing import column_name
from dlcli.data.text.tokenizer import MASK, Tokenizer
from dlcli.export.exportable import DRAWN_KINDS
from dlcli.export.format import Exportable
from dlcli.export.samples import Samples

_SHOWN = 60
"""Tokens of a sample for a model that reads windows of a corpus."""


def chosen(item: Exportable, samples: Samples, outputs: np.ndarray) -> int:
    """Which example is shown: of classes the one of which the model is most sure, and rightly; else the first."""
    if item.target != "classes" or samples.targets is None:
        return 0
    right = outputs.argmax(axis=-1) == samples.targets
    return int(np.where(right, outputs.max(axis=-1), -1).argmax())


def write_sample(item: Exportable, samples: Samples, index: int, task: str, path: Path) -> None:
    """Writes example number `index` as example.py reads it.

    Args:
        item: the model.
        samples: real examples.
        index: which one.
        task: of the run.
        path: with the name that the manifest gives as `sample`.
    """
    if item.kind == "image":
        from PIL import Image

        (pixels,) = samples.inputs.values()
        Image.fromarray(pixels[index].squeeze(-1) if pixels.shape[-1] == 1 else pixels[index]).save(path)
    elif item.kind in DRAWN_KINDS:
        inputs = {name: array[index].tolist() for name, array in samples.inputs.items() if name != "log_snr"}
        path.write_text(json.dumps(inputs) + "\n", encoding="utf-8")
    elif item.kind == "table":
        row = {column_name(name): _cell(column[index, 0]) for name, column in samples.inputs.items()}
        path.write_text(_json(row), encoding="utf-8")
    elif item.kind == "questions":
        asked = {name: samples.raw.columns[name][0] for name in ("question", "context")}
        path.write_text(_json(asked), encoding="utf-8")
    else:
        path.write_bytes(_text(item, samples, index, task).encode("utf-8"))


def _text(item: Exportable, samples: Samples, index: int, task: str) -> str:
    if item.tokenizer is None:
        raise ValueError("Expected a model of texts. Received: one without a tokenizer")
    columns = {"text_classification": "text", "translation": "source", "token_classification": "words"}
    if task in columns:
        return samples.raw.columns[columns[task]][index]
    tokenizer = Tokenizer(item.tokenizer)
    ids = next(iter(samples.inputs.values()))[index]
    if task != "masked_language_modeling":
        return tokenizer.decode(ids[:_SHOWN])
    masks = np.flatnonzero(ids == MASK)
    shown = ids[: max(_SHOWN, int(masks[0]) + 2 if len(masks) else 0)]
    return " <mask> ".join(tokenizer.decode(part) for part in np.split(shown, np.flatnonzero(shown == MASK)))


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    number = float(value)
    return None if math.isnan(number) else number


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def unlike(printed: str, item: Exportable, outputs: np.ndarray, tolerance: float = 1e-3) -> str | None:
    """What is wrong with the last lines that example.py printed; None when nothing is.

    Args:
        printed: all of its standard output.
        item: the model.
        outputs: of the artefact for the sample, (K,) or (T, ...).
        tolerance: of the printed numbers.
    """
    lines = [line for line in printed.splitlines() if line.strip()]
    if not lines:
        return "it printed nothing"
    if item.target == "classes":
        wanted: Mapping[str, float] = {item.classes[int(outputs.argmax())]: float(outputs.max())}
    elif item.target in ("labels", "values"):
        wanted = dict(zip(item.classes, outputs.tolist(), strict=True))
    else:
        return None  # texts: that it runs is what can be said
    for line, (name, number) in zip(lines[-len(wanted) :], wanted.items(), strict=True):
        said, _, value = line.rpartition(" ")
        if said != name or not math.isclose(_number(value), number, rel_tol=tolerance, abs_tol=tolerance):
            return f"it printed {line!r} where {name} {number:.6g} was expected"
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
