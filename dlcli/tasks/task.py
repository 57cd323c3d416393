"""What every task has in common: the questions that training and evaluation ask it, and the usual answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from dlcli.data.augmentation import Augment
from dlcli.data.examples import DataInfo, Examples
from dlcli.errors import DataError
from dlcli.tasks import READS

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer
    from dlcli.evaluation.example_scores import ExampleScores

Build = Callable[..., Any]
"""An architecture with its arguments: `build(inputs) -> features`; keyword arguments overrule the recipe's."""


class Task:
    """Turns features into outputs, and says what they are compared with.

    A task of images or tables needs `outputs`, `predictions`, `loss_function`, `metric_functions` and `encode`;
    a task of texts also `sequences`. The rest has defaults.

    Args:
        info: what is known of the data; for texts with the tokenizer that was learnt.
    """

    name: ClassVar[str]
    monitor = "accuracy"
    """The metric, or `loss`, that decides which epoch is best."""
    num_classes = 0
    """Width of one-hot targets."""
    head: ClassVar[tuple[str, ...]] = ("pooling", "logits", "predictions")
    """Names of the layers that the task adds behind the architecture's; fine-tuning for other classes replaces them."""
    input_names: ClassVar[tuple[str, ...]] = ("tokens",)
    """Of texts: the network's inputs, by the names that `sequences` reads."""

    validates = True
    """Whether the loss and metrics of held-out examples say something, so that epochs end with them."""
    batches_per_step = 1
    """Batches of examples that one training step reads."""
    whole_batches = False
    """Whether a step cannot read a batch that is short."""
    per_token = False
    """Whether the loss is the mean over all tokens of a batch whose target is not 0, and not over its examples."""

    def __init__(self, info: DataInfo) -> None:
        if info.kind not in READS[self.name]:
            raise DataError(
                f"task {self.name} learns from data of kind {' or '.join(READS[self.name])}, and this data set is of "
                f"kind {info.kind}: change `task` or `dataset`"
            )
        self.info = info

    @property
    def tokenizer(self) -> Tokenizer:
        """Of texts: the vocabulary of the train split.

        Raises:
            ValueError: the data are no texts.
        """
        if self.info.tokenizer is None:
            raise ValueError(f"Expected texts. Received: data of kind {self.info.kind}")
        return self.info.tokenizer

    def sequences(self, examples: Any, *, training: bool = False) -> Examples:
        """Texts as the network reads them: token ids, and the targets that the loss compares with.

        The result's `read(indices)` gives int32 (B, T), or a dict of them, padded with 0 to the longest of the
        batch; `read_targets(indices)` gives targets of the same batch where they are sequences too.

        Args:
            examples: `dlcli.data.text.texts.TextExamples`.
            training: whether the network learns from these examples.
        """
        raise NotImplementedError

    def corrupt(self) -> Augment | None:
        """What is done to each batch of tokens in training and validation, such as masking; None for nothing."""
        return None

    def wants_one_hot(self, label_smoothing: float, mixes: bool) -> bool:
        """Whether the loss compares with one-hot targets (B, K) and not with class indices (B,).

        Args:
            label_smoothing: share of the target spread over all classes.
            mixes: whether an augmentation mixes the targets of two examples.
        """
        return False

    def encode(self, targets: np.ndarray) -> np.ndarray:
        """Targets as the loss wants them."""
        return targets

    def connect(self, build: Build, inputs: Any) -> Any:
        """The network's outputs for its inputs; a task with more than one network builds them here."""
        return self.outputs(build(inputs))

    def outputs(self, features: keras.KerasTensor) -> Any:
        """Logits."""
        raise NotImplementedError

    def predictions(self, logits: Any) -> Any:
        """What the saved model gives: probabilities, or values in their own unit."""
        raise NotImplementedError

    def loss_function(self, label_smoothing: float, one_hot: bool) -> Any:
        """The loss on logits; `one_hot` as `wants_one_hot` said."""
        raise NotImplementedError

    def terms(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """How many terms the mean of the loss has in a batch, and that of losses which layers add."""
        examples = keras.ops.shape(keras.tree.flatten(inputs)[0])[0]
        return keras.ops.sum(keras.ops.cast(targets != 0, "int32")) if self.per_token else examples, examples

    def metric_functions(self) -> list[keras.metrics.Metric]:
        """What each epoch shows."""
        raise NotImplementedError

    def evaluate(self, predictor: keras.Model, examples: Any, split: str, plots: Path) -> dict[str, Any]:
        """Scores the saved model on raw examples.

        Returns:
            The form of metrics.json; pictures go to `plots/SPLIT_*.png`.
        """
        from dlcli.evaluation.evaluate import evaluate_model

        return evaluate_model(predictor, examples, self.info, split, plots)

    def score_examples(self, predictor: keras.Model, examples: Any) -> ExampleScores:
        """What the saved model scores on each raw example, to compare it with another model on the same ones."""
        from dlcli.evaluation.example_scores import score_examples

        return score_examples(predictor, examples, self.info)
