"""A picture of texts as the network reads them: lengths, classes, and the tokens of some of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes

from dlcli.data.augmentation import Augment, Position
from dlcli.data.examples import Data
from dlcli.data.text.augmentation import build_text_augment
from dlcli.data.text.survey import CUT_BY
from dlcli.data.text.texts import TextExamples
from dlcli.data.text.tokenizer import PAD, SPECIAL_TOKENS, UNKNOWN, Tokenizer
from dlcli.data.text.vocabulary import COLUMNS, encode_texts
from dlcli.evaluation.figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    drawing,
    font_families,
    label_classes,
    shorten,
)
from dlcli.recipe.schema import Recipe
from dlcli.training.build import build_task

WIDTH = 11.0
"""Inches."""

TOP = 2.4
"""Inches of the histograms."""

LINE = 0.19
"""Inches from line to line."""

COLUMNS_OF_TEXT = 120
"""Characters of a line."""

LINES = 4
"""Of each text; the rest is left out."""


LONGEST_TOKEN = 40
"""Characters of a token that are shown."""

MARGIN = 13
"""Characters on the left, for what a line is."""

_FAMILIES = ["DejaVu Sans Mono", *font_families()]


class Token(NamedTuple):
    """One token in a line."""

    column: int
    text: str
    number: int
    """Its id; negative where the task chose it."""


Laid = tuple[str, list[list[Token]]]
"""What a sequence is, and its lines."""


@dataclass(frozen=True)
class Shown:
    """One sequence of tokens of one example."""

    label: str
    """What it is: `as stored`, `epoch 1`, `source`."""
    ids: np.ndarray
    """Without padding; negative where the task chose a token to predict."""


def write_text_preview(recipe: Recipe, data: Data, out: Path, count: int) -> None:
    """Draws lengths and classes of the train split, and below them some texts, token by token.

    Args:
        recipe: of texts.
        data: its data, with the tokenizer.
        out: where the picture goes.
        count: how many texts.
    """
    if data.info.tokenizer is None:
        raise ValueError("Expected data with a tokenizer. Received: none")
    indices, blocks = _blocks(recipe, data, count)
    laid = [[(shown.label, _lines(shown, data.info.tokenizer)) for shown in block] for block in blocks]
    height = LINE * (sum(len(lines) for block in laid for _, lines in block) + 1.6 * len(laid) + 2)
    with drawing(WIDTH, TOP + height, out) as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(TOP, height), squeeze=False)[:, 0]
        has_classes = data.info.target in ("classes", "labels")
        axes = np.atleast_1d(upper.subplots(1, 2 if has_classes else 1))
        _draw_lengths(axes[0], recipe, data)
        if has_classes:
            _draw_classes(axes[1], data)
        text = lower.add_axes((0.01, 0, 0.98, 1), frameon=False)
        text.set_axis_off()
        text.grid(visible=False)
        text.set_xlim(0, MARGIN + COLUMNS_OF_TEXT)
        text.set_ylim(height / LINE, 0)
        _draw_blocks(text, laid, [_title(data, int(index)) for index in indices])


def _blocks(recipe: Recipe, data: Data, count: int) -> tuple[np.ndarray, list[list[Shown]]]:
    """Which examples, and what is shown of each: as stored, and as the first epochs make of it."""
    task = build_task(recipe, data.info, data.train.targets)
    sequences = task.sequences(data.train, training=True)
    random = np.random.default_rng(recipe.training.seed)
    indices = random.permutation(len(sequences))[: max(1, min(count, len(sequences)))].astype("int32")
    stored = sequences.read(tf.constant(indices))
    views = [("", stored)]
    documents = cast("TextExamples", data.train)
    changes = [build_text_augment(recipe.dataset.augmentation, documents, task), task.corrupt()]
    present = [change for change in changes if change is not None]
    if present:
        views[0] = ("as stored", stored)
        views += [
            (f"epoch {epoch + 1}", _changed(present, stored, indices, recipe, epoch)) for epoch in range(2)
        ]
    return indices, [
        [shown for label, tokens in views for shown in _shown(label, tokens, row)]
        for row in range(len(indices))
    ]


def _changed(changes: Sequence[Augment], stored: Any, indices: np.ndarray, recipe: Recipe, epoch: int) -> Any:
    place = tf.constant(epoch, tf.int64)
    position = Position.of(recipe.training.seed, place, place, tf.constant(indices))
    tokens, targets = stored, tf.zeros([len(indices)])
    for change in changes:
        tokens, targets = change(tokens, targets, position)
    return tokens


def _shown(label: str, tokens: Any, row: int) -> list[Shown]:
    named = tokens if isinstance(tokens, dict) else {"": tokens}
    found = []
    for name, ids in named.items():
        numbers = np.asarray(ids[row])
        last = np.flatnonzero(numbers != PAD)
        whole = numbers[: last[-1] + 1] if len(last) else numbers[:0]
        found.append(Shown(" ".join(part for part in (label, name) if part), whole))
    return found


def _title(data: Data, index: int) -> str:
    """The class of an example, where the network's examples are the documents."""
    target = data.train.targets
    if data.info.target == "classes":
        return data.info.class_names[int(target[index])]
    if data.info.target == "labels":
        names = [name for name, given in zip(data.info.class_names, target[index], strict=True) if given]
        return ", ".join(names) or "no label"
    return f"example {index}"


