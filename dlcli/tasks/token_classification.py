"""Token classification: which tag has each word of a sentence? Named entities, parts of speech, chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.examples import DataInfo
from dlcli.data.text.sequences import TokenSequences
from dlcli.data.text.texts import Texts
from dlcli.data.text.tokenizer import END, START, UNKNOWN, Tokenizer
from dlcli.data.text.vocabulary import TokenTexts, encode_texts
from dlcli.errors import DataError, DlcliError
from dlcli.layers.predictions import Predictions
from dlcli.layers.tokens import tokens_of
from dlcli.tasks.task import Task

if TYPE_CHECKING:
    from dlcli.evaluation.example_scores import ExampleScores

IGNORED = 0
"""Target of tokens that carry no tag: padding, `<start>`, `<end>`, and the pieces of a word after its first. Tag k
is target k + 1."""

SHORTEST = 3
"""Tokens of a sequence: `<start>`, one word, `<end>`."""


class TokenClassification(Task):
    """Which tag has each word? The first piece of each word carries its tag (Devlin et al. 2018, section 5.3).

    The network reads `<start> words <end>`. A sentence that is longer than `max_length` is read in parts, one after
    another and cut between words, so that every word gets its tag.
    """

    name: ClassVar[str] = "token_classification"
    per_token = True

    def __init__(self, info: DataInfo, train_targets: np.ndarray) -> None:
        super().__init__(info)

    def sequences(self, examples: Any, *, training: bool = False) -> TaggedTokens:
        """Sentences, or parts of long ones, with a target for each token."""
        words, tokenizer = examples.columns["words"], self.tokenizer
        tags = self._tags(examples.columns["tags"])
        spelled, counts = words_of(words, tokenizer)
        return tagged_tokens(encode_texts(spelled, tokenizer), counts, tags, self.info.max_length)

    def outputs(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Logits (B, T, K), which are log-probabilities."""
        if len(features.shape) != 3:
            raise DlcliError(
                "task token_classification needs a vector for each token, and this architecture gives one for the "
                "whole text: rnn does it with `pooling: none`; or use transformer or bert"
            )
        logits = keras.layers.Dense(len(self.info.class_names), dtype="float32", name="logits")(features)
        # An operation, unlike a layer, hands no mask on: the loss has its own, and Predictions takes none.
        return keras.ops.log_softmax(logits)

    def predictions(self, logits: Any) -> Any:
        """Probabilities (B, T, K) of each token's tag; those of a word stand at its first token."""
        return Predictions("classes", self.info.class_names, name="predictions")(logits)

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """Cross-entropy, the mean over the words of a batch."""
        return TagLoss(len(self.info.class_names), label_smoothing)

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Accuracy over words."""
        return [TagAccuracy(name="accuracy")]

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Scores of words, and of whole entities where the tags mark their parts (B-PER, I-PER)."""
        from dlcli.evaluation.plots import plot_confusion_matrix, plot_per_class
        from dlcli.evaluation.tags import tags_report

        report = tags_report(*self._words(predictor, examples), self.info.class_names, split)
        plot_confusion_matrix(report, plots / f"{split}_confusion_matrix.png")
        plot_per_class(report, plots / f"{split}_per_class.png")
        return report

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """Of each sentence."""
        from dlcli.evaluation.tags import tag_scores

        return tag_scores(*self._words(predictor, examples), self.info.class_names)

    def _words(self, predictor: keras.Model, examples: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities (words, K), tags (words,), and how many words each sentence has."""
        from dlcli.evaluation.tags import word_probabilities

        probabilities = word_probabilities(predictor, self.sequences(examples))
        _, counts = words_of(examples.columns["words"], self.tokenizer)
        return probabilities, self._tags(examples.columns["tags"]), counts

    def _tags(self, tags: Texts) -> np.ndarray:
        """The class of every word, int32 (words,)."""
        indices = {name: index for index, name in enumerate(self.info.class_names)}
        names = [name for chunk in tags.chunks() for text in chunk for name in text.split(" ")]
        if unknown := sorted(set(names) - set(indices)):
            raise DataError(
                f"the model knows no tag {', '.join(unknown[:10])}; it knows {', '.join(self.info.class_names[:20])}"
            )
        return np.array([indices[name] for name in names], np.int32)


class TaggedTokens:
    """Sequences of tokens, each with a sequence of targets of the same length.

    Args:
        tokens: what the network reads.
        tags: the target of each token, IGNORED or a tag's index + 1.
    """

    def __init__(self, tokens: TokenSequences, tags: TokenSequences) -> None:
        self.tokens = tokens
        self.tags = tags
        self.targets = tokens.targets
        """Zeros (N,): the targets are sequences, which `read_targets` reads."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (N,): tokens of each sequence."""
        return self.tokens.lengths

    def subset(self, indices: np.ndarray) -> TaggedTokens:
        """The sequences at `indices`: a view."""
        return TaggedTokens(self.tokens.subset(indices), self.tags.subset(indices))

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """int32 (B, T), 0 after the end of each sequence."""
        return self.tokens.read(indices)

    def read_targets(self, indices: tf.Tensor) -> tf.Tensor:
        """int32 (B, T), of the same T."""
        return self.tags.read(indices)


class TagLoss(keras.losses.Loss):
    """Cross-entropy over the tokens that carry a tag, each of a batch's words counted alike.

    Args:
        num_tags: K.
        label_smoothing: share of the target spread over all tags.
    """

    def __init__(self, num_tags: int, label_smoothing: float) -> None:
        super().__init__(name="tag_loss")
        self.num_tags = num_tags
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Targets (B, T) and logits (B, T, K) -> the mean over words ()."""
        targets = keras.ops.cast(y_true, "int32")
        wanted = keras.ops.one_hot(targets - 1, self.num_tags)  # (B, T, K), zeros where ignored
        losses = keras.losses.categorical_crossentropy(
            wanted, y_pred, from_logits=True, label_smoothing=self.label_smoothing
        )  # (B, T)
        known = keras.ops.cast(keras.ops.not_equal(targets, IGNORED), losses.dtype)
        return keras.ops.sum(losses * known) / keras.ops.maximum(keras.ops.sum(known), 1)


class TagAccuracy(keras.metrics.Mean):
    """The share of words whose tag is the most probable one."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds targets (B, T) and logits (B, T, K)."""
        targets = keras.ops.cast(y_true, "int32")
        right = keras.ops.equal(keras.ops.argmax(y_pred, axis=-1), targets - 1)
        known = keras.ops.not_equal(targets, IGNORED)
        return super().update_state(right, keras.ops.cast(known, "float32"))


def predict_tags(
    model: keras.Model, task_arguments: Mapping[str, Any], sentences: Sequence[str]
) -> list[list[tuple[str, str]]]:
    """Every word of each sentence with its most probable tag.

    Args:
        model: the saved model of a run.
        task_arguments: of the run's recipe; this task has none that change its predictions.
        sentences: words that white space separates, as in the data; punctuation is a word of its own there.
    """
    from dlcli.evaluation.tags import word_probabilities

    tokens = tokens_of(model)
    if tokens is None:
        raise ValueError(f"Expected a model of texts. Received: {model.name}")
    words = [sentence.split() for sentence in sentences]
    spelled, counts = words_of(Texts.of(" ".join(row) for row in words), tokens.tokenizer)
    if not counts.sum():
        return [[] for _ in words]
    rows = [row for chunk in spelled.chunks() for row in tokens.tokenizer.encode(chunk)]
    sequences = tagged_tokens(TokenTexts.of(rows), counts, np.zeros(len(rows), np.int32), tokens.max_length)
    names = np.array(model.layers[-1].class_names)
    tags = np.split(names[word_probabilities(model, sequences).argmax(axis=1)], np.cumsum(counts)[:-1])
    return [list(zip(row, found.tolist(), strict=True)) for row, found in zip(words, tags, strict=True)]


def words_of(sentences: Texts, tokenizer: Tokenizer) -> tuple[Texts, np.ndarray]:
    """All words of all sentences as texts of their own, and how many each sentence has, int64 (N,).

    A tokenizer that marks the beginning of a word by the space before it (`bpe`) gets a word with that space.

    Args:
        sentences: words, separated by one space.
        tokenizer: of the run.
    """
    vocabulary = (tokenizer.token(index) for index in range(tokenizer.vocabulary_size))
    with_space = any(len(token) > 1 and token.startswith("Ġ") for token in vocabulary)
    starts, ends, counts = [], [], []
    for start, end in zip(sentences.starts, sentences.ends, strict=True):
        spaces = np.flatnonzero(sentences.data[start:end] == ord(" ")) + start
        if start < end:
            starts.append(np.concatenate([[start], spaces + (0 if with_space else 1)]))
            ends.append(np.concatenate([spaces, [end]]))
        counts.append(len(spaces) + 1 if start < end else 0)
    if not starts:
        return Texts.of([]), np.array(counts, np.int64)
    return Texts(sentences.data, np.concatenate(starts), np.concatenate(ends)), np.array(counts, np.int64)


def tagged_tokens(words: TokenTexts, counts: np.ndarray, tags: np.ndarray, max_length: int) -> TaggedTokens:
    """Sentences as the network reads them; a word without a token, such as a control character, becomes `<unk>`.

    Args:
        words: the tokens of each word, one word after another.
        counts: words of each sentence.
        tags: the class of each word.
        max_length: tokens of a sequence, `<start>` and `<end>` included.

    Raises:
        DataError: no word fits.
    """
    if max_length < SHORTEST:
        raise DataError(
            f"dataset.max_length {max_length} leaves no room for words: raise it to {SHORTEST} at least"
        )
    if not len(words) == len(tags) == counts.sum():
        raise ValueError(f"Expected a tag for each word. Received: {len(words)}, {len(tags)}, {counts.sum()}")
    lengths = np.maximum(words.lengths, 1)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    ids = np.full(int(lengths.sum()), UNKNOWN, np.int32)
    ids[np.repeat(words.lengths > 0, lengths)] = words.ids
    targets = np.full(len(ids), IGNORED, np.int32)
    targets[starts] = tags + 1
    first, last = _parts(starts, ends, counts, max_length - 2)
    places = (starts[first], ends[last] - starts[first])
    nothing = np.zeros(len(first), np.int32)
    return TaggedTokens(
        TokenSequences(TokenTexts(ids, *places), max_length, nothing, (START,), (END,)),
        TokenSequences(TokenTexts(targets, *places), max_length, nothing, (IGNORED,), (IGNORED,)),
    )


def _parts(
    starts: np.ndarray, ends: np.ndarray, counts: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last word of each sequence: whole sentences, or as many words as fit.

    Of a word that is longer than `room`, the sequence holds the beginning.
    """
    firsts, lasts = [], []
    begin = 0
    for count in counts:
        stop = begin + int(count)
        while begin < stop:
            fitting = int(np.searchsorted(ends[begin:stop], starts[begin] + room, side="right"))
            firsts.append(begin)
            begin += max(fitting, 1)
            lasts.append(begin - 1)
    return np.array(firsts), np.array(lasts)
