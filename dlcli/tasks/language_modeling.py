"""Language modeling: which token comes next?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from dlcli.data.examples import DataInfo
from dlcli.data.text.sequences import TokenWindows
from dlcli.data.text.tokenizer import END, SPECIAL_TOKENS
from dlcli.data.text.vocabulary import encode_texts
from dlcli.errors import DataError, DlcliError
from dlcli.layers.output_projection import LOGITS, PROJECTION, output_projection, token_embedding
from dlcli.recipe.arguments import PositiveInt
from dlcli.tasks.task import Build, Task

if TYPE_CHECKING:
    from dlcli.evaluation.example_scores import ExampleScores


class LanguageModeling(Task):
    """Which token comes next? Features are a sequence (B, T, D), each from the tokens up to its own.

    All documents stand one after another, `<end>` between them, and are read in windows of `max_length` tokens.

    Args:
        stride: tokens between the starts of two training windows. Default: `max_length`, which shows each token once
            an epoch; 1 makes a window of every position, for `training.steps_per_epoch` to draw from.
        tie_embeddings: whether the output matrix is the token embedding's, where the architecture has one of the
            width of its features (Press and Wolf 2017).
    """

    name: ClassVar[str] = "language_modeling"
    per_token = True
    monitor = "loss"
    head: ClassVar[tuple[str, ...]] = (PROJECTION, LOGITS)

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        stride: PositiveInt | None = None,
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__(info)
        self.stride = stride
        self.tie_embeddings = tie_embeddings

    def sequences(self, examples: Any, *, training: bool = False) -> Any:
        """`TokenWindows` of all documents; those of validation and test do not overlap."""
        length = self.info.max_length
        return TokenWindows(
            joined_ids(examples, self.info), length, (self.stride or length) if training else length
        )

    def connect(self, build: Build, inputs: Any) -> keras.KerasTensor:
        """Logits (B, T, V).

        Raises:
            DlcliError: the architecture gives one vector for a text, or looks ahead.
        """
        features = build(inputs)
        check_sequence(features, self.name, "gpt or textgen_rnn")
        embedding = token_embedding(features)
        fits = self.tie_embeddings and embedding is not None and embedding.output_dim == features.shape[-1]
        logits = output_projection(embedding if fits else None, self.info.vocabulary_size)(features)
        _check_causal(keras.Model(keras.utils.get_source_inputs(inputs)[0], logits), self.info)
        return logits

    def predictions(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """The logits (B, T, V) themselves: whoever draws text from them chooses the temperature."""
        return logits

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """Nats per token."""
        return TokenCrossentropy(label_smoothing)

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Accuracy; exp(loss) is the perplexity."""
        return [TokenAccuracy()]

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Loss, perplexity, bits per character and accuracy on all tokens but the first."""
        from dlcli.evaluation.language import count_characters, evaluate_language_model

        windows = self.sequences(examples)
        ids = joined_ids(examples, self.info)
        characters = count_characters(examples.columns["text"])
        return evaluate_language_model(predictor, windows, ids, characters, split, plots)

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """Of each window."""
        from dlcli.evaluation.example_scores import ExampleScores, digest_of
        from dlcli.evaluation.language import score_windows, token_metrics

        ids = joined_ids(examples, self.info)
        scores = score_windows(predictor, self.sequences(examples), ids)
        answers = digest_of(self.tokenizer.json, self.info.max_length, ids)
        return ExampleScores(scores.sums, token_metrics, answers, units="windows")


def joined_ids(examples: Any, info: DataInfo) -> np.ndarray:
    """The ids of all documents, one after another, each with `<end>` behind it unless it goes on in the next.

    Args:
        examples: `dlcli.data.text.texts.TextExamples`.
        info: of the data.

    Raises:
        DataError: there are not even two tokens.
    """
    if info.tokenizer is None:
        raise ValueError("Expected the info of texts. Received: no tokenizer")
    ids = encode_texts(examples.columns["text"], info.tokenizer, None if info.continuous else END).ids
    if len(ids) < 2:
        raise DataError(
            f"{len(examples)} documents hold {len(ids)} tokens, and learning to predict one takes another before it: "
            "give more text, or a larger share (dataset.validation_split)"
        )
    return ids


def check_sequence(features: keras.KerasTensor, task: str, fitting: str) -> None:
    """Refuses an architecture that gives one vector for a whole text.

    Raises:
        DlcliError: it does.
    """
    if len(features.shape) != 3:
        raise DlcliError(
            f"task {task} needs a sequence of features (B, T, D), one for each token, and this architecture gives "
            f"{tuple(features.shape)}: use architecture {fitting}"
        )


def _check_causal(model: keras.Model, info: DataInfo) -> None:
    """Tries whether a token changes what is predicted before it: then a network learns to copy, not to predict."""
    length = max(2, min(info.max_length, 16))
    random = np.random.default_rng(0)
    first = min(len(SPECIAL_TOKENS), info.vocabulary_size - 1)
    ids = random.integers(first, info.vocabulary_size, (8, length)).astype("int32")
    changed = ids.copy()
    changed[:, -1] = random.integers(first, info.vocabulary_size, 8)
    one, other = (keras.ops.convert_to_numpy(model(each, training=False))[:, :-1] for each in (ids, changed))
    if np.abs(one - other).max() > 1e-5 * np.abs(one).max():
        raise DlcliError(
            "task language_modeling: this architecture looks ahead, so it would learn to copy the next token and not "
            "to predict it: use architecture gpt or textgen_rnn (or one of its settings that reads left to right only)"
        )


@keras.saving.register_keras_serializable("dlcli")
class TokenCrossentropy(keras.losses.Loss):
    """The mean over all tokens of -log p(target), in nats; targets of 0 do not count.

    Keras's loss with `ignore_class` copies the logits once more, and cannot smooth labels without one-hot targets.

    Args:
        label_smoothing: e: a share e of the target is spread evenly over the vocabulary.
        name: as for any loss.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "token_crossentropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The scalar loss of ids (B, T) and logits (B, T, V), or (M, V) for the M targets that are not 0."""
        if sample_weight is not None:
            raise ValueError("Expected no weights: every token counts the same. Received: sample_weight")
        # Flat logits carry no mask of Keras, with which the mean would be taken twice.
        targets = targets_of(y_true, y_pred)
        loss = super().__call__(targets, keras.ops.reshape(y_pred, (-1, y_pred.shape[-1])))
        return keras.ops.sum(loss)  # Keras leaves an empty batch as it is

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """(N,): the loss of each token, weighted so that their mean is that of the tokens that count."""
        losses = keras.ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        if self.label_smoothing:
            # The mean over the vocabulary of -log p(v).
            uniform = keras.ops.logsumexp(y_pred, axis=-1) - keras.ops.mean(y_pred, axis=-1)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * uniform
        counts = keras.ops.cast(y_true != 0, losses.dtype)
        total = keras.ops.sum(keras.ops.ones_like(counts))
        return losses * counts * total / keras.ops.maximum(keras.ops.sum(counts), 1)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("dlcli")
class TokenAccuracy(keras.metrics.Mean):
    """The share of tokens whose most probable prediction is right; targets of 0 do not count.

    Args:
        name: as for any metric.
    """

    def __init__(self, name: str = "accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds ids (B, T) and logits (B, T, V), or (M, V) for the M targets that are not 0."""
        targets = targets_of(y_true, y_pred)
        predicted = keras.ops.argmax(keras.ops.reshape(y_pred, (-1, y_pred.shape[-1])), axis=-1)
        hits = keras.ops.cast(
            keras.ops.cast(targets, "int32") == keras.ops.cast(predicted, "int32"), self.dtype
        )
        return super().update_state(hits, sample_weight=keras.ops.cast(targets != 0, self.dtype))


def targets_of(targets: Any, logits: Any) -> Any:
    """Targets (B, T) as one row, beside logits of the same tokens, or of those alone whose target is not 0."""
    flat = keras.ops.reshape(targets, (-1,))
    if len(logits.shape) == 3:
        return flat
    return keras.ops.take(flat, keras.ops.nonzero(flat)[0])
