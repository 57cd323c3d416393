"""Question answering: which part of a text answers a question about it?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from dlcli.console import note
from dlcli.data.examples import DataInfo
from dlcli.data.text.sequences import TokenSequences
from dlcli.data.text.texts import Texts
from dlcli.data.text.tokenizer import END, START, Tokenizer
from dlcli.data.text.vocabulary import TokenTexts
from dlcli.errors import DataError, DlcliError
from dlcli.layers.answer_logits import AnswerLogits, answer_logits_of
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.arguments import PositiveInt
from dlcli.tasks.task import Build, Task

if TYPE_CHECKING:
    from dlcli.evaluation.example_scores import ExampleScores

SPECIAL_IN_A_WINDOW = 3
"""`<start>` before the question, `<end>` after it and after the context."""


class QuestionAnswering(Task):
    """Which part of a text answers a question? Extractive, as in SQuAD (Devlin et al. 2018, sections 4.2 and 4.3).

    The network reads `<start> question <end> context <end>`, and learns at which token the answer starts and at
    which it ends. A context that is too long is read in overlapping windows; in a window without the answer both are
    the first position. Where the train split has questions without an answer, the model may give none.

    Args:
        max_question_length: tokens of a question; what is longer is cut.
        stride: tokens from the start of one window of a long context to the start of the next; BERT's doc_stride.
        max_answer_length: tokens of the longest answer that the model gives.
    """

    name: ClassVar[str] = "question_answering"
    head: ClassVar[tuple[str, ...]] = ("logits", "answers", "predictions")

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        max_question_length: PositiveInt = 64,
        stride: PositiveInt = 128,
        max_answer_length: PositiveInt = 30,
    ) -> None:
        super().__init__(info)
        self.windowing = Windowing(max_question_length, stride)
        self.max_answer_length = max_answer_length
        self.no_answer = bool(np.any(np.asarray(train_targets).reshape(-1, 2)[:, 0] < 0))

    def sequences(self, examples: Any, *, training: bool = False) -> TokenSequences:
        """The windows of all questions; targets int32 (W, 2), the first and the last token of the answer."""
        windows = self._windows(examples)
        found = np.unique(windows.owners[windows.sequences.targets[:, 0] > 0])
        if training and (lost := int((examples.targets[:, 0] >= 0).sum()) - len(found)):
            note(
                f"{lost:,} of {len(examples):,} answers are learnt as missing: no window holds the whole of them "
                "(a larger dataset.max_length or a smaller task.stride may help)"
            )
        return windows.sequences

    def connect(self, build: Build, inputs: Any) -> Any:
        """Logits (B, T, 2) of the start and the end of the answer."""
        features = build(inputs)
        if isinstance(features, dict) or len(features.shape) != 3:
            raise DlcliError(
                "task question_answering needs a vector for each token, and this architecture gives one for the whole "
                "text: rnn does it with `pooling: none`; or use transformer or bert"
            )
        logits = keras.layers.Dense(2, dtype="float32", name="logits")(features)  # (B, T, 2)
        return AnswerLogits(END, self.no_answer, name="answers")([logits, inputs])

    def predictions(self, logits: Any) -> Any:
        """Probabilities (B, T, 2) that the answer starts, and that it ends, at each token; both sum to 1 over T."""
        return keras.layers.Softmax(axis=1, name="predictions")(logits)

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """The mean of the cross-entropies of start and end."""
        if label_smoothing > 0:
            raise DataError(
                "regularization.label_smoothing does not work with task question_answering: leave it out"
            )
        return SpanLoss()

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Accuracy: the share of windows whose start and end are both right."""
        return [SpanAccuracy(name="accuracy")]

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Exact match and F1, as SQuAD's own script counts them."""
        from dlcli.evaluation.answers import answers_report

        return answers_report(*self._answers(predictor, examples), split)

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """Of each question."""
        from dlcli.evaluation.answers import answer_scores

        return answer_scores(*self._answers(predictor, examples))

    def _answers(self, predictor: keras.Model, examples: Any) -> tuple[list[str], list[list[str]]]:
        """The model's answer to each question, and the right ones."""
        answers = _best_answers(
            predictor, self._windows(examples), examples.columns["context"], self.max_answer_length
        )
        right = [json.loads(text) for chunk in examples.columns["answers"].chunks() for text in chunk]
        return [text for text, _ in answers], right

    def _windows(self, examples: Any) -> QuestionWindows:
        columns = examples.columns
        return question_windows(
            self.info.tokenizer,
            self.info.max_length,
            columns["question"],
            columns["context"],
            examples.targets,
            self.windowing,
        )


class SpanLoss(keras.losses.Loss):
    """The mean of the cross-entropies of start and end over the positions of a sequence."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Positions (B, 2) and logits (B, T, 2) -> loss of each sequence (B,)."""
        logits = keras.ops.transpose(y_pred, (0, 2, 1))  # (B, 2, T)
        losses = keras.losses.sparse_categorical_crossentropy(
            keras.ops.cast(y_true, "int32"), logits, from_logits=True
        )
        return keras.ops.mean(losses, axis=-1)


class SpanAccuracy(keras.metrics.Mean):
    """The share of sequences whose start and end are both the most probable positions."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds positions (B, 2) and logits (B, T, 2)."""
        found = keras.ops.equal(keras.ops.argmax(y_pred, axis=1), keras.ops.cast(y_true, "int32"))  # (B, 2)
        return super().update_state(keras.ops.all(found, axis=-1), sample_weight)