def _lines(shown: Shown, tokenizer: Tokenizer) -> list[list[Token]]:
    """Tokens laid out in lines."""
    lines: list[list[Token]] = [[]]
    column = 0
    for number in shown.ids.tolist():
        text = _written(abs(number), tokenizer)
        width = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
        if column + width > COLUMNS_OF_TEXT and lines[-1]:
            if len(lines) == LINES:
                lines[-1].append(Token(column, "…", PAD))
                break
            lines.append([])
            column = 0
        lines[-1].append(Token(column, text, number))
        column += width + 1
    return lines


def _written(number: int, tokenizer: Tokenizer) -> str:
    """A token as a reader knows it; the pieces of a character and special tokens as in the vocabulary."""
    text = "" if number < len(SPECIAL_TOKENS) else tokenizer.decode([number])
    if not text or "\ufffd" in text:
        text = tokenizer.token(number)
    visible = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}
    text = "".join(visible.get(letter, letter) for letter in text)
    return text if len(text) <= LONGEST_TOKEN else text[: LONGEST_TOKEN - 1] + "…"


def _draw_blocks(axes: Axes, blocks: list[list[Laid]], titles: list[str]) -> None:
    line = 1.0
    legend = [(RED, "<unk>"), (GREY, "special tokens")]
    laid = [line for block in blocks for _, lines in block for line in lines]
    if any(token.number < 0 for each in laid for token in each):
        legend.append((ORANGE, "chosen by the task, to be predicted"))
    axes.text(0, line, "texts as the network reads them", fontweight="bold", va="baseline")
    for place, (color, name) in enumerate(legend):
        axes.text(40 + 22 * place, line, name, color=color, va="baseline")
    for title, block in zip(titles, blocks, strict=True):
        line += 1.6
        axes.text(0, line, shorten(title, 60), color=BLUE, fontweight="bold", fontsize=8, va="baseline")
        for label, lines in block:
            for number, tokens in enumerate(lines):
                line += 1
                if number == 0:
                    axes.text(0, line, label, color=GREEN, fontsize=7, va="baseline")
                for token in tokens:
                    axes.text(
                        MARGIN + token.column, line, token.text, color=_color(token.number), family=_FAMILIES,
                        fontsize=8, va="baseline",
                    )  # fmt: skip


def _color(number: int) -> str:
    if number < 0:
        return ORANGE
    if number == UNKNOWN:
        return RED
    return GREY if number < len(SPECIAL_TOKENS) else "black"


def _draw_lengths(axes: Axes, recipe: Recipe, data: Data) -> None:
    info = data.info
    columns = {
        name: encode_texts(texts, cast("Tokenizer", info.tokenizer)).lengths
        for name, texts in cast("TextExamples", data.train).columns.items()
        if name in COLUMNS
    }
    everything = np.concatenate(list(columns.values()))
    longest = max(float(np.percentile(everything, 99.5)), 1.1 * info.max_length)
    step = max(1, round(longest / 60))  # bins of as many lengths each, or some would stand out
    bins = np.arange(0, longest + step, step) - 0.5
    for (name, lengths), color in zip(columns.items(), (BLUE, ORANGE), strict=False):
        label = name if len(columns) > 1 else None
        axes.hist(np.minimum(lengths, bins[-1]), bins=bins.tolist(), color=color, alpha=0.7, label=label)
    cut = (everything > info.max_length).mean()
    what = f", {cut:.1%} cut" if recipe.task.name in CUT_BY else ""
    axes.axvline(info.max_length, color=RED, label=f"max_length {info.max_length}{what}")
    axes.set_title(f"{len(everything):,} train texts: median {np.median(everything):,.0f} tokens")
    axes.set_xlabel("tokens; what is longer counts in the last bar")
    axes.set_ylabel("texts")
    axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")


def _draw_classes(axes: Axes, data: Data) -> None:
    targets, names = data.train.targets, data.info.class_names
    counts = (
        targets.sum(axis=0) if data.info.target == "labels" else np.bincount(targets, minlength=len(names))
    )
    axes.barh(np.arange(len(names)), counts, color=BLUE)
    label_classes(axes.yaxis, names, TOP - 0.8)
    axes.invert_yaxis()
    axes.set_title(f"{len(names)} classes in the train split")
    axes.set_xlabel("texts")
