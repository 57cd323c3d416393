"""Texts -> Subjects, their tokens joined to words; and words as what can be hidden (`Players`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import keras
import numpy as np
from tokenizers import Regex, pre_tokenizers

from dlcli.console import note
from dlcli.data.text.tokenizer import UNKNOWN, Tokenizer
from dlcli.data.text.tokenizers import WORDS
from dlcli.evaluation.text_inputs import TextForm, find_texts, form_of
from dlcli.explain.attribution import Subject, Unreadable
from dlcli.explain.network import BATCH_SIZE, Network, padded_rows
from dlcli.layers.tokens import tokens_of
from dlcli.tasks.text_classification import text_ends

if TYPE_CHECKING:
    from dlcli.recipe.schema import Recipe

_SPLITTER = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)

NUMBERS_AT_ONCE = 2**26
"""Of a language model's outputs, (B, T, V) for one batch: 256 MiB."""


@dataclass(frozen=True, eq=False)
class TextReader:
    """How a model reads texts, by the rules of `dlcli predict`.

    Args:
        tokenizer: the model's.
        max_length: tokens that it reads at most, special ones included.
        ends: special tokens before and after each text.
        keep: which part of a longer text is read: a language model goes on behind the last tokens.
        form: how files are written, and what the data set does to each text.
    """

    tokenizer: Tokenizer
    max_length: int
    ends: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    keep: Literal["first", "last"] = "first"
    form: TextForm = TextForm({"text": "text"})  # noqa: RUF009  # frozen

    @classmethod
    def of(cls, model: keras.Model, recipe: Recipe | None) -> TextReader:
        """Of a saved model of texts.

        Args:
            model: holds its vocabulary; of one text to classes, or to the next token.
            recipe: the run's; None for a file, which does not say how its texts looked in training.
        """
        layer = tokens_of(model)
        if layer is None:
            raise ValueError(f"Expected a model of texts. Received: {model.name}")
        tokenizer, max_length = layer.tokenizer, layer.max_length
        language = len(model.output_shape) == 3
        if recipe is None:
            if not language:
                note(
                    f"{model.name}: the file does not say whether <start> and <end> stand around texts; none do here"
                )
            form = TextForm({"text": "text"}, clean=str if language else str.strip)
            return cls(tokenizer, max_length, keep="last" if language else "first", form=form)
        form = form_of(recipe.task.name, recipe.dataset.name, recipe.dataset.arguments)
        if language:  # white space at the end of a prompt is a part of it
            return cls(tokenizer, max_length, keep="last", form=replace(form, clean=str))
        arguments = recipe.task.arguments
        ends = text_ends(arguments.get("pooling", "mean"), bool(arguments.get("ends", False)))
        return cls(tokenizer, max_length, ends, form=form)

    def read(self, name: str, text: str) -> Subject | Unreadable:
        """One text, as the model reads it."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return Unreadable(name, "holds characters that are no Unicode text; give it as UTF-8")
        ((ids, offsets),) = self.tokenizer.encode_with_offsets([text])
        if not len(ids):
            return Unreadable(name, "the model's tokenizer finds no tokens in it")
        notes = []
        room = self.max_length - sum(map(len, self.ends))
        if len(ids) > room:
            notes.append(f"only the {self.keep} {room} of its {len(ids)} tokens are read")
            part = slice(room) if self.keep == "first" else slice(-room, None)
            ids, offsets = ids[part], offsets[part]
        words, between, word_of = split_by_tokens(text, offsets)
        before, after = self.ends
        if strange := len(np.unique(word_of[ids == UNKNOWN])):
            notes.append(f"{strange} of {len(words)} words hold what the model's vocabulary lacks")
        row = np.array([*before, *ids, *after], np.int32)
        return Subject(
            name,
            row,
            words=words,
            word_of=np.array([*[-1] * len(before), *word_of, *[-1] * len(after)], np.int32),
            tokens=tuple(self.tokenizer.token(index) for index in row.tolist()),
            original=between,
            notes=tuple(notes),
        )


def inputs_of_texts(
    model: keras.Model, recipe: Recipe | None, inputs: Iterable[str]
) -> Iterator[Subject | Unreadable]:
    """What a user names, as the model reads it, in a stream.

    Args:
        model: of texts, with its vocabulary.
        recipe: the run's; None for a file.
        inputs: texts, files, folders, tables, or `-` for the lines of stdin, as `dlcli predict` takes them.

    Yields:
        One for each text, in order; what cannot be read says why. `Subject.original` is what stands between the words.
    """
    reader = TextReader.of(model, recipe)
    for found in find_texts(inputs, reader.form):
        if found.error is not None:
            yield Unreadable(found.name, found.error)
        else:
            yield reader.read(found.name, found.texts["text"])


def split_by_tokens(text: str, offsets: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """The words of a text, such that every token belongs to one of them.

    A word is what the tokenizer `word` takes for one: letters and digits, one mark of punctuation, one character of
    scripts without spaces. Words that share a token are one. A token of spaces belongs to the word behind it; line
    ends, and spaces at the end of the text, which matter to language models, are words of their own.

    Args:
        text: the text.
        offsets: the characters that each of its tokens covers, int (T, 2), in order.

    Returns:
        The M words; the M + 1 pieces of text around and between them; and the word of each token, int32 (T,).
    """
    begin, end = int(offsets[:, 0].min()), int(offsets[:, 1].max())
    matches = [span for _, span in _SPLITTER.pre_tokenize_str(text[begin:end])]
    groups, spans = _joined(np.array(matches, int).reshape(-1, 2) + begin, offsets)
    runs = [(group, len(list(run))) for group, run in groupby(groups)]
    edges: list[tuple[int, int]] = []
    word_of: list[int] = []
    waiting = place = 0  # spaces before the next word; tokens seen
    for number, (group, length) in enumerate(runs):
        span = spans[group] if group >= 0 else (int(offsets[place, 0]), int(offsets[place + length - 1, 1]))
        place += length
        blank = text[slice(*span)]
        if group < 0 and "\n" not in blank and number + 1 < len(runs):
            waiting = length
            continue
        if group >= 0 or blank or not edges:
            edges.append(span)
        word_of += [len(edges) - 1] * (waiting + length)
        waiting = 0
    stops = [begin, *(stop for _, stop in edges)]
    starts = [*(start for start, _ in edges), end]
    between = tuple(text[stop:start] for stop, start in zip(stops, starts, strict=True))
    return tuple(text[slice(*edge)] for edge in edges), between, np.array(word_of, np.int32)


def _joined(spans: np.ndarray, offsets: np.ndarray) -> tuple[list[int], list[tuple[int, int]]]:
    """Spans of the text (S, 2) that share a token become one: the joined span of each token, or -1, and the spans."""
    owner = np.full(max(int(spans.max(initial=0)), int(offsets.max())), -1)
    for index, (start, stop) in enumerate(spans):
        owner[start:stop] = index
    touched = [(part := owner[start:stop])[part >= 0] for start, stop in offsets]
    continues = np.zeros(len(spans), bool)
    for found in touched:
        if len(found):
            continues[found[0] + 1 : found[-1] + 1] = True
    group = np.cumsum(~continues) - 1
    first = np.flatnonzero(~continues)
    last = np.append(first[1:], len(spans)) - 1
    return (
        [int(group[found[0]]) if len(found) else -1 for found in touched],
        [(int(spans[one, 0]), int(spans[other, 1])) for one, other in zip(first, last, strict=True)]
        if len(spans)
        else [],
    )


def sums_of_words(subject: Subject, values: np.ndarray) -> np.ndarray:
    """Values of the tokens (T,) -> float64 (M,): the sum over the tokens of each word."""
    word_of = words_of(subject)
    real = word_of >= 0
    return np.bincount(word_of[real], np.asarray(values, np.float64)[real], len(subject.words))


def words_of(subject: Subject) -> np.ndarray:
    """The word of each token, int (T,)."""
    if subject.word_of is None:
        raise ValueError(f"Expected a text. Received: {subject.name}")
    return np.asarray(subject.word_of)


class Words:
    """The M words of a text, as players. Hidden ones are removed, and what is left moves together.

    Special tokens always stay. A text of which nothing is left is padding alone, of which models of classes say next to
    nothing, while some take one `<unk>` for a class with certainty; a language model has to read something, and gets
    that `<unk>`.

    Args:
        network: the model.
        subject: a text.
        output: the index of what is explained.
    """

    def __init__(self, network: Network, subject: Subject, output: int = 0) -> None:
        self.count = len(subject.words)
        self._network, self._output = network, output
        self._ids, self._word_of = np.asarray(subject.inputs), words_of(subject)

    def value(self, present: np.ndarray) -> np.ndarray:
        """The explained output, float64 (N,), of the words of each row of `present`, bool (N, M)."""
        return self._read(present, slice(self._output, self._output + 1))[:, 0]

    def outputs(self, present: np.ndarray) -> np.ndarray:
        """All outputs, float64 (N, K)."""
        return self._read(present, slice(None))

    def _read(self, present: np.ndarray, which_outputs: slice) -> np.ndarray:
        # Of a short text few rows differ; and texts of like length together cost less.
        different, which = np.unique(present, axis=0, return_inverse=True)
        special = np.ones((len(different), 1), bool)  # word -1 is the last column
        kept = np.concatenate([different, special], axis=1)[:, self._word_of]
        nothing = np.array([UNKNOWN] if self._network.language else [], np.int32)
        rows = [self._ids[keep] if keep.any() else nothing for keep in kept]
        order = np.argsort([-len(row) for row in rows], kind="stable")
        values: list[np.ndarray] = [np.zeros(0)] * len(rows)
        start = 0
        while start < len(rows):
            chosen = order[start : start + numbers_fit(self._network, len(rows[order[start]]))].tolist()
            # Two columns at least: Keras warns of attention to one.
            batch = padded_rows([*(rows[index] for index in chosen), np.zeros(2, np.int32)])[:-1]
            for index, outputs in zip(chosen, self._network.outputs(batch)[:, which_outputs], strict=True):
                values[index] = outputs.copy()  # and not a view that keeps the others
            start += len(chosen)
        return np.stack(values)[which.reshape(-1)]

    def spread(self, each: np.ndarray) -> np.ndarray:
        """A word's number is shared equally by its tokens: float64 (M,) -> float32 (T,); special tokens get 0."""
        tokens = np.bincount(self._word_of[self._word_of >= 0], minlength=self.count)
        shares = np.append(np.asarray(each, np.float64) / np.maximum(tokens, 1), 0.0)
        return shares[self._word_of].astype(np.float32)


def numbers_fit(network: Network, length: int) -> int:
    """Texts of so many tokens in one batch: `BATCH_SIZE`, or fewer where a language model's outputs are large."""
    if not network.language:
        return BATCH_SIZE
    return min(BATCH_SIZE, max(1, NUMBERS_AT_ONCE // (max(length, 1) * network.num_outputs)))
