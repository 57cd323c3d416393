"""Translation: a text in one language becomes a text in another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import keras
import numpy as np

from dlcli.console import note
from dlcli.data.examples import DataInfo
from dlcli.data.text.sequences import TokenPairs, TokenSequences
from dlcli.data.text.tokenizer import END, START
from dlcli.data.text.vocabulary import encode_texts
from dlcli.errors import DlcliError
from dlcli.extras import require
from dlcli.layers.output_projection import LOGITS, PROJECTION, output_projection, token_embedding
from dlcli.recipe.arguments import Field
from dlcli.tasks.language_modeling import TokenAccuracy, TokenCrossentropy, check_sequence
from dlcli.tasks.task import Build, Task

if TYPE_CHECKING:
    from dlcli.evaluation.example_scores import ExampleScores

FITTING = "seq2seq_transformer or seq2seq_rnn"
"""The architectures that read a source and a target."""


class Translation(Task):
    """What does a text say in another language? Features are a sequence (B, T, D), one for each target token.

    The network reads the source and the target up to each token, as it stands in the data (teacher forcing), and
    learns which token comes next. Beam search writes the translations that are scored, and those of `dlcli predict`.

    Args:
        beam_size: translations that are carried on side by side; 1 takes the most probable token each time.
        length_penalty: alpha of Wu et al. 2016 (section 7, equation 14): the log-probability of a translation of n
            tokens is divided by ((5 + n) / 6) ** alpha; 0 favours short ones.
        tie_embeddings: whether the output matrix is the token embedding's (Press and Wolf 2017), which source and
            target share anyhow (Vaswani et al. 2017, section 3.4).
        bleu_tokenizer: what BLEU counts as words: `13a` is the usual one, for languages with spaces; `zh` takes
            Chinese characters one by one, `char` any characters; `intl` splits at all Unicode punctuation; `none`
            at spaces only.
    """

    name: ClassVar[str] = "translation"
    per_token = True
    monitor = "loss"
    head: ClassVar[tuple[str, ...]] = ("features", PROJECTION, LOGITS)
    input_names: ClassVar[tuple[str, ...]] = ("source", "target")

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        beam_size: Annotated[int, Field(ge=1, le=64)] = 4,
        length_penalty: Annotated[float, Field(ge=0, le=5)] = 0.6,
        tie_embeddings: bool = True,
        bleu_tokenizer: Literal["13a", "zh", "char", "intl", "none"] = "13a",
    ) -> None:
        super().__init__(info)
        # Said now, and not when the training is over.
        require("translation", "sacrebleu", what="task translation, which scores with BLEU,")
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.tie_embeddings = tie_embeddings
        self.bleu_tokenizer = bleu_tokenizer

    def sequences(self, examples: Any, *, training: bool = False) -> TokenPairs:  # type: ignore[override]
        """The source, the target behind `<start>`, and as what is to be predicted the target before `<end>`."""
        if self.info.tokenizer is None:
            raise ValueError("Expected data with a tokenizer. Received: none")
        source, target = (
            encode_texts(examples.columns[name], self.info.tokenizer) for name in self.input_names
        )
        length, none = self.info.max_length, np.zeros(len(examples), np.int32)
        pairs = TokenPairs(
            {
                "source": TokenSequences(source, length, none, suffix=(END,)),
                "target": TokenSequences(target, length, none, prefix=(START,)),
            },
            TokenSequences(target, length, none, suffix=(END,)),
        )
        if training:
            _say_what_is_cut(pairs, length)
        return pairs

    def connect(self, build: Build, inputs: Any) -> keras.KerasTensor:
        """Logits (B, T, V).

        Raises:
            DlcliError: the architecture does not read a source and a target.
        """
        try:
            features = build(inputs)
        except (TypeError, AttributeError) as error:  # what a builder says that gets a dict for a tensor
            raise DlcliError(
                f"task translation needs an architecture that reads two texts: {FITTING}"
            ) from error
        check_sequence(features, self.name, FITTING)
        embedding = token_embedding(features)
        if self.tie_embeddings and embedding is not None and embedding.output_dim != features.shape[-1]:
            raise DlcliError(
                f"task.tie_embeddings: the embedding is {embedding.output_dim} wide and the features are "
                f"{features.shape[-1]}; make them equal, or --set task.tie_embeddings=false"
            )
        features = keras.layers.Identity(name="features")(features)
        tied = embedding if self.tie_embeddings else None
        return output_projection(tied, self.info.vocabulary_size)(features)

    def predictions(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """The logits (B, T, V) themselves: beam search makes a text of them."""
        return logits

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """Nats per target token, `<end>` included."""
        return TokenCrossentropy(label_smoothing)

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Accuracy of each next token, given the right ones before it."""
        return [TokenAccuracy()]

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Loss and perplexity given the right tokens, and BLEU of the model's own translations."""
        from dlcli.evaluation.translation import BleuSettings, evaluate_translation

        settings = BleuSettings(self.beam_size, self.length_penalty, self.bleu_tokenizer)
        return evaluate_translation(
            predictor, self.sequences(examples), examples, self.info, split, plots, settings
        )

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """Of each sentence."""
        from dlcli.evaluation.translation import BleuSettings, translation_scores

        settings = BleuSettings(self.beam_size, self.length_penalty, self.bleu_tokenizer)
        return translation_scores(predictor, examples, self.info, settings)


def _say_what_is_cut(pairs: TokenPairs, length: int) -> None:
    """Notes how many texts lose their end, if any."""
    cut: Mapping[str, int] = {
        "sources": pairs.inputs["source"].num_cut,
        "targets": pairs.target_sequences.num_cut,
    }
    if any(cut.values()):
        counts = " and ".join(f"{count:,} {name}" for name, count in cut.items() if count)
        note(
            f"data: {counts} of {len(pairs):,} are longer than {length - 1} tokens and cut (dataset.max_length)"
        )
