"""Masked language modeling: which tokens were hidden?"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import keras
import numpy as np

from dlcli.data.augmentation import Augment
from dlcli.data.examples import DataInfo
from dlcli.data.text.masking import FIRST_WORD, build_masking
from dlcli.data.text.sequences import TokenSequences
from dlcli.data.text.tokenizer import START
from dlcli.data.text.vocabulary import TokenTexts
from dlcli.errors import DataError
from dlcli.layers.output_projection import (
    LOGITS,
    PROJECTION,
    ChosenTokens,
    Project,
    output_projection,
    projection_of,
    token_embedding,
)
from dlcli.recipe.arguments import Field
from dlcli.tasks.language_modeling import TokenAccuracy, TokenCrossentropy, check_sequence, joined_ids
from dlcli.tasks.task import Build, Task

if TYPE_CHECKING:
    from dlcli.evaluation.example_scores import ExampleScores

MaskRate = Annotated[float, Field(gt=0, lt=1)]

_FIRST, _LAST = "masked_language_dense", "masked_language_norm"


class MaskedLanguageModeling(Task):
    """Which tokens were hidden? Devlin et al. 2019, "BERT", section 3.1, without its next-sentence prediction.

    Of the chosen tokens 80 % become `<mask>`, 10 % another token and 10 % stay. Documents are packed one after
    another into sequences of `max_length` tokens, each behind a `<start>` (Liu et al. 2019, "RoBERTa", section 4.2,
    full sentences).

    Args:
        masking: whether single tokens are chosen, or all the pieces of a word together (whole-word masking).
        mask_rate: share of the tokens that are chosen.
        dynamic: another choice in each epoch, as RoBERTa; false keeps the first one, as BERT.
        tie_embeddings: whether the output matrix is the token embedding's, where the architecture offers it.
    """

    name: ClassVar[str] = "masked_language_modeling"
    per_token = True
    monitor = "loss"
    head: ClassVar[tuple[str, ...]] = (_FIRST, _LAST, PROJECTION, LOGITS)

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        masking: Literal["token", "whole_word"] = "token",
        mask_rate: MaskRate = 0.15,
        dynamic: bool = True,
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__(info)
        self.masking = masking
        self.mask_rate = mask_rate
        self.dynamic = dynamic
        self.tie_embeddings = tie_embeddings
        check_maskable(info, self.name)

    def sequences(self, examples: Any, *, training: bool = False) -> TokenSequences:
        """Packed windows, `<start>` before each; the last one may be shorter."""
        return packed_windows(examples, self.info)

    def corrupt(self) -> Augment:
        """Masking, in training and in validation."""
        return build_masking(
            self.mask_rate, self.info.vocabulary_size, begins_words=self._begins_words, dynamic=self.dynamic
        )

    def connect(self, build: Build, inputs: Any) -> keras.KerasTensor:
        """Logits (M, V) of the M tokens that are chosen; `predictions` gives those of all tokens."""
        features = build(inputs)
        check_sequence(features, self.name, "bert or transformer")
        hidden, project = masked_language_head(features, self.info.vocabulary_size, self.tie_embeddings)
        self._everywhere = project(hidden)
        marked = keras.utils.get_source_inputs(inputs)[0]  # ids, negative where a token is chosen
        encoder = keras.Model(marked, hidden, name="encoder")
        return project(ChosenTokens(name="chosen_tokens")(encoder(keras.ops.abs(marked)), marked))

    def predictions(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Logits (B, T, V) of every token, for ids with `<mask>` where something is to be filled in."""
        return self._everywhere

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """Nats per chosen token."""
        return TokenCrossentropy(label_smoothing)

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Accuracy on chosen tokens."""
        return [TokenAccuracy()]

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Loss, accuracy and perplexity on the chosen tokens; the choice is the same in every evaluation."""
        from dlcli.evaluation.language import evaluate_masked_model

        model = _of_chosen_tokens(predictor)
        return evaluate_masked_model(model, self.sequences(examples), self.corrupt(), split, plots)

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """Of each window."""
        from dlcli.evaluation.example_scores import ExampleScores, digest_of
        from dlcli.evaluation.language import score_masked, token_metrics

        scores = score_masked(_of_chosen_tokens(predictor), self.sequences(examples), self.corrupt())
        masks = (self.masking, self.mask_rate, self.info.max_length)
        answers = digest_of(self.tokenizer.json, masks, scores.counts)
        return ExampleScores(scores.sums, token_metrics, answers, units="windows")

    @cached_property
    def _begins_words(self) -> np.ndarray | None:
        if self.masking == "token" or self.info.tokenizer is None:
            return None
        return self.info.tokenizer.begins_words()


def _of_chosen_tokens(predictor: keras.Model) -> keras.Model:
    """Marked ids (B, T) -> logits (M, V) of the M negative ones."""
    marked = keras.Input((None,), dtype="int32", name="tokens")
    encoder = keras.Model(predictor.input, predictor.get_layer(_LAST).output)
    chosen = ChosenTokens()(encoder(keras.ops.abs(marked)), marked)
    return keras.Model(marked, projection_of(predictor)(chosen))


def masked_language_head(
    features: keras.KerasTensor, vocabulary_size: int, tie_embeddings: bool
) -> tuple[keras.KerasTensor, Project]:
    """BERT's head: a hidden layer and a normalization, then the embedding backwards and a bias.

    Args:
        features: (B, T, D).
        vocabulary_size: V.
        tie_embeddings: the hidden layer has the embedding's width, so that any width can be tied.

    Returns:
        The hidden features (B, T, E), and the layers behind them.
    """
    embedding = token_embedding(features) if tie_embeddings else None
    width = features.shape[-1] if embedding is None else embedding.output_dim
    hidden = keras.layers.Dense(width, activation="gelu", name=_FIRST)(features)
    hidden = keras.layers.LayerNormalization(epsilon=1e-12, name=_LAST)(hidden)
    return hidden, output_projection(embedding, vocabulary_size, use_bias=True)


def packed_windows(examples: Any, info: DataInfo) -> TokenSequences:
    """All documents one after another, `<end>` behind each, cut into sequences of `max_length` with `<start>` first."""
    ids = joined_ids(examples, info)
    starts = np.arange(0, len(ids), info.max_length - 1, dtype=np.int64)
    lengths = np.minimum(len(ids) - starts, info.max_length - 1)
    texts = TokenTexts(ids, starts, lengths)
    return TokenSequences(texts, info.max_length, np.zeros(len(starts), np.int32), prefix=(START,))


def check_maskable(info: DataInfo, task: str) -> None:
    """Refuses a vocabulary of special tokens alone.

    Raises:
        DataError: there is nothing to choose.
    """
    if 0 < info.vocabulary_size <= FIRST_WORD:
        raise DataError(f"task {task}: the vocabulary holds special tokens only; the train split has no text")
