"""Texts -> predictions, in a stream: memory does not grow with the number of texts.

What each task gives, as JSON (`dlcli predict --json`, or a file):

text_classification       {"input", "class", "probability", "top", "probabilities"}; labels as for images
translation               {"input", "text"}
token_classification      {"input", "text": "John/B-PER sleeps/O", "tags": [["John", "B-PER"], ...]}
question_answering        {"input", "text", "score"}; the text is empty where the model sees no answer
masked_language_modeling  {"input", "text", "filled": the text with the best tokens in the place of each `<mask>`,
                           "masks": [[{"token", "probability"}, ...], ...]}
replaced_token_detection  {"input", "text", "tokens": [{"token", "probability"}, ...]}

What cannot be read is {"input", "error"} for all of them.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from dlcli.console import note, warn
from dlcli.data.examples import DataInfo
from dlcli.data.text.sequences import padded
from dlcli.data.text.tokenizer import UNKNOWN, Tokenizer
from dlcli.errors import DlcliError
from dlcli.evaluation.evaluate import TEXT_BATCH_SIZE
from dlcli.evaluation.predict import Head, Prediction, prediction
from dlcli.evaluation.text_inputs import TextInput, find_texts, form_of, with_context
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.schema import Recipe

PREDICTORS = {
    "text_classification": "dlcli.evaluation.predict_text:predict_classes",
    "translation": "dlcli.evaluation.predict_text:predict_translations",
    "token_classification": "dlcli.evaluation.predict_text:predict_tags",
    "question_answering": "dlcli.evaluation.predict_text:predict_answers",
    "masked_language_modeling": "dlcli.evaluation.fill_mask:fill_masks",
    "replaced_token_detection": "dlcli.evaluation.fill_mask:find_replaced",
}
"""Task -> `predict(reader, texts) -> a Prediction for each of the texts`."""

WINDOW = 32 * TEXT_BATCH_SIZE
"""Texts that are sorted by length together."""

WINDOW_CHARACTERS = 16 * 2**20
"""Fewer of them, when they are longer than this together."""


@dataclass
class Reader:
    """A saved model of texts, and what it noticed while it read."""

    model: keras.Model
    tokenizer: Tokenizer
    max_length: int
    task: str
    arguments: Mapping[str, Any]
    """Of the task, as in the run's recipe."""
    head: Head
    num_texts: int = 0
    num_cut: int = 0
    num_tokens: int = 0
    num_unknown: int = 0
    ends: tuple[tuple[int, ...], tuple[int, ...]] = field(default=((), ()))
    """Special tokens before and after each text."""

    @classmethod
    def of(cls, model: keras.Model, task: str, arguments: Mapping[str, Any], top: int) -> Reader:
        """Of a model that holds its vocabulary."""
        tokens = tokens_of(model)
        if tokens is None:
            raise ValueError(f"Expected a model of texts. Received: {model.name}")
        heads = {"text_classification": lambda: Head.of(model, top)}
        scores = ("score",) if task == "question_answering" else ()
        head = heads.get(task, lambda: Head("text", scores, top))()
        return cls(model, tokens.tokenizer, tokens.max_length, task, arguments, head)

    @property
    def room(self) -> int:
        """Tokens of a text that the model reads."""
        return self.max_length - sum(map(len, self.ends))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32 (T,), and counts what is cut and what is unknown."""
        rows = self.tokenizer.encode(texts)
        self.num_texts += len(rows)
        self.num_cut += sum(len(row) > self.room for row in rows)
        self.num_tokens += sum(map(len, rows))
        self.num_unknown += sum(int((row == UNKNOWN).sum()) for row in rows)
        return rows

    def outputs(self, rows: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """What the model gives for each row of ids, with the row's number: batches of like length, longest first."""
        # What is cut counts as cut, so that the batches are those of `evaluate`.
        order = np.argsort([-min(len(row), self.room) for row in rows], kind="stable")
        for start in range(0, len(order), TEXT_BATCH_SIZE):
            batch = order[start : start + TEXT_BATCH_SIZE].tolist()
            ids = padded([rows[index] for index in batch], self.max_length, *self.ends)
            yield from zip(batch, np.asarray(self.model.predict_on_batch(ids)), strict=True)

    def report(self) -> None:
        """Says what was cut and what is unknown, once everything is read."""
        if self.num_cut:
            note(
                f"{self.num_cut} of {self.num_texts} texts are longer than the {self.max_length} tokens that the model "
                "reads; the rest of them was left out"
            )
        if 2 * self.num_unknown > self.num_tokens:
            share = 100 * self.num_unknown / self.num_tokens
            warn(
                f"{share:.0f} % of the tokens are unknown to the model: is this the language that it learnt?"
            )