def predict_answers(
    model: keras.Model, task_arguments: Mapping[str, Any], questions: Sequence[str], contexts: Sequence[str]
) -> list[tuple[str, float]]:
    """The answer to each question and how probable it is: the start's probability times the end's, in its window.

    Args:
        model: the saved model of a run.
        task_arguments: of the run's recipe.
        questions: N of them.
        contexts: the text of each question.

    Returns:
        N answers, each a part of its context; empty where the model sees none.
    """
    tokens = tokens_of(model)
    if tokens is None or len(questions) != len(contexts):
        raise ValueError(
            "Expected a model of texts, and as many contexts as questions. "
            f"Received: {model.name}, {len(contexts)} contexts, {len(questions)} questions"
        )
    if not questions:
        return []
    places = {text: index for index, text in enumerate(dict.fromkeys(contexts))}
    texts = Texts.of(places).subset(np.array([places[text] for text in contexts]))
    windowing = Windowing(task_arguments["max_question_length"], task_arguments["stride"])
    nowhere = np.full((len(questions), 2), -1, np.int32)
    asked = Texts.of(questions)
    windows = question_windows(tokens.tokenizer, tokens.max_length, asked, texts, nowhere, windowing)
    return _best_answers(model, windows, texts, task_arguments["max_answer_length"])


@dataclass(frozen=True)
class Windowing:
    """How questions and contexts are cut, in tokens; see QuestionAnswering."""

    max_question_length: int
    stride: int


@dataclass(frozen=True)
class QuestionWindows:
    """W windows of N questions, and the way back to the characters of a context."""

    sequences: TokenSequences
    owners: np.ndarray
    """int64 (W,): which question each window belongs to; windows of a question stand together."""
    shifts: np.ndarray
    """int64 (W,): a position in the window plus this is a token of the context."""
    offsets: list[np.ndarray]
    """The characters that each token of a context covers, int32 (T, 2), once for each different context."""
    places: np.ndarray
    """int64 (N,): which of `offsets` belongs to each question."""


def question_windows(
    tokenizer: Tokenizer | None,
    max_length: int,
    questions: Texts,
    contexts: Texts,
    spans: np.ndarray,
    windowing: Windowing,
) -> QuestionWindows:
    """Questions and contexts as the network reads them.

    Args:
        tokenizer: of the run.
        max_length: tokens of a window.
        questions: N of them.
        contexts: N, of which many may be the same.
        spans: (N, 2) first and one past the last character of each answer; -1 for none.
        windowing: how they are cut.

    Raises:
        DataError: nothing of a context fits beside a question.
    """
    if tokenizer is None:
        raise ValueError("Expected a tokenizer. Received: None")
    needed = windowing.max_question_length + SPECIAL_IN_A_WINDOW + 1
    if max_length < needed:
        raise DataError(
            f"dataset.max_length {max_length} leaves no room for a text beside a question of "
            f"{windowing.max_question_length} tokens: raise it to {needed} at least (384 is BERT's), or lower "
            "task.max_question_length"
        )
    asked = [ids for chunk in questions.chunks() for ids in tokenizer.encode(chunk)]
    # A context that several questions share is tokenized once.
    ends = np.stack([contexts.starts, contexts.ends], axis=1)
    _, first, places = np.unique(ends, axis=0, return_index=True, return_inverse=True)
    encoded = [
        each for chunk in contexts.subset(first).chunks() for each in tokenizer.encode_with_offsets(chunk)
    ]
    places = places.reshape(-1)
    rows, targets, owners, shifts = [], [], [], []
    begin, end = np.array([START], np.int32), np.array([END], np.int32)
    for index, whole_question in enumerate(asked):
        question = whole_question[: windowing.max_question_length]
        ids, offsets = encoded[places[index]]
        answer = _answer_tokens(offsets, spans[index])
        before = len(question) + 2  # tokens before the context's
        room = max_length - before - 1
        for start in _window_starts(len(ids), room, windowing.stride):
            piece = ids[start : start + room]
            rows.append(np.concatenate([begin, question, end, piece, end]))
            inside = start <= answer[0] and answer[1] < start + len(piece)
            targets.append([place - start + before if inside else 0 for place in answer])
            owners.append(index)
            shifts.append(start - before)
    sequences = TokenSequences(TokenTexts.of(rows), max_length, np.array(targets, np.int32))
    return QuestionWindows(
        sequences, np.array(owners), np.array(shifts), [offsets for _, offsets in encoded], places
    )


def _answer_tokens(offsets: np.ndarray, span: np.ndarray) -> tuple[int, int]:
    """The first and the last token that cover a character of the answer; (-1, -1) when none does."""
    covering = np.flatnonzero((offsets[:, 1] > span[0]) & (offsets[:, 0] < span[1]))
    return (int(covering[0]), int(covering[-1])) if len(covering) else (-1, -1)


def _window_starts(length: int, room: int, stride: int) -> list[int]:
    """Where the windows of a context of `length` tokens begin, so that each of its tokens is in one."""
    step = min(stride, room)
    count = 1 + max(0, -(-(length - room) // step))
    return [step * number for number in range(count)]


def _best_answers(
    model: keras.Model, windows: QuestionWindows, contexts: Texts, max_answer_length: int
) -> list[tuple[str, float]]:
    """The best answer of all windows of each question, and its score."""
    from dlcli.evaluation.answers import best_span_of_each, find_spans

    known = answer_logits_of(model)
    found = find_spans(model, windows.sequences, max_answer_length)
    answers = []
    for index, (window, start, end, score) in enumerate(
        best_span_of_each(found, windows.owners, len(contexts), bool(known and known.no_answer))
    ):
        if start == 0:
            answers.append(("", score))
            continue
        offsets, shift = windows.offsets[windows.places[index]], windows.shifts[window]
        text = contexts[index][offsets[start + shift][0] : offsets[end + shift][1]]
        answers.append((text.strip(), score))
    return answers
