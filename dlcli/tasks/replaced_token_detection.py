"""Replaced token detection: which tokens did a small masked language model put in?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from dlcli.data.augmentation import Augment
from dlcli.data.examples import DataInfo
from dlcli.data.text.masking import build_marking
from dlcli.data.text.sequences import TokenSequences
from dlcli.data.text.tokenizer import MASK
from dlcli.errors import DataError, DlcliError
from dlcli.layers.output_projection import ChosenTokens
from dlcli.layers.token_replacement import TokenReplacement
from dlcli.recipe.arguments import Annotated, Field, Weight
from dlcli.tasks.language_modeling import check_sequence
from dlcli.tasks.masked_language_modeling import check_maskable, masked_language_head, packed_windows
from dlcli.tasks.task import Build, Task

if TYPE_CHECKING:
    from dlcli.evaluation.example_scores import ExampleScores

MaskRate = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]

WIDTHS = ("width", "feedforward_width", "units", "embedding_width")
"""Arguments of architectures that make a smaller network of the same depth."""


class ReplacedTokenDetection(Task):
    """Which tokens were replaced? Clark et al. 2020, "ELECTRA", sections 2 and 3.2.

    A generator, the recipe's architecture at a fraction of its width, fills in masked tokens; the architecture itself
    says of each token whether the text had it. Both learn together, and the generator is thrown away. Each has an
    embedding of its own.

    Args:
        mask_rate: share of the tokens that the generator fills in.
        generator_size: width of the generator, as a share of the architecture's; heads keep their width.
        discriminator_weight: of the discriminator's loss beside the generator's.
        tie_embeddings: whether the generator's output matrix is its token embedding's.
    """

    name: ClassVar[str] = "replaced_token_detection"
    per_token = True
    monitor = "loss"
    head: ClassVar[tuple[str, ...]] = ("detection_dense", "logits", "predictions")

    def __init__(
        self,
        info: DataInfo,
        train_targets: np.ndarray,
        *,
        mask_rate: MaskRate = 0.15,
        generator_size: Share = 0.25,
        discriminator_weight: Weight = 50.0,
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__(info)
        self.mask_rate = mask_rate
        self.generator_size = generator_size
        self.discriminator_weight = discriminator_weight
        self.tie_embeddings = tie_embeddings
        check_maskable(info, self.name)

    def sequences(self, examples: Any, *, training: bool = False) -> TokenSequences:
        """Packed windows, `<start>` before each; the last one may be shorter."""
        return packed_windows(examples, self.info)

    def corrupt(self) -> Augment:
        """Ids (B, T), negative where the generator fills in; targets (B, T) are the original ids of all tokens."""
        return build_marking(self.mask_rate)

    def connect(self, build: Build, inputs: Any) -> keras.KerasTensor:
        """(B, T, 2): the discriminator's logit for each token, and the id that it was shown."""
        features = build(inputs)
        check_sequence(features, self.name, "bert or transformer")
        hidden = keras.layers.Dense(features.shape[-1], activation="gelu", name="detection_dense")(features)
        logits = keras.layers.Dense(1, dtype="float32", name="logits")(hidden)
        self._logits = keras.ops.squeeze(logits, -1)  # (B, T)
        marked = keras.utils.get_source_inputs(inputs)[0]
        shown = TokenReplacement(name="token_replacement")(marked, self._generated(build, marked))
        discriminator = keras.Model(marked, self._logits, name="discriminator")
        ids = keras.ops.cast(shown, "float32")  # exact below 2**24
        return keras.ops.stack([discriminator(shown), ids], axis=-1)

    def predictions(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Probability (B, T) that each token was replaced."""
        return keras.layers.Activation("sigmoid", dtype="float32", name="predictions")(self._logits)

    def loss_function(self, label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
        """The discriminator's share of the loss; the generator's is added inside the network."""
        if label_smoothing:
            raise DataError(
                f"regularization.label_smoothing {label_smoothing:g} does not work with task {self.name}: leave it out"
            )
        return DetectionLoss(self.discriminator_weight)

    def terms(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """The discriminator's tokens, and the chosen ones, of which the generator's loss is the mean."""
        return super().terms(inputs, targets)[0], keras.ops.sum(keras.ops.cast(inputs < 0, "int32"))

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """Accuracy on all tokens, and the share of the replaced ones that is found."""
        return [DetectionAccuracy(), DetectionAccuracy(of_replaced=True, name="recall")]

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Scores the discriminator on a text of which some tokens are drawn from the text itself.

        The generator is not part of the saved model; so the scores compare models, and say little about training.
        """
        from dlcli.evaluation.replaced_tokens import evaluate_detection

        return evaluate_detection(predictor, self.sequences(examples), self.mask_rate, split, plots)

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """Of each window."""
        from dlcli.evaluation.example_scores import ExampleScores, digest_of
        from dlcli.evaluation.replaced_tokens import detection_metrics, score_detection

        sums, _ = score_detection(predictor, self.sequences(examples), self.mask_rate)
        tokens = sums[:, 3:]  # how many were replaced, and how many there are
        answers = digest_of(self.tokenizer.json, self.mask_rate, self.info.max_length, tokens)
        return ExampleScores(sums, detection_metrics, answers, units="windows")

    def _generated(self, build: Build, marked: keras.KerasTensor) -> keras.KerasTensor:
        """The generator's logits (M, V) for the M tokens whose id is negative."""
        # A model of its own: its layers bear the same names as the discriminator's.
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        features = build(tokens, **smaller(build.arguments, self.generator_size))  # type: ignore[attr-defined]
        hidden, project = masked_language_head(features, self.info.vocabulary_size, self.tie_embeddings)
        generator = keras.Model(tokens, hidden, name="generator")
        hidden = generator(keras.ops.where(marked < 0, MASK, marked))
        return project(ChosenTokens(name="chosen_tokens")(hidden, marked))


def smaller(arguments: dict[str, Any], share: float) -> dict[str, Any]:
    """The arguments that make an architecture narrower; heads become fewer and keep their width.

    Args:
        arguments: of the recipe.
        share: of each width.

    Raises:
        DlcliError: the architecture has no width.
    """
    heads, width = arguments.get("num_heads"), arguments.get("width")
    changes: dict[str, Any] = {}
    if heads and width:
        changes["num_heads"] = max(1, round(heads * share))
        changes["width"] = changes["num_heads"] * (width // heads)
    for name in WIDTHS:
        value = arguments.get(name)
        if value is None or name in changes:
            continue
        narrow = [max(1, round(each * share)) for each in np.atleast_1d(value).tolist()]
        changes[name] = narrow[0] if isinstance(value, int) else narrow
    if not changes:
        raise DlcliError(
            "task replaced_token_detection makes a generator by narrowing the architecture, and this one has none of "
            f"the arguments {', '.join(WIDTHS)}: use architecture bert or transformer"
        )
    return changes


def _parts(y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
    """Logits, which tokens were replaced, and which count, each (N,) for all N = B x T tokens."""
    original = keras.ops.reshape(keras.ops.cast(y_true, "int32"), (-1,))
    shown = keras.ops.cast(keras.ops.reshape(y_pred[..., 1], (-1,)), "int32")
    return keras.ops.reshape(y_pred[..., 0], (-1,)), shown != original, original != 0


@keras.saving.register_keras_serializable("dlcli")
class DetectionLoss(keras.losses.Loss):
    """The mean over all tokens of the binary cross-entropy, times a weight; padding does not count.

    Args:
        weight: beside the generator's loss; 50 in ELECTRA, whose discriminator's loss is far smaller.
        name: as for any loss.
    """

    def __init__(self, weight: float = 50.0, name: str = "detection_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.weight = weight

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The scalar loss of original ids (B, T) and outputs (B, T, 2)."""
        if sample_weight is not None:
            raise ValueError("Expected no weights: every token counts the same. Received: sample_weight")
        # Flat outputs carry no mask of Keras, with which the mean would be taken twice.
        return super().__call__(keras.ops.reshape(y_true, (-1,)), keras.ops.reshape(y_pred, (-1, 2)))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """(N,): the loss of each token, weighted so that their mean is that of the tokens that count."""
        logits, replaced, real = _parts(y_true, y_pred)
        labels, counts = keras.ops.cast(replaced, logits.dtype), keras.ops.cast(real, logits.dtype)
        losses = keras.ops.binary_crossentropy(labels, logits, from_logits=True)
        total = keras.ops.sum(keras.ops.ones_like(counts))
        return self.weight * losses * counts * total / keras.ops.maximum(keras.ops.sum(counts), 1)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "weight": self.weight}


@keras.saving.register_keras_serializable("dlcli")
class DetectionAccuracy(keras.metrics.Mean):
    """The share of tokens that are rightly called replaced or original; padding does not count.

    Args:
        of_replaced: only the replaced ones: their recall.
        name: as for any metric.
    """

    def __init__(self, of_replaced: bool = False, name: str = "accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.of_replaced = of_replaced

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds original ids (B, T) and outputs (B, T, 2)."""
        logits, replaced, real = _parts(y_true, y_pred)
        counts = real & replaced if self.of_replaced else real
        hits = keras.ops.cast((logits > 0) == replaced, self.dtype)
        return super().update_state(hits, sample_weight=keras.ops.cast(counts, self.dtype))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "of_replaced": self.of_replaced}