def predict_texts(
    model: keras.Model, recipe: Recipe, inputs: Sequence[str], *, top: int = 5, context: str | None = None
) -> Iterator[Prediction]:
    """Predictions for what a user names: texts, files, folders, tables, or `-` for the lines of stdin.

    Args:
        model: a run's saved model.
        recipe: the run's.
        inputs: as `dlcli.evaluation.text_inputs.find_texts` takes them.
        top: how many classes to list.
        context: for question answering, the text that answers the questions given as inputs, or its file.

    Yields:
        One Prediction for each text, in order; those that cannot be read carry an error.

    Raises:
        DlcliError: the task gives nothing that could be predicted.
    """
    task = recipe.task.name
    if task not in PREDICTORS:
        raise DlcliError(
            f"a model of task {task} has nothing to predict; it writes: dlcli generate RUN --prompt 'Once upon a time'"
        )
    if context is not None and task != "question_answering":
        raise DlcliError(
            f"--context is for question_answering, and this is a model of task {task}; leave it out"
        )
    reader = Reader.of(model, task, recipe.task.arguments, top)
    predict: Predict = pkgutil.resolve_name(PREDICTORS[task])
    dataset = recipe.dataset
    found = (
        find_texts(inputs, form_of(task, dataset.name, dataset.arguments))
        if context is None
        else with_context(inputs, context)
    )
    yield from predict_found(reader, found, predict)


Predict = Callable[[Reader, Sequence[TextInput]], Iterable[Prediction]]


def predict_found(reader: Reader, found: Iterable[TextInput], predict: Predict) -> Iterator[Prediction]:
    """One Prediction for each text, in order, window by window; at last the reader says what it noticed."""
    for window in _windows(found):
        predicted = iter(predict(reader, [each for each in window if each.error is None]))
        for each in window:
            yield (
                next(predicted)
                if each.error is None
                else Prediction(each.name, reader.head, error=each.error)
            )
    reader.report()


def _windows(texts: Iterable[TextInput]) -> Iterator[list[TextInput]]:
    window: list[TextInput] = []
    held = 0
    for each in texts:
        window.append(each)
        held += sum(map(len, each.texts.values()))
        if len(window) == WINDOW or held > WINDOW_CHARACTERS:
            yield window
            window, held = [], 0
    if window:
        yield window


def predict_classes(reader: Reader, texts: Sequence[TextInput]) -> list[Prediction]:
    """Classes or labels, with the outputs that `evaluate` scores."""
    from dlcli.tasks.text_classification import TextClassification

    info = DataInfo("text", (), reader.head.target, reader.head.names, tokenizer=reader.tokenizer)
    reader.ends = TextClassification(info, np.zeros(0, np.int32), **reader.arguments).ends
    rows = reader.encode([each.texts["text"] for each in texts])
    outputs = dict(reader.outputs(rows))
    return [prediction(each.name, outputs[index], reader.head) for index, each in enumerate(texts)]


def predict_translations(reader: Reader, texts: Sequence[TextInput]) -> list[Prediction]:
    """The translation of each text."""
    from dlcli.evaluation.translation import predict_translations as translate

    sources = [each.texts["text"] for each in texts]
    reader.encode(sources)  # to count what is cut and unknown
    translated = translate(reader.model, reader.arguments, sources)
    return [
        Prediction(each.name, reader.head, text=text) for each, text in zip(texts, translated, strict=True)
    ]


def predict_tags(reader: Reader, texts: Sequence[TextInput]) -> list[Prediction]:
    """The tag of each word."""
    from dlcli.tasks.token_classification import predict_tags as tag

    sentences = [each.texts["text"] for each in texts]
    reader.encode(sentences)
    found = []
    for each, pairs in zip(texts, tag(reader.model, reader.arguments, sentences), strict=True):
        line = " ".join(f"{word}/{name}" for word, name in pairs)
        details = {"tags": [list(pair) for pair in pairs]}
        found.append(Prediction(each.name, reader.head, text=line, details=details))
    return found


def predict_answers(reader: Reader, texts: Sequence[TextInput]) -> list[Prediction]:
    """The answer to each question, and how probable it is."""
    from dlcli.tasks.question_answering import predict_answers as answer

    questions, contexts = ([each.texts[name] for each in texts] for name in ("question", "context"))
    answers = answer(reader.model, reader.arguments, questions, contexts)
    return [
        Prediction(each.name, reader.head, np.array([score], np.float32), text=text)
        for each, (text, score) in zip(texts, answers, strict=True)
    ]
